"""The program that an exporter captures from a module, before it is translated: what tells capture from translation."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter import _flags

from app.conversion.exporters.flat_module import FlatModule
from app.conversion.exporters.quiet import collected
from app.domain.architecture import Signature


def captured_outputs(
    module: nn.Module,
    signature: Signature,
    exporter: str,
    sample: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Capture the module on ``sample`` as the named exporter does (torch.export, or a trace) and run it on ``inputs``.

    Both at the same sizes. Raises whatever capturing or running raises.
    """
    flat = FlatModule(module, signature).eval()
    examples = tuple(sample[spec.name].clone() for spec in signature.inputs)
    with collected(), torch.no_grad():
        program = _capture(flat, examples, exporter)
        values = program(*(inputs[spec.name].clone() for spec in signature.inputs))
    return dict(zip(flat.output_names, values, strict=True))


@_flags.set_onnx_exporting_flag
def _capture(flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., tuple[Tensor, ...]]:
    """Capture while torch.onnx.is_in_onnx_export() is true, so that a module takes its export-only branches."""
    if exporter.startswith("dynamo"):
        return torch.export.export(flat, examples, strict=False).module()
    traced: torch.jit.ScriptModule = torch.jit.trace(flat, examples, check_trace=False)  # type: ignore[no-untyped-call]
    return traced
