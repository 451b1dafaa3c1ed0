"""What the author of a Recast plug-in imports. These names are a stable interface.

A plug-in is a Python module that marks builders with ``@architecture``::

    from recast_plugins import Field, InputSpec, Signature, architecture

    @architecture("acme/scorer", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 16)),)))
    def scorer(hidden: Annotated[int, Field(ge=1, le=4096)] = 64) -> nn.Module:
        return nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 1))
"""

from pydantic import Field

from recast_plugins.declaration import Declaration, architecture, declarations
from recast_plugins.signature import Axis, InputSpec, Integers, Mask, Normal, OutputSpec, Signature, Uniform

__all__ = [
    "Axis",
    "Declaration",
    "Field",
    "InputSpec",
    "Integers",
    "Mask",
    "Normal",
    "OutputSpec",
    "Signature",
    "Uniform",
    "architecture",
    "declarations",
]
