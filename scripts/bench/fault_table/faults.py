"""The faults put into artifacts: wrong weights in a right graph, and wrong graphs with right weights."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fault_table.artifacts import DYNAMO, INT8, SIDE_FILE, TRACE, TRACED_ONNX, Artifact, writer
from fault_table.nets import NETS, THREE_OUTPUTS, Net, ThreeOutputs
from torch import Tensor, nn

from app.conversion.verification.perturbation import Perturbation, draw_perturbations
from app.domain.architecture import Signature

ALL_HALF, ALL_BRAIN = "all weights rounded to float16", "all weights rounded to bfloat16"
EPSILON, GELU, AXIS, BRANCH = "epsilon ×10", "GELU erf→tanh", "axis frozen", "export-only branch"

Change = Callable[[nn.Module], None]


def weight_faults(module: nn.Module, count: int, seed: int) -> list[Perturbation]:
    """``count`` faults of the kinds of the negative control, then the whole state dict rounded both ways."""
    state = module.state_dict()
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    rounded = [
        Perturbation(kind, "", {name: value.to(dtype).to(value.dtype) for name, value in floats.items()})
        for kind, dtype in ((ALL_HALF, torch.float16), (ALL_BRAIN, torch.bfloat16))
    ]
    return [*draw_perturbations(module, count, seed), *rounded]


def with_faults(state: dict[str, Tensor], fault: Perturbation) -> dict[str, Tensor]:
    """The state dict with the fault in it, under every name that ties carry it by."""
    changed = dict(state)
    for name, value in fault.tensors.items():
        for other, held in state.items():
            if held.data_ptr() == state[name].data_ptr() and held.shape == state[name].shape:
                changed[other] = value
    return changed


@dataclass(frozen=True)
class GraphFault:
    """An artifact of a twin whose code differs from the right module's."""

    kind: str
    net: Net
    way: str
    make: Callable[[nn.Module, Path], Artifact]
    """(right module, directory) → the faulty artifact. Raises ExportFailed and kin where the exporter notices."""


def graph_faults() -> Iterator[GraphFault]:
    """Every graph fault that a net can have, by several ways to export."""
    for net in NETS:
        module = net.build()
        if any(hasattr(part, "eps") for part in module.modules()):
            for way in (DYNAMO, SIDE_FILE, TRACED_ONNX, TRACE, INT8):
                yield GraphFault(EPSILON, net, way, _of_twin(way, net.signature, _enlarge_epsilons))
        if any(isinstance(part, nn.GELU) for part in module.modules()):
            for way in (DYNAMO, SIDE_FILE, TRACED_ONNX, TRACE, INT8):
                yield GraphFault(GELU, net, way, _of_twin(way, net.signature, _approximate_gelus))
        axis = net.signature.axes[-1].name
        static = with_fixed_axis(net.signature, axis)
        for way in (DYNAMO, TRACED_ONNX):
            yield GraphFault(f"{AXIS} in the file", net, way, _of_twin(way, static, _leave))
        narrow = functools.partial(_narrow_inputs, signature=net.signature, axis=axis)
        for way in (DYNAMO, TRACED_ONNX, TRACE, INT8):
            yield GraphFault(f"{AXIS} in the code", net, way, _of_twin(way, net.signature, narrow))
    for way in (DYNAMO, SIDE_FILE, TRACED_ONNX, INT8):
        yield GraphFault(BRANCH, EXPORT_BRANCH, way, _of_twin(way, EXPORT_BRANCH.signature, _leave))


def _of_twin(way: str, signature: Signature, change: Change) -> Callable[[nn.Module, Path], Artifact]:
    def make(module: nn.Module, directory: Path) -> Artifact:
        twin = copy.deepcopy(module)
        change(twin)
        return writer(twin, signature, way, directory)(module.state_dict(), directory / "faulty")

    return make


def _leave(module: nn.Module) -> None:
    """The fault is in the signature or in the module itself."""


def _enlarge_epsilons(module: nn.Module) -> None:
    for part in module.modules():
        if hasattr(part, "eps"):
            part.eps *= 10


def _approximate_gelus(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.GELU):
            part.approximate = "tanh"


def with_fixed_axis(signature: Signature, axis: str) -> Signature:
    """The signature with one axis made static at its sample size."""
    size = signature.axis(axis).sample
    inputs = [
        spec.model_copy(update={"shape": tuple(size if part == axis else part for part in spec.shape)})
        for spec in signature.inputs
    ]
    axes = tuple(declared for declared in signature.axes if declared.name != axis)
    return signature.model_copy(update={"inputs": tuple(inputs), "axes": axes})


def _narrow_inputs(module: nn.Module, signature: Signature, axis: str) -> None:
    """Let the code look at the sample's size of the axis only, whatever it is given."""
    size = signature.axis(axis).sample
    forward = module.forward
    shapes = {spec.name: spec.shape for spec in signature.inputs}

    @functools.wraps(forward)
    def narrowed(**inputs: Tensor) -> Any:
        return forward(**{name: value.narrow(shapes[name].index(axis), 0, size) for name, value in inputs.items()})

    module.forward = narrowed  # type: ignore[method-assign]


class ExportBranch(ThreeOutputs):
    """Behaves differently while it is exported, as code that works around an exporter does."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, box, label = super().forward(image)
        if torch.onnx.is_in_onnx_export():
            box = box.clamp(min=-0.5)
        return logits, box, label


EXPORT_BRANCH = Net("export-only branch", ExportBranch, THREE_OUTPUTS)
