"""The signed statement of an artifact: an in-toto statement in a DSSE envelope, checked without a network."""

import base64
import json
from collections.abc import Iterable
from typing import Any

PAYLOAD = "application/vnd.in-toto+json"


class BadSignature(ValueError):
    """The statement is none, is not signed by a key that was given, or is about another file."""


def signed_statement(envelope: bytes, keys: Iterable[str], sha256: str) -> dict[str, Any]:
    """The statement, signed by one of ``keys`` (raw ed25519 public keys in base64), about the file of that sha256.

    Raises BadSignature, and ImportError without the extra ``verify``.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        document = json.loads(envelope)
        payload = base64.b64decode(document["payload"], validate=True)
        kind = document["payloadType"].encode()
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in document["signatures"]]
        statement: dict[str, Any] = json.loads(payload)
        subjects = {subject["digest"]["sha256"] for subject in statement["subject"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSignature(f"This is no signed statement: {error}") from error
    if kind.decode() != PAYLOAD:
        raise BadSignature(f"The envelope holds {kind.decode()} and no statement.")
    for key in keys:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))
        for signature in signatures:
            try:
                public.verify(signature, message)
            except InvalidSignature:
                continue
            if sha256 not in subjects:
                raise BadSignature("The statement is about another file.")
            return statement
    raise BadSignature("None of the given keys signed the statement.")
