"""What can go wrong, as the service says it: a problem document (RFC 9457) each."""

from collections.abc import Mapping
from typing import Any

from recast_client.models import Conversion


class RecastError(Exception):
    """The service refused a request. ``document`` is its whole problem document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.code = str(document.get("code", "http_error"))
        """Stable; documented at /v1/problems."""
        self.status = int(document.get("status", 0))
        self.detail = str(document.get("detail", ""))
        self.hint: str | None = document.get("hint")
        super().__init__(f"{self.code}: {self.detail}" + (f" {self.hint}" if self.hint else ""))


class ConversionFailed(RecastError):
    """A conversion ended without success."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        problem = conversion.document.get("problem")
        super().__init__(problem or {"code": conversion.state, "detail": f"The conversion is {conversion.state}."})


class NotAccepted(RecastError):
    """A conversion ended with a verdict that the caller does not count as success."""

    def __init__(self, conversion: Conversion, accept: tuple[str, ...]) -> None:
        self.conversion = conversion
        reasons = "; ".join(f"{f['reason']}: {f['detail']}" for f in conversion.findings if f["severity"] != "note")
        detail = f"The verdict is {conversion.verdict}, accepted are {', '.join(accept)}. {reasons}".rstrip()
        super().__init__({"code": "verdict_not_accepted", "detail": detail})


class Unreachable(RecastError):
    """No answer of a Recast service came, as often as was tried."""

    def __init__(self, detail: str) -> None:
        super().__init__({"code": "unreachable", "detail": detail})
