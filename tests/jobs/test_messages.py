"""Whatever a child says is either a message or none, and its problems can always be stored and sent."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Problem
from app.jobs.child_problem import RESERVED, NotTheChilds, retold
from app.jobs.messages import LONGEST_TEXT, MOST_VALUES, Done, Failed, understood

TEXT = st.text(st.characters(codec=None), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)
CODES = st.sampled_from(["key_mismatch", "out_of_memory", "worker_lost", "internal", "insufficient_storage"]) | TEXT
PROBLEMS = st.fixed_dictionaries(
    {"code": CODES, "title": TEXT, "status": st.integers(), "detail": TEXT},
    optional={
        "stage": TEXT,
        "hint": TEXT,
        "extra": st.dictionaries(st.sampled_from(sorted(RESERVED)) | TEXT, JSON, max_size=8),
    },
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=500, deadline=None)
def test_a_line_is_a_message_or_a_value_error(line: bytes) -> None:
    with suppress(ValueError):
        understood(line)


@given(PROBLEMS)
@settings(max_examples=500, deadline=None)
def test_a_problem_is_told_on_in_text_and_numbers_that_every_part_can_hold(told: dict[str, object]) -> None:
    try:
        message = understood(json.dumps({"kind": "failed", "problem": told}).encode())
    except ValueError:
        return
    assert isinstance(message, Failed)
    try:
        problem: Problem = retold(message.problem)
    except NotTheChilds:
        return
    assert problem.code not in ("worker_lost", "internal")
    assert 400 <= problem.status < 500 or problem.status == 507
    assert not RESERVED & set(problem.extra)
    stored = json.dumps(problem.model_dump(mode="json"), allow_nan=False)
    assert "\\u0000" not in stored
    stored.encode()


@pytest.mark.parametrize("value", ["[]", "0", '""', "null", "{}"])
def test_a_line_of_more_values_than_a_message_has_is_none(value: str) -> None:
    line = f'{{"kind":"done","result":[{",".join([value] * (MOST_VALUES + 2))}]}}'.encode()
    with pytest.raises(ValueError, match="more values"):
        understood(line)


@pytest.mark.parametrize("shape", ["[[{}]]", '{{"a": {{"b": [0, {}]}}}}', "{{{}: 1}}"])
def test_a_result_with_a_longer_text_than_it_has_is_none(shape: str) -> None:
    def told(characters: int) -> bytes:
        return f'{{"kind":"done","result":{shape.format(json.dumps("é" * characters))}}}'.encode()

    assert isinstance(understood(told(LONGEST_TEXT)), Done)
    with pytest.raises(ValueError, match="longer text"):
        understood(told(LONGEST_TEXT + 1))
