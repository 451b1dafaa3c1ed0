"""Axes that the client asked to vary and the architecture does not declare: can the model itself vary them?"""

from app.conversion.decisions.other_sizes import failure_at
from app.domain.architecture import Signature
from app.domain.conversion import Stage
from app.domain.errors import StaticAxis
from app.targets.request import ExportRequest


def refuse_fixed_axes(request: ExportRequest, declared: Signature) -> None:
    """Run the eager model at other sizes of each such axis, one axis at a time, all others as they are exported.

    One size at which it runs is enough: what the artifact does there is for the dims certificate to show. Raises
    StaticAxis when there is none, since no exporter could then deliver what was asked for.
    """
    for axis, places in _undeclared(request.signature, declared).items():
        sizes = _other_sizes(request.signature.axis(axis).sample)
        failure = failure_at(request, {axis: sizes[0]})
        if failure is not None and all(failure_at(request, {axis: size}) for size in sizes[1:]):
            raise StaticAxis(
                f"The model itself cannot run at another size of {', '.join(places)} ({axis!r}): "
                f"at size {sizes[0]}: {failure}",
                stage=Stage.load.value,
                hint="Leave this axis out of dynamic_axes; the architecture's signature names those that can vary.",
            )


def _undeclared(signature: Signature, declared: Signature) -> dict[str, list[str]]:
    """Names of the axes, each with the places where the architecture has a fixed size."""
    places: dict[str, list[str]] = {}
    for spec, original in zip(signature.inputs, declared.inputs, strict=True):
        for position, (size, fixed) in enumerate(zip(spec.shape, original.shape, strict=True)):
            if isinstance(size, str) and isinstance(fixed, int):
                places.setdefault(size, []).append(f"axis {position} of {spec.name}")
    return places


def _other_sizes(sample: int) -> tuple[int, ...]:
    """One more, and for models that pool or patch: the next multiple of 32, and twice as much."""
    return sample + 1, (sample // 32 + 1) * 32, 2 * sample
