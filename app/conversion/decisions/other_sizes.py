"""Running the model itself at other sizes of its dynamic axes than those it is exported at."""

from collections.abc import Mapping

import torch

from app.architectures.calling import call
from app.architectures.sample import sample_inputs
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.quiet import collected, first_lines
from app.targets.request import SAMPLE_SEED, ExportRequest


def failure_at(request: ExportRequest, sizes: Mapping[str, int]) -> str | None:
    """What the model says at these sizes, all other axes as they are exported; None when it runs."""
    inputs = sample_inputs(request.signature, sizes, torch.Generator().manual_seed(SAMPLE_SEED))
    try:
        with torch.random.fork_rng(devices=[]), collected(), plain_attention():
            call(request, inputs)
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises at sizes that it does not take
        return first_lines(str(error)) or type(error).__name__
    return None
