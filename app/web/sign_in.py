"""Signing in with a key: the browser gets a cookie that no script can read and that acts as the key does."""

import re
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.api.bodies import body_stream, collect, refuse_announced_size
from app.api.principals import SIGN_IN_COOKIE, Authenticator
from app.api.readable import ReadableRouter
from app.database.sign_ins import LASTS
from app.domain.errors import InvalidRequest, PayloadTooLarge, Unauthenticated
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

LARGEST_FORM = 4096
MOST_FIELDS = 10
OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")
"""A path of this service and of no other host."""

Next = Annotated[str, Query(max_length=1000)]


def sign_in_path(wanted: str) -> str:
    """Where to sign in, to be led to ``wanted`` after."""
    return f"/sign-in?next={quote(wanted)}"


@router.get("/sign-in")
async def sign_in_page(next: Next = "/") -> HTMLResponse:
    return page("sign_in.html", next=_own(next), refused=False)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take the key of the form and lead on; the form again where it is not valid."""
    form = await _form(request)
    wanted = _own(form.get("next", "/"))
    authenticator: Authenticator = request.app.state.authenticator
    try:
        secret = await authenticator.sign_in(form.get("key", "").strip())
    except Unauthenticated:
        return page("sign_in.html", status=401, next=wanted, refused=True)
    answer = RedirectResponse(wanted, status_code=303)
    answer.set_cookie(
        SIGN_IN_COOKIE,
        secret,
        max_age=int(LASTS.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    authenticator: Authenticator = request.app.state.authenticator
    if secret := request.cookies.get(SIGN_IN_COOKIE):
        await authenticator.sign_out(secret)
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(SIGN_IN_COOKIE)
    return answer


def _own(wanted: str) -> str:
    return wanted if OWN_PATH.fullmatch(wanted) else "/"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises PayloadTooLarge, InvalidRequest."""
    refuse_announced_size(request, LARGEST_FORM)
    refusal = PayloadTooLarge(f"This form has {LARGEST_FORM} bytes at most.", limit=LARGEST_FORM)
    body = await collect(body_stream(request), LARGEST_FORM, refusal)
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest(f"This form has {MOST_FIELDS} fields at most.") from None
    return {name: values[0] for name, values in fields.items()}
