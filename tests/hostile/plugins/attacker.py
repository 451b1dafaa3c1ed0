"""An architecture whose construction attacks. Where nothing is reached it is built, and its weights are converted.

The service is given this file behind that of the attacks: a conversion's process sees nothing else of the tests.
"""

import json
import os
import socket
from typing import Any

from recast_plugins import InputSpec, Signature, architecture
from torch import Tensor, nn

from app.jobs.child import SupervisorLine

LINE = socket.socket(fileno=3) if os.path.exists("/proc/self/fd/3") else None
"""The conversion's own line to its supervisor, which is never closed."""


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.scores(features)


@architecture("hostile/attacker", signature=Signature(inputs=(InputSpec(name="features", shape=("batch", 8)),)))
def attacker(attack: str = "", arguments: Any = None) -> nn.Module:
    """``attack``: a function of tests/hostile/attacks.py, or ``say``, which sends the arguments to the supervisor."""
    if attack == "say":
        LINE.sendall(json.dumps(arguments).encode() + b"\n")
        os._exit(0)
    if attack:
        reached = globals()[attack](arguments or os.environ["TMPDIR"], SupervisorLine(LINE))
        if reached:
            raise RuntimeError(f"reached {reached}")
    return Layer()
