"""The request body of POST /v1/conversions for OpenAPI: it is read by hand, because its file must stream."""

from typing import Any

from app.domain.conversion import OnnxOptions, TorchScriptOptions

_OPTIONS = {
    "description": "Options of the target; see the schemas OnnxOptions and TorchScriptOptions",
    "anyOf": [
        {"$ref": "#/components/schemas/OnnxOptions"},
        {"$ref": "#/components/schemas/TorchScriptOptions"},
    ],
}
_NAMED: dict[str, Any] = {
    "architecture": {"type": "string", "examples": ["torchvision/resnet18"]},
    "target": {"enum": ["onnx", "torchscript"]},
    "checkpoint": {"type": "string", "description": "sha256 of an uploaded checkpoint"},
    "force": {"type": "boolean", "default": False, "description": "Convert again although the result is known"},
}
_JSON_TEXT = {"type": "string", "contentMediaType": "application/json"}

CONVERSION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["architecture", "target", "checkpoint"],
                    "additionalProperties": False,
                    "properties": {**_NAMED, "options": _OPTIONS, "architecture_options": {"type": "object"}},
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["architecture", "target"],
                    "additionalProperties": False,
                    "properties": {
                        **_NAMED,
                        "file": {"type": "string", "format": "binary", "description": "The checkpoint itself"},
                        "options": {**_JSON_TEXT, "description": "Options of the target as JSON"},
                        "architecture_options": {**_JSON_TEXT, "description": "Options of the architecture as JSON"},
                        "probes": {
                            "type": "string",
                            "format": "binary",
                            "description": "npz of inputs by name that verification uses besides its own",
                        },
                    },
                }
            },
        },
    }
}


def option_schemas() -> dict[str, Any]:
    """The components that the body refers to."""
    return {
        model.__name__: model.model_json_schema(ref_template="#/components/schemas/{model}")
        for model in (OnnxOptions, TorchScriptOptions)
    }
