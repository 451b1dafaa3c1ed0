"""HEAD for everything that can be read (RFC 9110, section 9.3.2)."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from app.api.retirement import retirement_of


class ReadableRouter(APIRouter):
    """A router whose resources answer HEAD as they answer GET; the server leaves the body out."""

    def add_api_route(
        self, path: str, endpoint: Callable[..., Any], *, methods: set[str] | list[str] | None = None, **options: Any
    ) -> None:
        if retirement_of(endpoint) is not None:
            options["deprecated"] = True
        super().add_api_route(path, endpoint, methods=methods, **options)
        if methods is not None and "GET" in methods:
            # A route of its own, because OpenAPI describes each method of a route and HEAD would only repeat GET.
            super().add_api_route(path, endpoint, methods=["HEAD"], **{**options, "include_in_schema": False})
