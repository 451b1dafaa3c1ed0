"""Options against an architecture's schema."""

from app.domain.options import unknown_options


def test_what_a_schema_admits_without_naming_it_is_found_in_nested_objects_too() -> None:
    schema = {"properties": {"size": {"type": "integer"}, "text": {"properties": {"width": {}}}, "free": {}}}
    options = {"size": 1, "text": {"width": 2, "hight": 3}, "free": {"anything": 1}, "sise": 4}
    assert unknown_options(schema, options) == ("text.hight", "sise")
