"""What scripts/fuzz api needs to be told of our media types (schemathesis.toml names this file)."""

import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
