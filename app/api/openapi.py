"""The OpenAPI document, made so that clients can be generated from it unmodified."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.conversion_schema import option_schemas
from app.api.errors_table import problem_kinds
from app.api.problems import ProblemDocument
from app.targets.specs import titles

DESCRIPTION = f"""Converts PyTorch weights of registered architectures to {titles()}, proves the result against
the model, and serves artifact, report and bundle. Errors are problem documents (RFC 9457); see /v1/problems."""
TAGS = {
    "architectures": "What a conversion may name: registered builders of modules, with their options and signatures.",
    "checkpoints": "Uploaded weights, addressed by the sha256 of the file, and what is inside them.",
    "conversions": "One conversion of one checkpoint to one target: asked for, followed, ended.",
    "groups": "Several conversions by one request: of several targets, or of several checkpoints.",
    "results": "What a conversion produced: artifact, report, bundle.",
    "webhooks": "Who is told what happens to conversions, signed as Standard Webhooks has it.",
    "administration": "Keys, projects and the audit log.",
    "problems": "Every error code with its cause and its remedy.",
    "operations": "What operators and their machines ask.",
}
Schema = dict[str, Any]


def describe(app: FastAPI) -> None:
    """Make ``app.openapi`` give the document, which is made once."""

    def openapi() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> Schema:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=f"Verified {titles()} files from PyTorch weights",
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "The service that this document comes from"}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        routes=app.routes,
    )
    schemas = document["components"]["schemas"]
    schemas["ProblemDocument"] = _problem_schema()
    schemas.update(option_schemas())
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)  # FastAPI's own form of an error, which this service does not send
    for operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for name, schema in content["schema"].pop("$defs", {}).items():
                schemas.setdefault(name, schema)
        operation["responses"].pop("422", None)  # a problem document like the others
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
    document["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key of this service: rk_..."}
    }
    document["security"] = [{}, {"key": []}]
    for schema in schemas.values():
        _walk(schema, _without_default)
    _walk(document, _open_object)
    _walk(schemas, partial(_require_discriminator, schemas))
    return document


def _operations(document: Schema) -> Iterator[Schema]:
    for path in document["paths"].values():
        yield from path.values()


def _problem_schema() -> Schema:
    """The problem document, with every code, its cause and its remedy."""
    schema = ProblemDocument.model_json_schema()
    kinds = problem_kinds().values()
    listed = "\n".join(f"- `{kind.code}` ({kind.status}): {kind.title}. {kind.hint}" for kind in kinds)
    schema["properties"]["code"]["description"] = f"Stable. Codes with their usual status, cause and remedy:\n{listed}"
    schema["properties"]["code"]["examples"] = ["key_mismatch"]
    return schema


def _without_null(schema: Schema) -> Schema:
    """The schema of a parameter that may be left out: it cannot be null, whatever its Python type says."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return {**{k: v for k, v in schema.items() if k != "anyOf"}, **choices[0]}


def _without_default(schema: Schema) -> None:
    """Generators take a member that has a default for one that is always there, also in what is sent.

    So the default is told in words.
    """
    if "default" not in schema or not ({"type", "anyOf", "oneOf", "$ref", "const", "enum", "allOf"} & schema.keys()):
        return
    default = schema.pop("default")
    if default is not None:
        words = f"Default: {default!r}." if isinstance(default, str) else f"Default: {_json_words(default)}."
        schema["description"] = " ".join(filter(None, (schema.get("description"), words)))


def _json_words(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _require_discriminator(schemas: Schema, schema: Schema) -> None:
    """The member that tells alternatives apart is always there."""
    discriminator = schema.get("discriminator")
    if not isinstance(discriminator, dict) or "mapping" not in discriminator:
        return
    for reference in discriminator["mapping"].values():
        required = schemas[reference.rsplit("/", 1)[-1]].setdefault("required", [])
        if discriminator["propertyName"] not in required:
            required.append(discriminator["propertyName"])


def _open_object(schema: Schema) -> None:
    """An object of unknown members says so: generators take silence for an object that has none."""
    if schema.get("type") == "object" and not ({"properties", "additionalProperties", "allOf"} & schema.keys()):
        schema["additionalProperties"] = True


def _walk(node: Any, change: Callable[[Schema], None]) -> None:
    """Call ``change`` with every object within ``node``, inner ones first."""
    if isinstance(node, dict):
        for value in list(node.values()):
            _walk(value, change)
        change(node)
    elif isinstance(node, list):
        for value in node:
            _walk(value, change)
