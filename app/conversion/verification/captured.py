"""The program that an exporter captures from a module, before it is translated: what tells capture from translation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from app.conversion.verification.subject import Subject
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.quiet import collected
from app.targets.writer import writer_of


def captured_outputs(subject: Subject, sample: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Capture the module on ``sample`` as the artifact's exporter does and run what is captured on ``inputs``.

    Both at the same sizes. Raises whatever capturing or running raises.
    """
    flat = FlatModule(subject.module, subject.signature).eval()
    examples = tuple(sample[spec.name].clone() for spec in subject.signature.inputs)
    with collected(), torch.no_grad():
        program = writer_of(subject.target).program(flat, examples, subject.export.exporter)
        values = program(*(inputs[spec.name].clone() for spec in subject.signature.inputs))
    return dict(zip(flat.output_names, values, strict=True))
