"""Every hostile file is answered by its designed code, runs nothing, and is told in words that anything can store."""

from pathlib import Path

import pytest

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import RecastError
from tests.hostile.files import HostileFile, hostile_files

pytestmark = pytest.mark.slow

FILES = list(hostile_files())
LONGEST_ANSWER = 64 << 10
"""Bytes: fifty names of 200 characters, escaped, and sentences."""


@pytest.mark.parametrize("hostile", FILES, ids=lambda hostile: hostile.id)
def test_a_hostile_file_gets_its_code_and_runs_nothing(hostile: HostileFile, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "upload"
    path.write_bytes(hostile.make(canary))
    code, told = _answer(path)
    assert len(told.encode("utf-8")) < LONGEST_ANSWER
    assert "\\u0000" not in told
    assert code == hostile.code
    assert not canary.exists()


def _answer(path: Path) -> tuple[str | None, str]:
    """The error's code, or None, and what the service would store of the file."""
    try:
        return None, open_checkpoint(path).inspection.model_dump_json()
    except RecastError as error:
        return (
            error.code if error.detail.strip(" :") == error.detail else "told nothing"
        ), error.problem().model_dump_json()


def test_the_corpus_is_large_and_its_inputs_are_distinct(tmp_path: Path) -> None:
    assert len({hostile.id for hostile in FILES}) == len(FILES)
    assert len({hostile.make(tmp_path / "canary") for hostile in FILES}) > 250
