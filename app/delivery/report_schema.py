"""The JSON Schema of the report, published by the service."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from app.domain.report import ConversionReport

SCHEMA_ID = "/v1/schemas/report"


class _WithInfinities(GenerateJsonSchema):
    """Floats as the report writes them: JSON has no infinities, so they are the strings that domain.base names."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def report_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) that every report.json validates against."""
    schema = ConversionReport.model_json_schema(mode="serialization", schema_generator=_WithInfinities)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}
