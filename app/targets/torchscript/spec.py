"""What can be said of target ``torchscript`` without torch."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.targets.spec import Serving, TargetSpec
from app.targets.torchscript.usage import programs


class TorchScriptOptions(CommonOptions):
    """Options of target ``torchscript``."""

    target: Literal["torchscript"] = "torchscript"
    method: Literal["auto", "trace", "script"] = "auto"
    """Record what the model does on a sample, or compile its code; auto: whichever is proved right."""
    freeze: bool = False
    """Fold weights into the code, so that they have no names any more."""
    optimize_for_inference: bool = False
    """Freeze, and rewrite for the CPU of this machine."""
    check_trace: bool = True
    """Run a recorded program once more against the model while it is made."""
    keep_debug: bool = False
    """Keep the lines of source code that the program was made of."""


SPEC = TargetSpec(
    "torchscript",
    title="TorchScript",
    options=TorchScriptOptions,
    suffix=".pt",
    usage=programs,
    serving=Serving(triton_backend="pytorch", unnamed_tensors=True),
)
