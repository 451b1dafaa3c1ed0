"""Tokens of an OpenID Connect issuer: real ones, forged ones, and keys that change."""

import base64
import hmac
import json
from collections.abc import Iterator

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwk
from pydantic import ValidationError

from app.api import oidc, principals
from app.settings import Settings
from tests.api.issuer import AUDIENCE, SigningIssuer, issuing
from tests.api.server import Backstage, serving, submit
from tests.cli.keys import make_key, make_project


@pytest.fixture(scope="module")
def issuer() -> Iterator[SigningIssuer]:
    with issuing() as running:
        yield running


@pytest.fixture(scope="module")
def trusting(issuer: SigningIssuer, backstage: Backstage) -> Iterator[str]:
    """Address of an api that trusts the issuer."""
    make_project(backstage.database_url, "vision")
    settings = Settings(data_dir=backstage.settings.data_dir, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
    with serving(settings, backstage.database_url) as url:
        yield url


def asked(url: str, token: str, path: str = "/v1/conversions") -> httpx.Response:
    return httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)


def refused(answer: httpx.Response) -> bool:
    assert answer.headers["www-authenticate"].startswith("Bearer")
    return (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_token_acts_for_the_project_and_within_the_scopes_that_it_names(trusting, issuer, backstage):
    with httpx.Client(base_url=trusting, headers={"Authorization": f"Bearer {issuer.token()}"}, timeout=60) as client:
        made = submit(client)
        assert made.status_code == 202
        assert client.get("/v1/projects").json()["items"][0]["name"] == "vision"
        assert client.get("/v1/audit").json()["code"] == "scope_missing"
    assert (
        asked(trusting, make_key(backstage.database_url, "default", ("read",)), made.headers["location"]).json()["code"]
        == "not_found"
    )
    admin = issuer.token(scope=None, roles=["admin", "read"])
    assert asked(trusting, admin).json()["code"] == "scope_missing"
    reader = {"Authorization": f"Bearer {issuer.token(scope=['read'], project=['vision'])}"}
    assert httpx.get(f"{trusting}/v1/conversions", headers=reader).status_code == 200
    refusal = httpx.post(f"{trusting}/v1/conversions", headers=reader)
    assert (refusal.status_code, refusal.json()["scope"]) == (403, "convert")
    operator = asked(trusting, issuer.token(project="default", scope="read admin"), "/v1/audit").json()
    entries = [entry for entry in operator["items"] if entry["key"] == "oidc:somebody"]
    assert [(entry["action"], entry["outcome"]) for entry in entries] == [
        ("create_conversion", "scope_missing"),
        ("create_conversion", "ok"),
    ]
    assert httpx.get(f"{trusting}/v1/conversions").status_code == 401


@pytest.mark.parametrize(("kind", "size", "algorithm"), [("EC", "P-256", "ES256"), ("OKP", "Ed25519", "EdDSA")])
def test_keys_of_other_kinds_are_accepted(trusting, issuer, kind, size, algorithm, monkeypatch):
    monkeypatch.setattr(oidc, "ASKED_AGAIN", 0.0)
    issuer.add(algorithm, kind, size)
    assert asked(trusting, issuer.token(algorithm, algorithm)).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another service"},
        {"aud": ["another", "service"]},
        {"aud": None},
        {"iss": "https://issuer.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": float("nan")},
        {"nbf": 2**40},
        {"iat": 2**40},
        {"sub": None},
        {"sub": 7},
    ],
    ids=str,
)
def test_a_token_with_wrong_claims_is_refused(trusting, issuer, changed):
    assert refused(asked(trusting, issuer.token(**changed)))


@pytest.mark.parametrize("project", [None, "nobody's", 7, ["vision", "default"], [], {"id": "vision"}, ""])
def test_a_token_without_a_project_of_this_service_may_do_nothing(trusting, issuer, project):
    answer = asked(trusting, issuer.token(project=project))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(issuer: SigningIssuer, header: dict[str, object]) -> str:
    return f"{encoded(header)}.{encoded(issuer.claims())}."


