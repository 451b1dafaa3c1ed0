"""What the files of a conversion are called and are, by their role: one table for who writes and who checks."""

import re

LONGEST_STEM = 100
MEDIA_TYPES = {
    "artifact": "application/octet-stream",
    "artifact_data": "application/octet-stream",
    "golden": "application/octet-stream",
    "report": "application/json",
    "selfcheck": "text/x-python",
    "statement": "application/vnd.dsse.envelope.v1+json",
}
STATEMENT = "statement.json"
"""The service's own, which no conversion process may make."""
FIXED_NAMES = {
    "golden": "golden.npz",
    "report": "report.json",
    "selfcheck": "check.py",
    "statement": STATEMENT,
}
EXTERNAL_DATA = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
"""Names that the file of external data may have: the artifact refers to it by the one that its exporter chose."""


def artifact_stem(architecture: str) -> str:
    """The artifact's file name without its suffix: safe in every file system and header."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", architecture).strip("-.")[:LONGEST_STEM] or "model"


def is_name_of(role: str, filename: str, architecture: str, suffix: str) -> bool:
    """Whether the file of that role may be called so; ``suffix`` is that of the target's artifacts."""
    if role == "artifact":
        return filename == artifact_stem(architecture) + suffix
    if role == "artifact_data":
        return bool(EXTERNAL_DATA.fullmatch(filename)) and filename not in FIXED_NAMES.values()
    return filename == FIXED_NAMES[role]
