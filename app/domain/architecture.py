"""An architecture: a named builder of a module, with an options schema and a signature."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.domain.base import Value
from app.domain.conversion import TargetName

DType = Literal["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]


class Normal(Value):
    """Independent draws from a normal distribution; for float inputs."""

    kind: Literal["normal"] = "normal"
    mean: float = 0.0
    std: float = 1.0


class Uniform(Value):
    """Independent draws from [low, high); for float inputs with a range, such as pixels in [0, 1)."""

    kind: Literal["uniform"] = "uniform"
    low: float = 0.0
    high: float = 1.0


class Integers(Value):
    """Integers in [low, high], both included; for token or class ids."""

    kind: Literal["integers"] = "integers"
    low: int = 0
    high: int = 1


class Mask(Value):
    """Ones followed by padding zeros along the last axis, at least one 1 per row; for attention masks."""

    kind: Literal["mask"] = "mask"


Distribution = Annotated[Normal | Uniform | Integers | Mask, Field(discriminator="kind")]


class Axis(Value):
    """A symbolic axis: the sizes it may take and the one used when exporting.

    Admissible sizes are the multiples of ``multiple_of`` in [minimum, maximum].
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    sample: int = 2
    multiple_of: int = 1


class InputSpec(Value):
    """One input of the module. ``shape`` holds sizes and names of symbolic axes, such as ("batch", 3, 224, 224)."""

    name: str
    dtype: DType = "float32"
    shape: tuple[int | str, ...]
    distribution: Distribution = Normal()
    in_list: bool = False
    """True: forward takes a list, of which this tensor is the only element (torchvision's detection models)."""
    argument: str | None = None
    """The parameter of forward that takes this input, where the client gave the input another name."""


class OutputSpec(Value):
    """One output, in the order in which flattening the module's result yields it (see architectures/calling.py)."""

    name: str
    dtype: DType | None = None
    shape: tuple[int | str, ...] | None = None


class Signature(Value):
    """What the module takes and gives.

    Inputs are passed by keyword when every input name is a parameter of ``forward``, else by position in this order.
    ``outputs`` may be empty: names are then taken from the module's result (dict keys, or output, output_0, ...).
    """

    inputs: tuple[InputSpec, ...]
    axes: tuple[Axis, ...] = (Axis(name="batch"),)
    outputs: tuple[OutputSpec, ...] = ()

    def axis(self, name: str) -> Axis:
        """The declared axis of that name; KeyError if the signature declares none."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(name)


class ArchitectureDescription(Value):
    """What a client may know of an architecture without torch being imported: one entry of the catalog."""

    name: str
    family: str
    library: str
    library_version: str
    summary: str = ""
    options_schema: dict[str, Any] = Field(default_factory=dict)
    signature: Signature
    targets: tuple[TargetName, ...] = ("onnx", "torchscript")
    source_digest: str | None = None
    """sha256 of a plug-in's source; None for a library, whose version says as much."""
    plugin: str | None = None
    """The plug-in that offers it; None for a library."""


class BrokenPlugin(Value):
    """A plug-in that could not be loaded, and why. It offers no architecture."""

    name: str
    error: str
    architectures: tuple[str, ...] = ()
    """Names that its source seems to declare."""
