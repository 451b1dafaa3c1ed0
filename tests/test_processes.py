"""Work apart: what crashes, hangs or raises there is told here."""

import os
import time

import pytest

from app.processes import apart


def test_what_it_gives_comes_back_whole() -> None:
    assert apart(lambda: bytes(5_000_000), 60) == bytes(5_000_000)
    assert apart(lambda: b"", 60) == b""


def crash() -> bytes:
    os.abort()


def refuse() -> bytes:
    raise ValueError("no such operator: Ü")


def hang() -> bytes:
    time.sleep(600)
    return b""


@pytest.mark.parametrize(
    ("work", "seconds", "told"),
    [(crash, 60, "status -6"), (refuse, 60, "ValueError: no such operator: Ü"), (hang, 0.1, "within 0.1 s")],
)
def test_what_it_does_instead_is_told(work, seconds: float, told: str) -> None:
    with pytest.raises(ChildProcessError, match=told):
        apart(work, seconds)
