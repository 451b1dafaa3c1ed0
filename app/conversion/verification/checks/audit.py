"""Attribute audit: constants of the graph against those that eager was seen to use, where parity may be blind.

An epsilon ten times too large can hide behind large variances, and the tanh form of GELU lies 5e-4 from the erf form.
The oracle's trace (promotion.py) holds every epsilon and GELU form that the forward really used, functional calls too.
A bound of a clamp that no probe reaches may be any number. Four rules, each of which an honest export keeps:

1. the epsilon of every normalisation in the artifact, and every small number added before a square root, is one that
   eager used; a tensor of one element, such as a learned epsilon, is no number: the ledger holds it to its bytes
2. where the artifact has as many normalisations of a kind as eager called, their epsilons agree one for one
3. the artifact has no more tanh GELUs and no fewer erf GELUs than eager called
4. where the artifact has as many constant bounds of clamps as eager gave, they are the same numbers

Rules 2 to 4 need straight-line graphs: they are not applied to a graph with loops, branches or local functions.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded
from app.conversion.verification.promotion import Trace
from app.domain.report import Reason
from app.targets.artifact import GraphConstants
from app.targets.operators import CLAMPS


def complaints_of(trace: Trace, graph: GraphConstants, *, half: bool = False) -> list[str]:
    """Complaints; empty when every audited constant is accounted for. ``half``: tensors of the graph may be float16."""
    stored = _half if half else _single
    added = {stored(scalar) for scalar in trace.scalars}
    used = {_single(scalar) for scalar in trace.scalars}
    complaints = [
        f"{kind} has epsilon {epsilon:g}, which the model does not use"
        for kind, epsilon in graph.norms
        if _single(epsilon) not in used
    ]
    complaints += [
        f"a constant {epsilon:g} is added before a square root, which the model does not use"
        for epsilon in graph.hidden
        if stored(epsilon) not in added
    ]
    if graph.straight:
        complaints += _epsilons_one_for_one(trace, graph) + _gelu(trace, graph) + _bounds(trace, graph, stored)
    return list(dict.fromkeys(complaints))


def _epsilons_one_for_one(trace: Trace, graph: GraphConstants) -> list[str]:
    complaints = []
    for kind in dict.fromkeys(kind for kind, _ in graph.norms):
        delivered = Counter(_single(epsilon) for k, epsilon in graph.norms if k == kind)
        called = Counter(_single(epsilon) for epsilon in _eager_epsilons(trace, kind))
        if delivered.total() == called.total() and delivered != called:
            complaints.append(f"{kind} epsilons are {_listed(delivered)}, the model uses {_listed(called)}")
    return complaints


def _eager_epsilons(trace: Trace, kind: str) -> Iterable[float]:
    for call in trace.calls:
        if call.name.removeprefix("native_") == kind:
            yield from (float(v) for k, v in call.attributes if k == "eps")


def _gelu(trace: Trace, graph: GraphConstants) -> list[str]:
    forms = Counter(dict(call.attributes).get("approximate") for call in trace.calls if call.name == "gelu")
    complaints = []
    if graph.tanh_gelu > forms["tanh"]:
        complaints.append(f"{graph.tanh_gelu} GELUs are of the tanh form, the model uses it {forms['tanh']} times")
    if graph.erf < forms["none"]:
        complaints.append(f"{graph.erf} GELUs are of the erf form, the model uses it {forms['none']} times")
    return complaints


def _bounds(trace: Trace, graph: GraphConstants, stored: Callable[[float], Any]) -> list[str]:
    calls = (call for call in trace.calls if call.name in CLAMPS)
    given = Counter(float(stored(float(value))) for call in calls for _, value in call.attributes)
    delivered = Counter(float(stored(bound)) for bound in graph.bounds)
    if delivered.total() != given.total() or delivered == given:
        return []
    return [f"clamps have the bounds {_listed(delivered)}, the model uses {_listed(given)}"]


def _single(value: float) -> float:
    """The value as float32 stores it, to six digits: exporters write epsilons as float32 or as text."""
    return float(f"{np.float32(value):.6g}")


def _half(value: float) -> float:
    """The value as float16 stores it."""
    with np.errstate(over="ignore"):
        return float(np.float16(value))


def _listed(epsilons: Counter[float]) -> str:
    return ", ".join(f"{value:g} × {count}" for value, count in sorted(epsilons.items()))


@check(loaded)
def audit(case: Case) -> None:
    """Point 6: eval mode on both sides, the opset that the report claims, and constants that parity may not see.

    A training flag alone is no fault: the eager module in eval mode sets it too where a batch norm keeps no statistics
    and where a dropout drops nothing.
    """
    training = [name or "(the model)" for name, part in case.subject.module.named_modules() if part.training]
    training += case.facts.training
    case.eval_mode = not training
    if training:
        case.find(Reason.training_mode, f"in training mode: {', '.join(training[:5])}")
    _check_versions(case)
    traced = next((r.trace for r in case.references if r.trace.operations), None)
    constants = case.facts.constants
    if traced is not None and constants is not None:
        half = case.subject.coarseness > 1
        for complaint in complaints_of(traced, constants, half=half):
            case.find(Reason.attributes, complaint)


def _check_versions(case: Case) -> None:
    export, facts = case.subject.export, case.facts
    limits = case.subject.limits
    if limits is not None:
        objections = limits.objections(
            opset=facts.opset,
            ir_version=facts.ir_version,
            operators=facts.operators,
            external_data=facts.external_data,
        )
        for objection in objections:
            case.find(Reason.runtime, f"the file is made for {limits.title}: {objection}")
    for name, claimed, found in (
        ("opset", export.opset, facts.opset),
        ("IR version", export.ir_version, facts.ir_version),
    ):
        if claimed is not None and claimed != found:
            case.find(Reason.opset, f"the file has {name} {found}, {claimed} was claimed")
