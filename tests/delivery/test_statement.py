"""The signed statement: what it says, and who can have said it."""

import base64
import hashlib
import json

import pytest

from app.delivery.statement import NotSigned, Signer, merkle_root, opened, statement_of
from tests.delivery.reports import report

SIGNER = Signer(bytes(range(32)))


def test_a_statement_names_the_artifact_by_its_sha256_and_tells_what_was_proved() -> None:
    done = report()
    said = opened(SIGNER.envelope(statement_of(done, [done.artifact])), [SIGNER.public])
    assert said["subject"] == [{"name": done.artifact.filename, "digest": {"sha256": done.artifact.sha256}}]
    predicate = said["predicate"]
    assert predicate["verdict"] == done.verification.verdict.value
    assert predicate["weights"] == {"sha256": done.checkpoint_sha256}
    assert predicate["ledger"] is None or len(predicate["ledger"]["root"]) == 64


def test_equal_facts_are_signed_alike() -> None:
    done = report()
    assert SIGNER.envelope(statement_of(done, [done.artifact])) == SIGNER.envelope(statement_of(done, [done.artifact]))


def test_another_key_another_payload_or_no_envelope_is_refused() -> None:
    envelope = SIGNER.envelope(statement_of(report(), []))
    document = json.loads(envelope)
    forged = {**document, "payload": base64.b64encode(b'{"_type": "https://in-toto.io/Statement/v1"}').decode()}
    other_type = {**document, "payloadType": "text/plain"}
    for spoiled in (
        json.dumps(forged),
        json.dumps(other_type),
        "{}",
        "[]",
        "null",
        "\xff",
        json.dumps({**document, "signatures": [7]}),
    ):
        with pytest.raises(NotSigned):
            opened(spoiled.encode(), [SIGNER.public])
    with pytest.raises(NotSigned):
        opened(envelope, [Signer(bytes(32)).public])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_the_root_is_that_of_rfc_6962(count: int) -> None:
    def reference(leaves: list[bytes]) -> bytes:
        if not leaves:
            return hashlib.sha256().digest()
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        split = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + reference(leaves[:split]) + reference(leaves[split:])).digest()

    leaves = [bytes([number]) for number in range(count)]
    assert merkle_root(leaves) == reference(leaves)
