"""What an architecture takes and gives: inputs with the distributions they are drawn from, symbolic axes, outputs."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]


class Declared(BaseModel):
    """The base of what a plug-in declares: frozen, closed to unknown fields, written to JSON under the same names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class Normal(Declared):
    """Independent draws from a normal distribution; for float inputs."""

    kind: Literal["normal"] = "normal"
    mean: float = 0.0
    std: float = 1.0


class Uniform(Declared):
    """Independent draws from [low, high); for float inputs with a range, such as pixels in [0, 1)."""

    kind: Literal["uniform"] = "uniform"
    low: float = 0.0
    high: float = 1.0


class Integers(Declared):
    """Integers in [low, high], both included; for token or class ids."""

    kind: Literal["integers"] = "integers"
    low: int = 0
    high: int = 1


class Mask(Declared):
    """Ones followed by padding zeros along the last axis, at least one 1 per row; for attention masks."""

    kind: Literal["mask"] = "mask"


Distribution = Annotated[Normal | Uniform | Integers | Mask, Field(discriminator="kind")]


class Axis(Declared):
    """A symbolic axis: the sizes it may take and the one used when exporting.

    Admissible sizes are the multiples of ``multiple_of`` in [minimum, maximum].
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    sample: int = 2
    multiple_of: int = 1


class InputSpec(Declared):
    """One input of the module. ``shape`` holds sizes and names of symbolic axes, such as ("batch", 3, 224, 224)."""

    name: str
    dtype: DType = "float32"
    shape: tuple[int | str, ...]
    distribution: Distribution = Normal()
    in_list: bool = False
    """True: forward takes a list, of which this tensor is the only element (torchvision's detection models)."""
    preprocessing: str | None = None
    """What makes this input of raw data, in words; of a library's published weights, where it has such."""
    argument: str | None = None
    """The parameter of forward that takes this input, where the client gave the input another name."""


class OutputSpec(Declared):
    """One output, in the order of the module's result: tuples and lists by position, dictionaries as filled, fields."""

    name: str
    dtype: DType | None = None
    shape: tuple[int | str, ...] | None = None


class Signature(Declared):
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
