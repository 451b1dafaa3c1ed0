"""An OpenID Connect issuer on a port of its own: it tells where its keys are and what they are, and signs tokens."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

from joserfc import jwk, jwt

AUDIENCE = "recast"


class SigningIssuer:
    """``keys``: those that it tells, by their id; what it signs with may be others."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, jwk.Key] = {}
        self.told: dict[str, Any] = {}
        """Members of its description that are other than they should be."""
        self.away = False
        self.asked: list[str] = []
        self.add("first")

    def add(self, kid: str, kind: str = "RSA", size: int | str = 2048) -> jwk.Key:
        self.keys[kid] = jwk.generate_key(kind, size, {"kid": kid})
        return self.keys[kid]

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a valid token, as changed; None takes one away."""
        now = int(time.time())
        whole = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "somebody",
            "exp": now + 60,
            "iat": now,
            "jti": uuid4().hex,  # no two are the same token, which the service remembers for a moment
            "project": "vision",
            "scope": "openid recast:read convert",
            **changed,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, kid: str = "first", algorithm: str = "RS256", key: Any = None, **changed: Any) -> str:
        header = {"alg": algorithm, "kid": kid}
        return jwt.encode(header, self.claims(**changed), key or self.keys[kid], algorithms=[algorithm])

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        if self.away:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.told}
        if path == "/keys":
            return 200, {"keys": [*self.unusable(), *(key.as_dict(private=False) for key in self.keys.values())]}
        return 404, {}

    def unusable(self) -> Iterator[Mapping[str, Any] | str]:
        """What stands beside keys in the lists of real issuers."""
        yield "no key"
        yield {"kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
        yield {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}
        yield {"kty": "RSA", "use": "enc", "kid": "encryption", "n": "AQAB", "e": "AQAB"}
        yield {"kty": "new", "kid": "unknown"}


@contextmanager
def issuing() -> Iterator[SigningIssuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = issuer.answer(self.path)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = SigningIssuer(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield issuer
        server.shutdown()
        thread.join()
