from pathlib import Path
from typing import Any


def run_torchscript(artifact: Path, inputs: dict[str, Any]) -> list[Any]:
    """Outputs in the order in which they stand in the result."""
    import torch

    def flat(value: Any) -> list[Any]:
        if value is None:
            return []
        if hasattr(value, "numpy"):
            return [value]
        parts = value.values() if hasattr(value, "values") else value
        return [tensor for part in parts for tensor in flat(part)]

    module: Any = torch.jit.load(str(artifact), map_location="cpu")  # type: ignore[no-untyped-call]
    arguments = {argument.name: str(argument.type) for argument in module.forward.schema.arguments[1:]}
    values: dict[str, Any] = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.inference_mode():
        if all(name in arguments for name in values):
            lists = {name for name, kind in arguments.items() if kind.startswith("List[")}
            result = module(**{name: [value] if name in lists else value for name, value in values.items()})
        else:
            result = module(*values.values())
    return [tensor.numpy() for tensor in flat(result)]
