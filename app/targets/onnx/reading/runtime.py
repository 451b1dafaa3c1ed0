"""ONNX files run by onnxruntime, in a session that shares nothing with the exporter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import torch
from torch import Tensor

from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, GraphFacts, ModuleValue
from app.targets.onnx.reading import audited, graph


class OnnxRuntime:
    """An onnxruntime session on the CPU provider.

    The memory arena is off: it keeps memory that is never given back. ``repack`` is onnxruntime's default, a second
    copy of many weights in the order its kernels like, by prepacking, by its layout optimisations and by carrying out
    ahead what rearranges weights. It pays only where a session runs often. The session of vit_b_16 (346 MB) takes 0.2 s
    and 170 MB more, and 0.012 s less for each run of two images; that of resnet50 0.03 s and 20 to 50 MB more, and
    0.01 s less. Where linear layers of that size transpose their weights in the graph, it takes 0.4 s more.
    """

    names_outputs = True

    def __init__(self, path: Path, *, optimise: bool = True, repack: bool = True, threads: int = 1) -> None:
        self._path, self._threads = path, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # a refusal is reported in full by the exception
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if repack else "1")
        levels = onnxruntime.GraphOptimizationLevel
        optimised = levels.ORT_ENABLE_ALL if repack else levels.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = optimised if optimise else levels.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[] if repack else ["ConstantFolding"],
            )
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        self.input_names = tuple(node.name for node in self._session.get_inputs())
        self.output_names = tuple(node.name for node in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # An exporter may drop an input that the model does not use.
        feed = {name: inputs[name].contiguous().numpy() for name in self.input_names if name in inputs}
        try:
            values = self._session.run(None, feed)
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        return {name: torch.from_numpy(value) for name, value in zip(self.output_names, values, strict=True)}

    def facts(self) -> GraphFacts:
        model = graph.read_graph(self._path)
        return GraphFacts(
            constants=audited.constants(model),
            training=audited.training_nodes(model),
            opset=graph.opset_of(model),
            ir_version=model.ir_version,
            operators=frozenset(node.op_type for node in graph.all_nodes(model)),
            external_data=any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer),
            axes=graph.input_axes(model),
        )

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """Every float value of the graph that has as many elements: files carry no names of modules."""
        by_count: dict[int, list[Tensor]] = {}
        for tensor in self._intermediates(inputs).values():
            by_count.setdefault(tensor.numel(), []).append(tensor)
        return [by_count.get(value.output.numel(), []) for value in values]

    def _intermediates(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every float value that the nodes give, by running a copy of the file that lists them as outputs."""
        model = onnx.load(str(self._path))
        inferred = onnx.shape_inference.infer_shapes(model) if model.ByteSize() < 2**31 - 1 else model
        listed = {value.name for value in model.graph.output}
        floats = [v for v in inferred.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
        model.graph.output.extend(value for value in floats if value.name not in listed)
        with TemporaryDirectory() as directory:
            watched = Path(directory) / "watched.onnx"
            onnx.save(model, str(watched), save_as_external_data=model.ByteSize() > 2**31 - 1)
            runner = OnnxRuntime(watched, optimise=False, threads=self._threads)
            return {name: value for name, value in runner.run(inputs).items() if value.is_floating_point()}
