"""The parity matrix: ways to compute the same outputs, and the first of them that departs from the oracle.

The chain of a conversion is capture (Python to a program), translation (program to file) and runtime (file to values).
A file that departs in the reference evaluator and in an unoptimised session alike is itself wrong; one that departs
only with graph optimisations, or in onnxruntime alone, is right and the runtime is not. Whether a wrong file was
captured or translated wrongly shows in the captured program, which is run only when a file is found wrong.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.conversion.verification.comparison import Comparison, compare, compare_outputs
from app.conversion.verification.io_dtypes import evaluated, opened
from app.conversion.verification.probes import draw_probe
from app.conversion.verification.reference import Reference
from app.conversion.verification.subject import Subject
from app.domain.report import Matrix, MatrixCell
from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, Evaluator
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.quiet import collected
from app.targets.reader import Reader
from app.targets.writer import writer_of

Kind = Literal["capture", "translation", "runtime", "reference"]

_PLAIN = "runtime, optimisations off"
_FULL = "runtime, optimisations on"
_CAPTURED = "captured program"


def parity_matrix(subject: Subject, reference: Reference, delivered: Comparison) -> Matrix:
    """The cells on one probe. ``delivered`` is the comparison of the artifact as clients will run it."""
    eager = max((_eager_ratio(reference, name) for name in reference.float_outputs), default=0.0)
    cells = [
        MatrixCell(cell="eager", kind="reference", worst_ratio=eager),
        MatrixCell(cell=f"oracle ({reference.kind})", kind="reference", worst_ratio=0.0),
        _cell(_PLAIN, "translation", lambda: _plain(subject, reference)),
        MatrixCell(cell=_FULL, kind="runtime", worst_ratio=_ratio(delivered)),
    ]
    cells += [_evaluated_cell(evaluator, subject, reference) for evaluator in subject.reader.evaluators]
    if _departs(cells, _PLAIN):
        cells.append(_cell(_CAPTURED, "capture", lambda: _captured(subject, reference)))
    return Matrix(cells=tuple(cells), culprit=_culprit(cells, subject.reader))


def _eager_ratio(reference: Reference, name: str) -> float:
    gate = reference.gate(name)
    return gate.ratio(gate.eager_error)


def _evaluated_cell(evaluator: Evaluator, subject: Subject, reference: Reference) -> MatrixCell:
    operations = reference.trace.operations
    if operations > evaluator.budget or not operations:
        times = f"takes {operations / evaluator.budget:.0f} times the work" if operations else "may take more work"
        skipped = f"the evaluator is slow, and this model {times} that it is given"
        return MatrixCell(cell=evaluator.name, kind="translation", skipped=skipped)
    return _cell(evaluator.name, "translation", lambda: _evaluated(evaluator, subject, reference))


def _cell(name: str, kind: Kind, run: Callable[[], Comparison]) -> MatrixCell:
    begun = time.perf_counter()
    try:
        comparison = run()
    except Exception as failed:  # noqa: BLE001 - a way that does not run says why in its cell
        return MatrixCell(cell=name, kind=kind, skipped=message_of(failed, 200))
    return MatrixCell(cell=name, kind=kind, worst_ratio=_ratio(comparison), seconds=time.perf_counter() - begun)


def _ratio(comparison: Comparison) -> float | None:
    """None when there are no values to compare."""
    return comparison.result.worst_ratio if comparison.result.outputs else None


def _plain(subject: Subject, reference: Reference) -> Comparison:
    comparison = compare(opened(subject, threads=subject.threads, optimise=False), reference)
    if not comparison.result.outputs:
        raise ArtifactRefused(comparison.result.reason or "")
    return comparison


def _evaluated(evaluator: Evaluator, subject: Subject, reference: Reference) -> Comparison:
    return compare_outputs(evaluated(evaluator, subject, reference.probe.inputs), reference)


def _captured(subject: Subject, reference: Reference) -> Comparison:
    sample = draw_probe(subject.signature, reference.probe.sizes, subject.seed + 1000).inputs
    outputs = _captured_outputs(subject, sample, reference.probe.inputs)
    return compare_outputs(outputs, reference)


def _captured_outputs(
    subject: Subject, sample: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Capture the module on ``sample`` as the artifact's exporter does and run what is captured on ``inputs``.

    Both at the same sizes. Raises whatever capturing or running raises.
    """
    flat = FlatModule(subject).eval()
    examples = tuple(sample[spec.name].clone() for spec in subject.signature.inputs)
    with collected(), torch.no_grad():
        program = writer_of(subject.target).program(flat, examples, subject.export.exporter)
        values = program(*(inputs[spec.name].clone() for spec in subject.signature.inputs))
    return dict(zip(flat.output_names, values, strict=True))


def _departs(cells: list[MatrixCell], name: str) -> bool:
    return any(cell.cell == name and cell.worst_ratio is not None and cell.worst_ratio > 1 for cell in cells)


def _agrees(cells: list[MatrixCell], name: str) -> bool:
    return any(cell.cell == name and cell.worst_ratio is not None and cell.worst_ratio <= 1 for cell in cells)


def _culprit(cells: list[MatrixCell], reader: Reader) -> Literal["capture", "translation", "runtime"] | None:
    if _departs(cells, _PLAIN):
        if any(_agrees(cells, evaluator.name) for evaluator in reader.evaluators):
            return "runtime"
        return "translation" if reader.translated and not _departs(cells, _CAPTURED) else "capture"
    return "runtime" if _departs(cells, _FULL) else None


@check(measures=True)
def matrix(case: Case) -> None:
    """The parity matrix on the first failing probe, or on the cheapest where it was asked for."""
    if not case.compared or not (case.failed or "matrix" in case.subject.measure):
        return
    pairs = [(c.reference, c) for c in case.compared if c.reference is not None]
    failed = [pair for pair in pairs if not pair[1].result.passed]
    taken, delivered = failed[0] if failed else min(pairs, key=lambda pair: pair[0].trace.operations)
    case.matrix = parity_matrix(case.subject, taken, delivered)
