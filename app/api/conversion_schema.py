"""The request body of POST /v1/conversions for OpenAPI: it is read by hand, because its file must stream."""

from typing import Any

from app.api.conversion_request import LEAST_PRIORITY, LEAST_TIMEOUT, MOST_CONVERSIONS, MOST_PLACES, MOST_PRIORITY
from app.api.labels import MAX_LABELS, MAX_NAME, MAX_VALUE
from app.domain.acceptance import BEST_FIRST
from app.domain.webhook import WebhookEvent
from app.remotes.egress import LONGEST_URL
from app.remotes.grants import LONGEST_URI
from app.targets.specs import SPECS

_SHA256 = "sha256 of an uploaded checkpoint"
_VERDICTS = [verdict.value for verdict in BEST_FIRST]
_NAMED: dict[str, Any] = {
    "architecture": {"type": "string", "description": "Name of a registered architecture"},
    "target": {"type": "string", "enum": list(SPECS)},
    "name": {"type": "string", "maxLength": MAX_NAME, "description": "What people shall call it"},
    "priority": {
        "type": "integer",
        "minimum": LEAST_PRIORITY,
        "maximum": MOST_PRIORITY,
        "description": "Among the waiting conversions of the same project: higher first. Default: 0.",
        "examples": [0],
    },
    "timeout": {
        "type": "number",
        "minimum": LEAST_TIMEOUT,
        "description": "Seconds that an attempt may take; at most, and by default, what the service allows",
        "examples": [600],
    },
    "force": {
        "type": "boolean",
        "description": "Convert again although the result is known. Default: false.",
        "examples": [False],
    },
}
_LABELS = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
    "maxProperties": MAX_LABELS,
    "description": "Pairs to find it again by",
}
_WEBHOOK: dict[str, Any] = {
    "type": "object",
    "required": ["url", "secret"],
    "additionalProperties": False,
    "description": "Who is to be told what happens to it",
    "properties": {
        "url": {"type": "string", "maxLength": LONGEST_URL},
        "secret": {"type": "string", "description": "whsec_ and the base64 of 24 to 64 random bytes"},
        "events": {
            "type": "array",
            "items": {"type": "string", "enum": [event.value for event in WebhookEvent]},
            "minItems": 1,
            "description": "Default: every end.",
        },
        "name": {"type": "string", "maxLength": MAX_NAME},
    },
}
_SOURCE: dict[str, Any] = {
    "type": "object",
    "required": ["uri"],
    "additionalProperties": False,
    "properties": {
        "uri": {"type": "string", "maxLength": LONGEST_URI, "description": "s3:, gs:, https:, hf: or models:"},
        "sha256": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$", "description": "What the file must be"},
    },
}
_PUBLISH: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_PLACES,
    "description": "Where its files are to be put when it has succeeded: s3:, gs:, oci: or mlflow:",
    "items": {
        "anyOf": [
            {"type": "string", "maxLength": LONGEST_URI},
            {
                "type": "object",
                "required": ["uri"],
                "additionalProperties": False,
                "properties": {
                    "uri": {"type": "string", "maxLength": LONGEST_URI},
                    "name": {"type": "string", "maxLength": 100},
                    "version": {"type": "integer", "minimum": 1},
                },
            },
        ]
    },
}
_JSON: dict[str, Any] = {
    "type": "object",
    "required": ["architecture", "target", "checkpoint"],
    "additionalProperties": False,
    "properties": {
        **_NAMED,
        "checkpoint": {
            "description": f"{_SHA256}, or where a worker is to fetch the file from",
            "anyOf": [
                {"type": "string", "pattern": "^(sha256:)?[0-9a-fA-F]{64}$", "description": _SHA256},
                _SOURCE,
            ],
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
        "webhook": _WEBHOOK,
        "publish": _PUBLISH,
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
        "name": {**_NAMED["name"], "examples": [""]},  # what /docs fills its form with
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
        "webhook": {"type": "string", "description": f"{_WEBHOOK['description']}, as JSON", "examples": [""]},
        "publish": {"type": "string", "description": f"{_PUBLISH['description']}, as JSON", "examples": [""]},
        "targets": {"type": "string", "description": "Several targets, as JSON", "examples": [""]},
        "precisions": {"type": "string", "description": "Several precisions of the target, as JSON", "examples": [""]},
        "checkpoint": {"type": "string", "description": f"{_SHA256}, in place of file", "examples": [""]},
        "file": {"type": "string", "format": "binary", "description": "The checkpoint itself"},
        "probes": {
            "type": "string",
            "format": "binary",
            "description": "npz of inputs by name that verification uses besides its own",
        },
    },
}
_TARGETS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_CONVERSIONS,
    "description": "In the place of target and options",
    "items": {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {"target": _NAMED["target"], "options": _JSON["properties"]["options"]},
    },
}
_PRECISIONS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_CONVERSIONS,
    "description": "Of one target, in the place of targets: each is converted, and its latency measured",
    "items": {"type": "string", "examples": ["fp32"]},
}
_GROUP: dict[str, Any] = {
    **_JSON,
    "required": ["architecture"],
    "properties": {
        **_JSON["properties"],
        "targets": _TARGETS,
        "precisions": _PRECISIONS,
        "checkpoints": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_CONVERSIONS,
            "description": "In the place of checkpoint",
            "items": _JSON["properties"]["checkpoint"],
        },
    },
}
_EXAMPLE = {"architecture": "torchvision/resnet18", "target": "onnx"}
_CHECKPOINT = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
GROUP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _GROUP,
                "example": {
                    "architecture": "torchvision/resnet18",
                    "checkpoint": _CHECKPOINT,
                    "targets": [{"target": "onnx", "options": {"opset": 18}}, {"target": "torchscript"}],
                },
            }
        },
    }
}

CONVERSION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _JSON,
                "example": {
                    **_EXAMPLE,
                    "checkpoint": _CHECKPOINT,
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
    schemas: dict[str, Any] = {}
    for model in (spec.options for spec in SPECS.values()):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        del schema["properties"]["target"]  # the request says it
        schemas[model.__name__] = schema
    return schemas
