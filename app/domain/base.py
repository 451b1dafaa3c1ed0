"""The base of every value type: frozen, closed to unknown fields, hashable where its fields are."""

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value that reads from and writes to JSON under the same field names."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())
