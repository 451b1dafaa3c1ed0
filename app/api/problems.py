"""RFC 9457 problem documents: every error of the service leaves through here."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.domain.errors import IncompleteUpload, InvalidRequest, NotFound, Problem, RecastError, Unavailable

MEDIA_TYPE = "application/problem+json"
SHOWN_VALUE = 200
"""Characters of a refused value that a validation error repeats to the client."""

HEADERS_OF_MEMBERS = {
    "retry_after": "Retry-After",
    "content_range": "Content-Range",
    "location": "Location",
    "www_authenticate": "WWW-Authenticate",
    "upload_offset": "Upload-Offset",
    "tus_version": "Tus-Version",
}
"""Members of a problem that are also said in a header."""

log = structlog.get_logger("recast.api")


class MethodNotAllowed(RecastError):
    code, status, title = "method_not_allowed", 405, "This resource does not know that method"
    hint = "The Allow header lists the methods that it knows."


class HttpError(RecastError):
    """An error of the HTTP layer itself that has no entry of its own in the table."""

    code, status, title = "http_error", 400, "The request cannot be served"
    hint = "The detail says why."


class RequestTimeout(RecastError):
    code, status, title = "request_timeout", 408, "The request did not arrive in time"
    hint = "Send it faster, or in smaller parts."


class Told(RecastError):
    """A problem that was found earlier, such as a failed conversion's, given as the answer to a request."""

    def __init__(self, problem: Problem, **extra: Any) -> None:
        super().__init__(problem.detail)
        self._problem = problem.model_copy(update={"extra": {**problem.extra, **extra}})

    def problem(self) -> Problem:
        return self._problem


class Internal(RecastError):
    code, status, title = "internal", 500, "Internal error"
    hint = "This is a fault of the service. Report it with the request_id."


class ProblemDocument(BaseModel):
    """What every response of status 4xx and 5xx carries, as application/problem+json (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    request_id: str
    stage: str | None = None
    hint: str | None = None


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "A problem document says what is wrong.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    },
    "5XX": {
        "description": "A problem document says what the service could not do.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    },
}
"""Documentation of errors that every router shares."""


def problem_type(code: str) -> str:
    """The ``type`` of a problem: a relative reference to the page of this service that explains the code."""
    return f"/v1/problems/{code}"


def request_id(request: Request) -> str:
    """The id that the observing middleware gave to this request."""
    return str(request.scope.get("recast_request_id", "unknown"))


def problem_document(problem: Problem, *, instance: str, request_id: str) -> bytes:
    """The body of a problem response. ASCII only, so that hostile keys with lone surrogates can be shown too."""
    members: dict[str, Any] = {
        "type": problem_type(problem.code),
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "instance": instance,
        "request_id": request_id,
    }
    if problem.stage is not None:
        members["stage"] = problem.stage
    if problem.hint is not None:
        members["hint"] = problem.hint
    for name, value in problem.extra.items():
        members.setdefault(name, value)
    return json.dumps(members, ensure_ascii=True, default=str).encode("ascii")


def problem_response(problem: Problem, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    sent = {"Vary": "Accept", **(headers or {})}
    for member, header in HEADERS_OF_MEMBERS.items():
        if member in problem.extra:
            sent[header] = str(problem.extra[member])
    if problem.status == 503:
        sent.setdefault("Retry-After", "5")
    page: ProblemPage = request.app.state.problem_page
    for_people = page(problem, request, request_id(request))
    if for_people is not None:
        for_people.headers.update(sent)
        return for_people
    body = problem_document(problem, instance=request.url.path, request_id=request_id(request))
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=sent)


def from_validation(errors: Sequence[Any]) -> RecastError:
    """pydantic's errors as one problem: where, what, and the start of the refused value."""
    told = [
        {
            "location": ".".join(str(part) for part in error["loc"])[:SHOWN_VALUE],
            "message": str(error["msg"]).removeprefix("Value error, ")[:SHOWN_VALUE],  # pydantic's before our own words
            "type": error["type"],
            **({"value": repr(error["input"])[:SHOWN_VALUE]} if "input" in error else {}),
        }
        for error in errors[:1000]
    ]
    first = told[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidRequest(f"{first['location']}: {first['message']}{more}", errors=told)


def from_http(error: HTTPException, request: Request) -> RecastError:
    if error.status_code == 404:
        return NotFound(f"Nothing is at {request.url.path[:SHOWN_VALUE]}.", hint="GET /openapi.json lists every path.")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not possible on {request.url.path[:SHOWN_VALUE]}.")
    return HttpError(str(error.detail))


def allowed_methods(path: str, routes: Sequence[Route]) -> str:
    """The Allow header (RFC 9110, section 10.2.1): the methods of every route at that path."""
    return ", ".join(sorted({m for route in routes if route.path_regex.match(path) for m in route.methods or ()}))


ProblemPage = Callable[[Problem, Request, str], Response | None]
"""The page of a problem for a request of that id; None where its client did not ask for one."""


def install_problem_handlers(app: FastAPI, routes: Sequence[Route], page: ProblemPage) -> None:
    """Make every error of the application, whose resources are ``routes``, a problem document, or a page of it."""
    app.state.problem_page = page

    async def on_designed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RecastError)
        problem = error.problem()
        if problem.status >= 500:
            log.error("request_failed", code=problem.code, detail=problem.detail, exc_info=error)
        return problem_response(problem, request)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = from_http(error, request).problem()
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = allowed_methods(request.url.path, routes) or headers.get("Allow", "GET")
        return problem_response(problem.model_copy(update={"status": error.status_code}), request, headers)

    async def on_request_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(from_validation(error.errors()).problem(), request)

    async def on_database_away(request: Request, error: Exception) -> Response:
        log.error("database_away", error=str(error).splitlines()[0])
        return problem_response(Unavailable("The database does not answer.").problem(), request)

    async def on_disconnect(request: Request, error: Exception) -> Response:
        assert isinstance(error, ClientDisconnect)
        return problem_response(
            IncompleteUpload("The connection closed before the body was complete.").problem(), request
        )

    app.add_exception_handler(RecastError, on_designed)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_request_validation)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    for away in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(away, on_database_away)
