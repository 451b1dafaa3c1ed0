"""Templates of the pages: one environment, with the report's words and pictures.

Everything that is shown is escaped; names of uploaded files and tensors are strangers' text.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.delivery.report_page import page_environment
from app.delivery.words import VERDICT_WORDS
from app.domain.report import Verdict
from app.targets.specs import SPECS

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {  # beside those that every answer gets (api/browsers.py)
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Vary": "Accept",
}


def page(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """The template as an answer, with a policy that admits nothing from elsewhere and no inline script.

    ``acting``, a Principal: on whose behalf the page is shown, which decides what it leads to.
    """
    values.setdefault("acting", None)
    body = _environment().get_template(template).render(**values)
    return HTMLResponse(body, status_code=status, headers={**HEADERS, **(headers or {})})


@cache
def _environment() -> Environment:
    environment = page_environment("app.web", "app.delivery")
    environment.filters.update(json_data=json_data)
    environment.globals.update(
        words_of=lambda verdict: VERDICT_WORDS[Verdict(verdict)], title_of=lambda target: SPECS[target].title
    )
    return environment


def json_data(value: Any) -> Markup:
    """JSON for a script element of type application/json, from which no text can break out."""
    text = json.dumps(value, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
