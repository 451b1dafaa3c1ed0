from pathlib import Path
from typing import Any


def run_pt2(artifact: Path, inputs: dict[str, Any]) -> list[Any]:
    """Outputs in the order in which they stand in the result."""
    import torch

    model = torch.export.load(str(artifact)).module()
    with torch.inference_mode():
        outputs = model(*map(torch.from_numpy, inputs.values()))
    return [tensor.numpy() for tensor in outputs]
