"""The base of every value type: frozen, closed to unknown fields, hashable where its fields are."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value that reads from and writes to JSON under the same field names.

    JSON has no infinities: ``model_dump_json`` writes "Infinity", "-Infinity" and "NaN", which read back as floats.
    ``model_dump(mode="json")`` does not, so JSON is to be made with ``model_dump_json``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )

    @classmethod
    def kept(cls, content: Any) -> Self:
        """From a row or an object of the store, which a later version of the service may have written, as a value or
        as the text of its JSON: without what this version does not know. Raises ValidationError."""
        if isinstance(content, str | bytes):
            return cls.model_validate_json(content, extra="ignore")
        return cls.model_validate(content, extra="ignore")