def keyed(issuer: SigningIssuer, secret: bytes) -> str:
    """Signed with a public key as if it were a shared secret."""
    told = unsigned(issuer, {"alg": "HS256", "kid": "first"}).rstrip(".")
    digest = hmac.digest(secret, told.encode(), "sha256")
    return f"{told}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def signed(issuer: SigningIssuer, key: jwk.RSAKey, **header: object) -> str:
    told = unsigned(issuer, {"alg": "RS256", "kid": "first", **header}).rstrip(".")
    signature = key.private_key.sign(told.encode(), PKCS1v15(), SHA256())
    return f"{told}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_forged_signatures_are_refused(trusting, issuer):
    valid = issuer.token()
    head, payload, signature = valid.split(".")
    stranger = jwk.generate_key("RSA", 2048, {"kid": "first"})
    public = issuer.keys["first"].as_pem(private=False)
    shared = jwk.import_key("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "oct")
    embedded = {"jwk": stranger.as_dict(private=False), "jku": f"{issuer.url}/keys"}
    forged = {
        "none": unsigned(issuer, {"alg": "none", "kid": "first"}),
        "None": unsigned(issuer, {"alg": "None", "kid": "first"}),
        "no algorithm": f"{encoded({'kid': 'first'})}.{payload}.{signature}",
        "signature of another key": issuer.token(key=stranger),
        "signature taken away": f"{head}.{payload}.",
        "signature of another token": f"{head}.{unsigned(issuer, {}).split('.')[1]}x.{signature}",
        "HS256 with the public key": keyed(issuer, public),
        "HS256 with the public key without its last line end": keyed(issuer, public.strip()),
        "HS256 with a key of its list": issuer.token("shared", "HS256", key=shared),
        "RS256 with a key that is for EC": issuer.token("ES256" if "ES256" in issuer.keys else "first", key=stranger),
        "a key in the head": signed(issuer, stranger, **embedded),
        "unknown critical header": signed(issuer, issuer.keys["first"], crit=["recast"], recast=1),
        "no token": "a.b.c",
        "not even that": "x" * 2000,
        "encrypted": "a.b.c.d.e",
        "array": f"{encoded({'alg': 'RS256'})}.{encoded([])}.",
        "id of a key as a list": f"{encoded({'alg': 'RS256', 'kid': ['first']})}.{payload}.{signature}",
        "algorithm as a list": f"{encoded({'alg': ['RS256'], 'kid': 'first'})}.{payload}.{signature}",
    }
    assert asked(trusting, valid).status_code == 200
    assert asked(trusting, signed(issuer, issuer.keys["first"], nonce="of some issuers")).status_code == 200
    assert [name for name, token in forged.items() if not refused(asked(trusting, token))] == []


def test_a_new_key_is_found_and_a_withdrawn_one_no_longer_counts(trusting, issuer, monkeypatch):
    monkeypatch.setattr(principals, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(oidc, "ASKED_AGAIN", 0.0)
    issuer.add("second")
    assert asked(trusting, issuer.token("second")).status_code == 200
    old = issuer.token("first")
    del issuer.keys["first"]
    monkeypatch.setattr(oidc, "KEYS_KEPT", 0.0)
    assert refused(asked(trusting, old))
    issuer.add("first")
    assert refused(asked(trusting, old))
    assert asked(trusting, issuer.token("first")).status_code == 200


def test_unknown_keys_do_not_make_the_service_ask_again_and_again(trusting, issuer):
    stranger = jwk.generate_key("RSA", 2048)
    asked(trusting, issuer.token())
    before = len(issuer.asked)
    for number in range(20):
        assert refused(asked(trusting, issuer.token(f"unknown-{number}", key=stranger)))
    assert len(issuer.asked) <= before + 2


def test_an_issuer_that_is_away_or_another_is_not_believed(issuer, backstage, monkeypatch):
    monkeypatch.setattr(oidc, "ASKED_AGAIN", 0.0)
    monkeypatch.setattr(principals, "REMEMBERED_SECONDS", 0.0)
    settings = Settings(data_dir=backstage.settings.data_dir, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
    with serving(settings, backstage.database_url) as url:
        issuer.away = True
        unavailable = asked(url, issuer.token())
        issuer.away = False
        assert (unavailable.status_code, unavailable.json()["code"]) == (503, "unavailable")
        for told in ({"issuer": "https://issuer.example"}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": None},
                     {"jwks_uri": "http://issuer.example/keys"}):  # fmt: skip
            issuer.told = told
            assert asked(url, issuer.token()).status_code == 503, told
        issuer.told = {}
        assert asked(url, issuer.token()).status_code == 200
        monkeypatch.setattr(oidc, "KEYS_KEPT", 0.0)
        issuer.away = True
        assert asked(url, issuer.token()).status_code == 200  # by the keys that it told before
        monkeypatch.setattr(oidc, "KEYS_STALE", 0.0)
        assert asked(url, issuer.token()).status_code == 503
        issuer.away = False


def test_claims_may_lie_in_others(issuer, backstage):
    settings = Settings(
        data_dir=backstage.settings.data_dir,
        oidc_issuer=issuer.url,
        oidc_audience=AUDIENCE,
        oidc_project_claim="https://recast.example/project",
        oidc_scope_claim="resource_access.recast.roles",
    )
    claims = {
        "https://recast.example/project": "vision",
        "project": None,
        "resource_access": {"recast": {"roles": ["read", 7]}},
    }
    with serving(settings, backstage.database_url) as url:
        assert asked(url, issuer.token(**claims)).status_code == 200
        assert asked(url, issuer.token(**{**claims, "resource_access": "recast"})).json()["code"] == "scope_missing"


@pytest.mark.parametrize(
    "settings",
    [
        {"oidc_issuer": "https://issuer.example"},
        {"oidc_issuer": "http://issuer.example", "oidc_audience": "recast"},
        {"oidc_issuer": "issuer.example", "oidc_audience": "recast"},
        {"oidc_issuer": "https://[", "oidc_audience": "recast"},
    ],
)
def test_an_issuer_that_others_could_stand_in_for_is_no_setting(settings):
    with pytest.raises(ValidationError):
        Settings(**settings)
