"""One TorchScript module of several traces, each taken where the sizes of the inputs lead to it.

A trace keeps one way through the model's Python. Traces of the same module at sizes on both sides of what its code
asks are methods of one module here, which share its weights, and ``forward`` is compiled code that chooses.
"""

from collections.abc import Sequence
from functools import wraps
from typing import Any, Literal

import torch

from app.architectures.calling import EagerModel, bind
from app.architectures.module_state import ModuleState
from app.targets.capturing.dataclass_results import dataclasses_opened
from app.targets.capturing.side import Side, at_side, axis_places, renamed
from app.targets.request import ExportRequest

JOINED: Literal["joined"] = "joined"


def trace_sides(request: ExportRequest, sides: Sequence[Side]) -> torch.jit.ScriptModule:
    """Sides in the order in which they are asked; the last one serves all that is left. Raises what torch.jit does."""
    module = request.module
    state: list[ModuleState] = []

    @wraps(module.forward)
    def called(*args: Any, **kwargs: Any) -> Any:
        state[0].restore()  # what the trace of one side leaves in the module is no part of the next
        return module(*args, **kwargs)

    names = [f"side{number}" for number in range(len(sides))]
    bound = [bind(EagerModel(module, request.signature), at_side(request, side).sample) for side in sides]
    by_name = not bound[0][0]
    vars(module).update(dict.fromkeys(names, called))
    try:
        with dataclasses_opened(module), torch.no_grad():
            state.append(ModuleState(module))
            traced: torch.jit.ScriptModule = torch.jit.trace_module(  # type: ignore[no-untyped-call]
                module,
                {name: kwargs if by_name else args for name, (args, kwargs) in zip(names, bound, strict=True)},
                check_trace=False,
                strict=False,
                example_inputs_is_kwarg=by_name,
            )
    finally:
        state[0].restore()
        for name in names:
            del vars(module)[name]
    traced.define(_choice(traced, request, sides, by_name=by_name))
    return traced.eval()


def _choice(traced: torch.jit.ScriptModule, request: ExportRequest, sides: Sequence[Side], *, by_name: bool) -> str:
    """The source of a ``forward`` that looks at sizes."""
    arguments = traced._c._get_method("side0").schema.arguments[1:]
    taken = ", ".join(f"{argument.name}: {argument.type.annotation_str}" for argument in arguments)
    given = ", ".join(argument.name for argument in arguments)
    sizes = {}
    for axis, (number, position) in axis_places(request.signature).items():
        spec = request.signature.inputs[number]
        name = (spec.argument or spec.name) if by_name else arguments[number].name
        sizes[axis] = f"{name}[0].size({position})" if spec.in_list else f"{name}.size({position})"
    lines = [f"def forward(self, {taken}):"]
    for number, side in enumerate(sides[:-1]):
        lines += [f"    if {renamed(side.tests, sizes)}:", f"        return self.side{number}({given})"]
    return "\n".join([*lines, f"    return self.side{len(sides) - 1}({given})", ""])
