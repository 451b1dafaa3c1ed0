"""Which rows refer to objects of the store: those objects are kept, and belong into a backup."""

from sqlalchemy import text

REFERENCES = (
    ("checkpoints", "sha256"),
    ("conversion_files", "sha256"),
    ("templates", "object_sha256"),
    ("conversions", "probes_sha256"),
    ("upload_parts", "sha256"),
)
"""Tables and their columns that hold the sha256 of an object."""
COLLECTING = 0x5EC0A59
"""Key of the advisory lock under which objects are removed from the store; whoever copies it holds it, shared."""

REFERRED_TO = text(
    " union ".join(f"select {column} from {table} where {column} = any(:candidates)" for table, column in REFERENCES)
)
"""Those of the candidates that a row refers to."""
ALL_REFERRED_TO = " union ".join(
    f"select {column} from {table} where {column} is not null" for table, column in REFERENCES
)
