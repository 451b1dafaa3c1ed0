"""The document that clients are generated from: complete, stable, and changed by additions only.

The generators themselves are run by scripts/generated-clients, which needs a network.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.errors_table import problem_kinds
from app.main import create_app
from app.settings import Settings
from app.targets.specs import SPECS

RECORDED = Path(__file__).with_name("openapi-v1.json")
"""Written by scripts/generated-clients --record, when an addition is meant."""
WORDS = frozenset({"description", "summary", "title", "example", "examples", "pattern", "version", "operationId"})
"""Members that may change; operation ids are compared by themselves."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), "postgresql://unused@/unused").openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def taken_away(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Places of what the old document promises and the new one does not."""
    if isinstance(old, dict) and isinstance(new, dict):
        admitted = new.get("anyOf", ()) if "/requestBody/" in place and "anyOf" not in old else ()
        if any(not list(taken_away(old, choice, place)) for choice in admitted):
            return  # a request may say more than before
        for key, value in old.items():
            if key in WORDS and not isinstance(value, dict):
                continue
            if key not in new and not (key == "const" and value in new.get("enum", ())):
                yield f"{place}/{key}"
            else:  # where one value was admitted, several may be
                yield from taken_away(value, new.get(key, value), f"{place}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        for value in old:
            if not any(not list(taken_away(value, candidate)) for candidate in new):
                yield f"{place}: {json.dumps(value)[:80]}"
    elif old != new:
        yield f"{place}: {old!r} became {new!r}"


def test_nothing_of_v1_is_taken_away(document):
    assert list(taken_away(json.loads(RECORDED.read_text()), document)) == []


def test_what_was_optional_in_a_request_stays_optional(document):
    old = dict(operations(json.loads(RECORDED.read_text())))
    for name, operation in operations(document):
        if name not in old:
            continue
        known = {(p["name"], p["in"]) for p in old[name].get("parameters", ())}
        added = [p for p in operation.get("parameters", ()) if (p["name"], p["in"]) not in known]
        assert not [parameter["name"] for parameter in added if parameter["required"]], name
        for kind, body in old[name].get("requestBody", {}).get("content", {}).items():
            now = operation["requestBody"]["content"][kind]["schema"]
            assert set(now.get("required", ())) <= set(body["schema"].get("required", ())), name


def test_operation_ids_are_short_unique_and_stay(document):
    ids = {name: operation["operationId"] for name, operation in operations(document)}
    assert len(set(ids.values())) == len(ids)
    assert all(id.isidentifier() and "v1" not in id for id in ids.values())
    recorded = {name: operation["operationId"] for name, operation in operations(json.loads(RECORDED.read_text()))}
    assert {name: ids.get(name) for name in recorded} == recorded


def test_every_operation_has_a_described_tag_and_problem_documents_as_errors(document):
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    for name, operation in operations(document):
        assert set(operation["tags"]) <= described, name
        assert {"4XX", "5XX"} <= operation["responses"].keys(), name
        assert "422" not in operation["responses"], name


def test_servers_license_and_security_are_told(document):
    assert document["servers"][0]["url"] == "/"
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {} in document["security"]


def nodes(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield place, node
        for key, value in node.items():
            yield from nodes(value, f"{place}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from nodes(value, f"{place}/{index}")


def test_generators_find_neither_empty_objects_nor_defaults_nor_null_parameters(document):
    for place, node in nodes(document):
        if node.get("type") == "object":
            assert {"properties", "additionalProperties", "allOf"} & node.keys(), place
        if "/components/schemas" in place and node.keys() & {"type", "anyOf", "oneOf", "$ref"}:
            assert "default" not in node or isinstance(node["default"], dict), place
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), (name, parameter["name"])


def test_prefer_is_a_plain_string_and_files_are_binary(document):
    parameters = document["paths"]["/v1/conversions"]["post"]["parameters"]
    prefer = next(parameter for parameter in parameters if parameter["name"] == "prefer")
    assert prefer["schema"]["type"] == "string"
    for what in ("artifact", "bundle"):
        responses = document["paths"][f"/v1/conversions/{{conversion_id}}/{what}"]["get"]["responses"]
        for status in ("200", "206"):
            for content in responses[status]["content"].values():
                assert content["schema"] == {"type": "string", "format": "binary"}


def test_every_body_has_an_example_or_is_a_file(document):
    for name, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind == "application/json":
                assert content["example"], name


def test_every_code_has_a_cause_and_a_remedy(document):
    told = document["components"]["schemas"]["ProblemDocument"]["properties"]["code"]["description"]
    for code, kind in problem_kinds().items():
        assert kind.title, code
        assert kind.hint, code
        assert f"`{code}`" in told


def test_every_option_of_a_target_says_what_it_does():
    silent = {
        (spec.name, option)
        for spec in SPECS.values()
        for option, rule in spec.options.model_json_schema()["properties"].items()
        if "const" not in rule and not rule.get("description")
    }
    assert silent == set()
