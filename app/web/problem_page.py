"""A problem as a page, for a browser that asked for one: what happened, why, and what to do next."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.conversion_files import prefers_html
from app.domain.errors import Problem, Unauthenticated
from app.web.rendering import page
from app.web.sign_in import sign_in_path

LISTS = ("missing_keys", "unexpected_keys", "shape_mismatches", "candidates", "nearest")
"""Members of a problem that are lists to read."""


def problem_page(problem: Problem, request: Request, request_id: str) -> Response | None:
    """The page of an answer of status 4xx or 5xx, or the way to sign in; None where the client asked for no page."""
    if request.method not in ("GET", "HEAD") or not prefers_html(request.headers.get("accept")):
        return None
    if problem.code == Unauthenticated.code:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(sign_in_path(wanted), status_code=303)
    lists = {name: problem.extra[name] for name in LISTS if problem.extra.get(name)}
    return page(
        "problem.html", status=problem.status, problem=problem, lists=lists, path=request.url.path, request=request_id
    )
