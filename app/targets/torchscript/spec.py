"""What can be said of target ``torchscript`` without torch."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.targets.spec import Serving, TargetSpec
from app.targets.torchscript.usage import programs


class TorchScriptOptions(CommonOptions):
    """Options of target ``torchscript``."""

    target: Literal["torchscript"] = "torchscript"
    method: Literal["auto", "trace", "script"] = "auto"
    freeze: bool = False
    optimize_for_inference: bool = False
    check_trace: bool = True
    keep_debug: bool = False


SPEC = TargetSpec(
    "torchscript",
    title="TorchScript",
    options=TorchScriptOptions,
    suffix=".pt",
    usage=programs,
    serving=Serving(triton_backend="pytorch", unnamed_tensors=True),
)
