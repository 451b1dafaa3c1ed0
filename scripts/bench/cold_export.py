"""What a user would write today to get a checked ONNX file: one script, one exporter.

python scripts/bench/cold_export.py MODEL CHECKPOINT OUTPUT --exporter dynamo|torchscript [--warm | --verify]

Loads the weights, exports with a dynamic batch, runs onnx.checker, and compares one batch with onnxruntime. With --warm
it exports twice and prints the seconds of the second ``torch.onnx.export`` alone. With --verify the exporter compares
by itself (``verify=True``, dynamo only) in the place of the script.
"""

import argparse
import time
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

BATCH = 2
TOKENS = 16


def build(model: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The module with its own random initialisation, as users build it, and a sample batch."""
    if model == "bert":
        from transformers import BertConfig, BertModel

        ids = torch.randint(0, 30522, (BATCH, TOKENS))
        return BertModel(BertConfig(return_dict=False)), {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }
    import torchvision

    size = 224
    return torchvision.models.get_model(model), {"x": torch.randn(BATCH, 3, size, size)}


def export(
    module: nn.Module, sample: dict[str, torch.Tensor], output: str, exporter: str, verify: bool = False
) -> float:
    """Seconds that ``torch.onnx.export`` took."""
    axes = {name: {0: "batch"} for name in sample}
    how = {"dynamic_shapes": tuple(axes.values())} if exporter == "dynamo" else {"dynamic_axes": axes}
    started = time.perf_counter()
    torch.onnx.export(
        module,
        tuple(sample.values()),
        output,
        input_names=list(sample),
        dynamo=exporter == "dynamo",
        external_data=False,
        verbose=False,
        verify=verify,
        **how,
    )
    return time.perf_counter() - started


def check(module: nn.Module, sample: dict[str, torch.Tensor], output: str) -> None:
    onnx.checker.check_model(output)
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    actual = session.run(None, {name: tensor.numpy() for name, tensor in sample.items() if name in wanted})[0]
    with torch.inference_mode():
        expected = module(**sample)
    first = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(actual, first.numpy(), rtol=1e-2, atol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    parser.add_argument("--exporter", choices=("dynamo", "torchscript"), required=True)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    module, sample = build(arguments.model)
    module.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    module.eval()
    seconds = export(module, sample, arguments.output, arguments.exporter, arguments.verify)
    if arguments.warm:
        seconds = export(module, sample, arguments.output, arguments.exporter)
    elif not arguments.verify:
        check(module, sample, arguments.output)
    print(seconds)


if __name__ == "__main__":
    main()
