"""Approximations: the exact artifact first, verified as always, then one that is derived from it within a budget.

Both links are proved: the exact graph is held to the model by the gate, the approximation of that graph to the model's
own outputs by the budget and to the uploaded weights by the ledger.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from app.conversion.candidates import Candidate, Workpiece, fill
from app.conversion.job import TemplateSource
from app.conversion.production import Produced, produce
from app.conversion.stages import StageClock
from app.conversion.verification.probes import client_probes
from app.conversion.verification.verdict import settle, verdict_of
from app.conversion.verification.verify import Verification, examine
from app.domain.conversion import Stage
from app.domain.report import Derivation, Finding, Quantization, QuantizedLayer, Reason, Rung
from app.targets.writer import Approximating, writer_of

_OF_ITS_BITS = frozenset({Reason.over_budget, Reason.dims})
"""What fewer layers in 8 bits may mend: too far from the model, at the sizes of the probes or at others."""
NAMED = 5
"""Layers that words name."""


def produce_within(work: Workpiece, templates: TemplateSource, clock: StageClock) -> Produced:
    """The artifact that was asked for: an exact one, or the first approximation of it that its budget admits.

    Where no approximation is within the budget, the last one is produced, with the verdict fail. Raises as ``produce``.
    """
    options = work.job.options
    if options.tolerance is None:
        return produce(work, templates, clock)
    exact = produce(_exactly(work), templates, clock)
    rungs: list[Rung] = []
    made: tuple[Candidate, Verification] | None = None
    for name, candidate in _candidates(work, exact, clock):
        started = time.perf_counter()
        with clock.stage(Stage.verify):
            verification = examine(work.subject(candidate), "budget")
        made = candidate, verification
        failures = [finding for finding in verification.report.findings if finding.severity == "fail"]
        rungs.append(
            Rung(
                exporter=name,
                outcome="rejected" if failures else "succeeded",
                seconds=time.perf_counter() - started,
                reason=failures[0].detail if failures else None,
            )
        )
        if not failures or {finding.reason for finding in failures} - _OF_ITS_BITS:
            break
    assert made is not None
    return _derived(exact, *made, rungs)


def _exactly(work: Workpiece) -> Workpiece:
    """The same conversion without what makes its artifact an approximation, and without figures for the report."""
    options = work.job.options.exact.model_copy(update={"measure": ()})
    return replace(work, job=replace(work.job, options=options), request=replace(work.request, options=options))


def _candidates(work: Workpiece, exact: Produced, clock: StageClock) -> Iterator[tuple[str, Candidate]]:
    """Approximations, written to disk one after the other; only the last one stays there."""
    writer = cast(Approximating[Any], writer_of(work.job.options.target))
    tensors = {key: value for key, value in work.loaded.module.state_dict().items() if isinstance(value, Tensor)}
    directory = work.job.work_dir / "approximations"
    directory.mkdir()
    probes = client_probes(work.job.client_probes, work.request.signature)
    request = replace(work.request, calibration=[probe.inputs for probe in probes])
    found = writer.approximations(exact.candidate.filled, tensors, request, directory)
    number = 0
    while True:
        own = directory / str(number)
        with clock.stage(Stage.export):
            template, quantization = next(found, (None, None))
            if template is None or quantization is None:
                return
            if number:
                shutil.rmtree(directory / str(number - 1))
            own.mkdir()
            candidate = fill(work, template, own)
        export = candidate.export.model_copy(update={"quantization": quantization})
        yield _called(quantization), replace(candidate, export=export)
        number += 1


def _called(quantization: Quantization) -> str:
    kept = sum(layer.precision == "fp32" for layer in quantization.layers)
    return f"int8 ({quantization.activations})" + (
        f", {kept} of {len(quantization.layers)} layers in fp32" if kept else ""
    )


def _derived(exact: Produced, candidate: Candidate, verification: Verification, rungs: Sequence[Rung]) -> Produced:
    """The approximation with what was found on the way to it. A doubt about the exact artifact is one about this."""
    told = [*verification.report.findings, *exact.verification.findings]
    findings = settle([_with_layers(finding, candidate.export.quantization) for finding in told])
    report = verification.report.model_copy(
        update={"findings": findings, "verdict": verdict_of(findings, approximate=True)}
    )
    written = exact.candidate.written
    source = Derivation(
        bytes=written.bytes + (written.data.bytes if written.data else 0),
        sha256=written.sha256,
        export=exact.candidate.export.model_copy(update={"rungs": exact.rungs}),
        verification=exact.verification,
    )
    return replace(
        exact,
        candidate=candidate,
        verification=report,
        golden=verification.golden,
        rungs=(*exact.rungs, *rungs),
        derived_from=source,
    )


def _with_layers(finding: Finding, quantization: Quantization | None) -> Finding:
    """What is over the budget, with the layers that lose most."""
    if finding.reason is not Reason.over_budget or quantization is None:
        return finding
    measured = [layer for layer in quantization.layers if layer.snr_db is not None]
    worst = sorted(measured, key=lambda layer: cast(float, layer.snr_db))[:NAMED]
    if not worst:
        return finding
    named = ", ".join(map(_layer_words, worst))
    return finding.model_copy(update={"detail": f"{finding.detail}; the layers that lose most: {named}"})


def _layer_words(layer: QuantizedLayer) -> str:
    return f"{layer.layer} ({layer.snr_db:.0f} dB alone{', kept in fp32' if layer.precision == 'fp32' else ''})"
