"""A problem as a page, for a browser that asked for one: what happened, why, and what to do next."""

from starlette.requests import Request
from starlette.responses import Response

from app.api.conversion_files import prefers_html
from app.domain.errors import Problem
from app.web.rendering import page

LISTS = ("missing_keys", "unexpected_keys", "shape_mismatches", "candidates", "nearest")
"""Members of a problem that are lists to read."""


def problem_page(problem: Problem, request: Request, request_id: str) -> Response | None:
    """The page of an answer of status 4xx or 5xx; None where the client did not ask for a page."""
    if request.method not in ("GET", "HEAD") or not prefers_html(request.headers.get("accept")):
        return None
    lists = {name: problem.extra[name] for name in LISTS if problem.extra.get(name)}
    return page(
        "problem.html", status=problem.status, problem=problem, lists=lists, path=request.url.path, request=request_id
    )
