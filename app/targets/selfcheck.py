"""The script in every bundle that proves it on the client's machine: one file for all targets, made of theirs.

Its body is ``check_script.py``; each target adds how its artifacts are run, ``selfcheck.py`` in its folder: code that
stands alone, with a function ``run_<name>`` from an artifact's path and arrays by name to a list of arrays, or to None
where the artifact computes nothing.
"""

from functools import cache
from importlib.resources import files

from app.targets.specs import SPECS

_MARK = "# The runners of all targets stand here.\n"


@cache
def script() -> bytes:
    """The whole script, the same in every bundle of this version."""
    body = files("app.targets").joinpath("check_script.py").read_text(encoding="utf-8")
    before, mark, after = body.partition(_MARK)
    assert mark, "the script has no place for runners"
    return "".join([before, *map(_runner, SPECS), after]).encode()


def _runner(target: str) -> str:
    code = files(f"app.targets.{target}").joinpath("selfcheck.py").read_text(encoding="utf-8")
    return f"# {target}\n{code}\nRUNNERS[{SPECS[target].suffix!r}] = run_{target}\n\n\n"  # type: ignore[index]
