"""The base of every value type: frozen, closed to unknown fields, hashable where its fields are."""

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value that reads from and writes to JSON under the same field names.

    JSON has no infinities: ``model_dump_json`` writes "Infinity", "-Infinity" and "NaN", which read back as floats.
    ``model_dump(mode="json")`` does not, so JSON is to be made with ``model_dump_json``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )
