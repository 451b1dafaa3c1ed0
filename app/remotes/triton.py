"""config.pbtxt of a model for NVIDIA's Triton Inference Server (model_config.proto)."""

import json

from app.remotes.published import Model

TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int16": "TYPE_INT16",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}


def triton_config(name: str, model: Model) -> str:
    """The configuration, without batching by Triton: the shapes are those of whole tensors, which is always right.

    Tensors without names are known by their place (INPUT__0).
    """
    lines = [f"name: {json.dumps(name)}", f"backend: {json.dumps(model.serving.triton_backend)}", "max_batch_size: 0"]
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        for at, tensor in enumerate(tensors):
            told = f"{kind.upper()}__{at}" if model.serving.unnamed_tensors else tensor.name
            dims = ", ".join(str(size) for size in tensor.dims)
            lines.append(
                f"{kind} [ {{ name: {json.dumps(told)}, data_type: {TYPES.get(tensor.dtype, 'TYPE_INVALID')}, "
                f"dims: [ {dims} ] }} ]"
            )
    lines += [
        f"parameters: {{ key: {json.dumps(key)}, value: {{ string_value: {json.dumps(value)} }} }}"
        for key, value in model.facts().items()
    ]
    return "\n".join(lines) + "\n"
