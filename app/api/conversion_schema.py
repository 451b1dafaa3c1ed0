"""The request body of POST /v1/conversions for OpenAPI: it is read by hand, because its file must stream."""

from typing import Any

from app.api.labels import MAX_LABELS, MAX_NAME, MAX_VALUE
from app.domain.acceptance import BEST_FIRST
from app.targets.specs import SPECS

_SHA256 = "sha256 of an uploaded checkpoint"
_VERDICTS = [verdict.value for verdict in BEST_FIRST]
_NAMED: dict[str, Any] = {
    "architecture": {"type": "string", "description": "Name of a registered architecture"},
    "target": {"type": "string", "enum": list(SPECS)},
    "name": {"type": "string", "maxLength": MAX_NAME, "description": "What people shall call it"},
    "force": {"type": "boolean", "description": "Convert again although the result is known. Default: false."},
}
_LABELS = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
    "maxProperties": MAX_LABELS,
    "description": "Pairs to find it again by",
}
_JSON: dict[str, Any] = {
    "type": "object",
    "required": ["architecture", "target", "checkpoint"],
    "additionalProperties": False,
    "properties": {
        **_NAMED,
        "checkpoint": {
            "type": "string",
            "pattern": "^(sha256:)?[0-9a-fA-F]{64}$",
            "description": _SHA256,
        },
        "options": {
            "description": "Options of the target",
            "anyOf": [{"$ref": f"#/components/schemas/{spec.options.__name__}"} for spec in SPECS.values()],
        },
        "architecture_options": {
            "type": "object",
            "additionalProperties": True,
            "description": "Options of the architecture, which GET /v1/architectures/{name} describes",
        },
        "labels": _LABELS,
        "accept": {
            "type": "array",
            "items": {"type": "string", "enum": _VERDICTS},
            "minItems": 1,
            "description": "Verdicts that count as success, with all better ones. Default: pass, pass_with_notes.",
        },
    },
}
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["architecture", "target"],
    "additionalProperties": False,
    "properties": {
        **_NAMED,
        "options": {"type": "string", "description": "Options of the target as JSON", "examples": ['{"opset": 18}']},
        "architecture_options": {
            "type": "string",
            "description": "Options of the architecture as JSON",
            "examples": ["{}"],
        },
        "accept": {
            "type": "string",
            "enum": ["", *_VERDICTS],
            "description": "The worst verdict that counts as success. Default: pass_with_notes.",
        },
        "labels": {"type": "string", "description": "Pairs to find it again by, as JSON", "examples": ["{}"]},
        "checkpoint": {"type": "string", "description": f"{_SHA256}, in place of file", "examples": [""]},
        "file": {"type": "string", "format": "binary", "description": "The checkpoint itself"},
        "probes": {
            "type": "string",
            "format": "binary",
            "description": "npz of inputs by name that verification uses besides its own",
        },
    },
}
_EXAMPLE = {"architecture": "torchvision/resnet18", "target": "onnx"}

CONVERSION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _JSON,
                "example": {
                    **_EXAMPLE,
                    "checkpoint": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
                    "options": {"opset": 18},
                    "name": "pets, second try",
                    "labels": {"team": "vision"},
                    "architecture_options": {"num_classes": 37},
                },
            },
            "multipart/form-data": {"schema": _FORM, "example": {**_EXAMPLE, "options": '{"opset": 18}'}},
        },
    }
}


def option_schemas() -> dict[str, Any]:
    """The components that the body refers to."""
    schemas = {}
    for model in (spec.options for spec in SPECS.values()):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        del schema["properties"]["target"]  # the request says it
        schemas[model.__name__] = schema
    return schemas
