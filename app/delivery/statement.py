"""The statement: what the service proved of an artifact, signed, so that whoever holds the file can rely on it offline.

An in-toto statement (in-toto Attestation Framework, Statement v1) in a DSSE envelope (DSSE v1.0.2) with an ed25519
signature. Its subject is the artifact by its sha256, so it holds for the file and not for a place where it lies.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.domain.report import ConversionReport, Ledger, ProducedFile, worst_parity

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:recast:verification:v1"
PAYLOAD = "application/vnd.in-toto+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
KEY_BYTES = 32
SUBJECTS = ("artifact", "artifact_data")
"""Roles of the files that a statement is about."""


class NotSigned(ValueError):
    """The envelope is none, or none of the keys signed it."""


@dataclass(frozen=True)
class Signer:
    """An ed25519 key. ``seed``: its private part, 32 bytes."""

    seed: bytes

    @cached_property
    def public(self) -> bytes:
        """32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def envelope(self, statement: Mapping[str, Any]) -> bytes:
        """The signed envelope of a statement, as JSON."""
        payload = canonical(statement)
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(_pre_authentication(PAYLOAD, payload))
        document = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"keyid": key_id(self.public), "sig": base64.b64encode(signature).decode()}],
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def key_id(public: bytes) -> str:
    """sha256 of the raw public key, hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def statement_of(report: ConversionReport, files: Iterable[ProducedFile]) -> dict[str, Any]:
    """What the service says of the files of a conversion, by its report."""
    verification = report.verification
    parity = worst_parity(verification.probes)
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": file.filename, "digest": {"sha256": file.sha256}} for file in files if file.role in SUBJECTS
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "conversion": report.conversion_id,
            "converted_at": report.created_at,
            "architecture": report.architecture,
            "architecture_options": report.architecture_options,
            "target": report.target,
            "options": report.options,
            "weights": {"sha256": report.checkpoint_sha256},
            "verdict": verification.verdict.value,
            "findings": [
                {"reason": finding.reason.value, "severity": finding.severity} for finding in verification.findings
            ],
            "gates": {
                **verification.gate.model_dump(),
                "oracle": verification.oracle,
                "probes": len(verification.probes),
                "worst": None if parity is None else json.loads(parity.model_dump_json()),
            },
            "ledger": None if verification.ledger is None else _ledger(verification.ledger),
            "toolchain": report.environment,
        },
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    leaves = [canonical(entry.model_dump(mode="json")) for entry in sorted(ledger.entries, key=lambda e: e.tensor)]
    return {"root": merkle_root(leaves).hex(), "tensors": len(leaves), "passed": ledger.passed}


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaves: RFC 6962, section 2.1, with SHA-256."""
    if not leaves:
        return hashlib.sha256().digest()
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def canonical(value: object) -> bytes:
    """JSON with one spelling for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def opened(envelope: bytes, keys: Iterable[bytes]) -> dict[str, Any]:
    """The statement of an envelope that one of these public keys signed. Raises NotSigned."""
    try:
        document = json.loads(envelope)
        payload = base64.b64decode(document["payload"], validate=True)
        signed = _pre_authentication(document["payloadType"], payload)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in document["signatures"]]
        statement: dict[str, Any] = json.loads(payload)
        known = document["payloadType"] == PAYLOAD and statement["_type"] == STATEMENT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotSigned(f"This is no signed statement: {error}") from error
    if not known or not any(_signed(signed, signature, key) for signature in signatures for key in keys):
        raise NotSigned("None of the given keys signed the statement.")
    return statement


def _signed(message: bytes, signature: bytes, public: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pre_authentication(kind: str, payload: bytes) -> bytes:
    """PAE of DSSE v1: what is signed, in which type and content cannot be taken for each other."""
    return b" ".join((b"DSSEv1", str(len(kind.encode())).encode(), kind.encode(), str(len(payload)).encode(), payload))
