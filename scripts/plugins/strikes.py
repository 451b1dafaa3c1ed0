"""What scripts/chaos converts: a net that is cheap, takes as long as it is told to, and is deadly where told to be."""

import os
import signal
import time
from typing import Annotated, Literal

from recast_plugins import Field, InputSpec, Signature, architecture
from torch import nn


@architecture("chaos/net", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 8)),)))
def net(
    seconds: Annotated[float, Field(ge=0, le=600)] = 0, poison: Literal["none", "kill", "memory"] = "none"
) -> nn.Module:
    """Sleeps while it is built; "kill" ends its own process, "memory" takes all that it gets."""
    time.sleep(seconds)
    if poison == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    taken = []
    while poison == "memory":
        taken.append(bytearray(os.urandom(64 << 20)))
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
