"""A conversion: one job, which clients see as a resource; its target, options, stages and states."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, ConfigDict, Field

from app.domain.base import Value
from app.domain.runtime import RuntimeLimits

TargetName = Literal["onnx", "torchscript", "pt2", "safetensors", "openvino"]
"""Each has a folder of that name in app/targets."""
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)
OnMismatch = Literal["fail", "warn"]
VerificationMode = Literal["auto", "full"]
Measurement = Literal["latency", "matrix"]
IoDType = Literal["float16"]
INT32 = 2**31 - 1
MAX_NAME = 1000
"""Characters of a name of an input, an output or an axis, and of a path in a checkpoint."""
MAX_NAMES = 4096
MAX_RANK = 64


class State(StrEnum):
    """Where a conversion stands as a whole."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    canceled = "canceled"
    timed_out = "timed_out"

    @property
    def final(self) -> bool:
        return self not in (State.queued, State.running)


class Stage(StrEnum):
    """The steps of a running conversion, in order. The same names stand in code, events, timings and errors."""

    fetch = "fetch"
    inspect = "inspect"
    build = "build"
    load = "load"
    export = "export"
    verify = "verify"
    package = "package"
    publish = "publish"


Name = Annotated[str, Field(max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES, fail_fast=True)]


MAX_EMBEDDED = 16_384
"""Characters of a text that an artifact carries."""
OWN_FACTS = "recast."
"""What the names begin with under which an artifact says of itself what the service knows."""


def _not_ours(name: str) -> str:
    if name.startswith(OWN_FACTS):
        raise ValueError(f"names that begin with {OWN_FACTS} are the service's own")
    return name


Embedded = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$"), AfterValidator(_not_ours)
]


class AccuracyBudget(Value):
    """How far an approximation may lie from the model, per output."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    snr_db: float = Field(default=20.0, ge=0, le=140)
    """Least 10 log10(sum of squares of the model's output / sum of squares of the difference), on every probe."""
    top1: float = Field(default=0.99, ge=0, le=1)
    """Least share of rows (along the last axis) whose largest value is where the model's is, or where the model's own
    lies within the noise that snr_db admits; of integers, the least share of equal elements. Over all probes."""

    def __str__(self) -> str:
        return f"SNR of at least {self.snr_db:g} dB, top-1 agreement of at least {self.top1:.4g}"


class CommonOptions(Value):
    """Options of every target; those of one are its own class, in its folder of app/targets.

    What stands below each is its description in the schema, and in forms made from it.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    of_precision: ClassVar[Mapping[str, str]] = {}
    """Options that say something with one precision alone, and with which."""

    target: TargetName
    example_shapes: dict[Name, Annotated[tuple[int, ...], Field(max_length=MAX_RANK, fail_fast=True)]] | None = None
    """Sizes of the sample input used to export, by input name, instead of the signature's."""
    dynamic_axes: dict[Name, dict[int, Name]] | None = None
    """Axis position to axis name, by input name. None: what the signature declares. {}: everything static."""
    input_names: Names | None = None
    """Names of the inputs in the file, in the order of the signature; None: the signature's own."""
    output_names: Names | None = None
    """Names of the outputs in the file, in their order; None: the signature's own."""
    strict: bool = True
    """False: keys that miss or are left over are reported and not refused."""
    allow_missing: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=100, fail_fast=True)
    """Patterns such as "fc.*" of keys that the checkpoint may lack although they act on the outputs."""
    prefix: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    """A leading segment to take off the uploaded keys, such as "module."; None: found out, and reported."""
    checkpoint_key: Annotated[str, Field(max_length=MAX_NAME)] = "auto"
    """Dotted path of the state dict inside the file, such as "model" or "ema.state_dict"."""
    on_mismatch: OnMismatch = "fail"
    """Whether an artifact that fails verification ends the conversion as failed, or is served with a warning."""
    verification: VerificationMode = "auto"
    """full: prove everything anew although the graph was proved before."""
    measure: tuple[Measurement, ...] = ()
    """Figures for the report that no verdict rests on: latency of model and artifact, the parity matrix."""
    embed: dict[Embedded, Annotated[str, Field(max_length=MAX_EMBEDDED)]] = Field(default_factory=dict, max_length=64)
    """Names and texts that the artifact shall carry beside what it says of itself: a version, a licence, thresholds."""

    @property
    def coarseness(self) -> float:
        """Times the unit roundoff of the model's own dtype with which the artifact shall compute."""
        return 1.0

    @property
    def io_dtype(self) -> IoDType | None:
        """The dtype in which inputs and outputs of float32 stand in the file; None: as they are in the model."""
        return None

    @property
    def limits(self) -> RuntimeLimits | None:
        """Those of the runtime that the file is made for; None: the one that proves it."""
        return None

    @property
    def tolerance(self) -> AccuracyBudget | None:
        """The budget of an artifact that approximates the model; None where it is to compute what the model does."""
        return None

    @property
    def exact(self) -> Self:
        """The options of what an approximation is derived from: the same, but for what makes it one."""
        return self

    @property
    def over_checkpoint(self) -> bool:
        """Whether the artifact leaves the weights in the uploaded file and points into it."""
        return False

    def for_file(self, filename: str | None) -> Self:  # noqa: ARG002
        """The options with what follows from the name under which the checkpoint was uploaded."""
        return self
