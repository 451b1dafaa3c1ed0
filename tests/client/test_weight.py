"""What installing and importing the client pulls in."""

import importlib.metadata
import re
import subprocess
import sys

MOST_BYTES = 10_000_000
PLAIN = re.compile(r"[A-Za-z0-9._-]+")


def requirements(name: str, seen: set[str]) -> set[str]:
    """The distribution and all that it needs on this platform, extras aside."""
    if name not in seen:
        seen.add(name)
        for wanted in importlib.metadata.requires(name) or ():
            found = PLAIN.match(wanted)
            if found and ";" not in wanted:
                requirements(found[0].lower(), seen)
    return seen


def test_the_client_and_all_that_it_needs_take_under_ten_megabytes() -> None:
    needed = requirements("httpx2", set())
    files = (file for name in needed for file in importlib.metadata.files(name) or ())
    size = sum(path.stat().st_size for file in files if (path := file.locate()).is_file() and path.suffix != ".pyc")  # type: ignore[attr-defined]
    assert 100_000 < size < MOST_BYTES, sorted(needed)


def test_importing_the_client_imports_nothing_large() -> None:
    program = "import sys, recast_client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {module.partition(".")[0] for module in run.stdout.split()}
    assert not loaded & {"torch", "numpy", "rich", "typer", "cryptography", "pydantic", "app", "IPython"}
