"""One case of each error, as a client would be told of it: what the pages of the codes show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONVERSIONS = "/v1/conversions"
CONVERSION = "/v1/conversions/cnv_01a21904dc9b7d55a1a4f3c8a4c9b1e2"
UPLOAD = "/v1/uploads/upl_01a21904dc9b7d55a1a4f3c8a4c9b1e2"


@dataclass(frozen=True)
class Case:
    """``instance``: what was asked for; ``members``: what the problem has beside those of every problem."""

    detail: str
    instance: str = CONVERSION
    members: Mapping[str, Any] = field(default_factory=dict)


CASES: Mapping[str, Case] = {
    # --- requests
    "invalid_request": Case(
        "target: 'onx' is not one of the targets.",
        CONVERSIONS,
        {"errors": [{"location": "target", "message": "'onx' is not one of the targets."}]},
    ),
    "not_found": Case("There is no conversion 'cnv_01a21904dc9b7d55a1a4f3c8a4c9b1e2'."),
    "unknown_architecture": Case(
        "No architecture is called 'torchvision/resnet19'.",
        CONVERSIONS,
        {"nearest": ["torchvision/resnet18", "torchvision/resnet152", "torchvision/resnet101"]},
    ),
    "unknown_checkpoint": Case("There is no checkpoint '6effe1f5e6d682ac'.", CONVERSIONS),
    "invalid_options": Case("torchvision/resnet18: num_classes: 0 is less than the minimum of 1.", CONVERSIONS),
    "target_not_installed": Case("This installation lacks what the target openvino needs.", CONVERSIONS),
    "invalid_recipe": Case(
        "replace.fc[1]: Linear is given [2, 512, 7, 7]: put a pooling before it.", "/v1/architectures"
    ),
    "address_not_allowed": Case("hooks.internal is at 10.0.0.7, which is not a public address.", "/v1/webhooks"),
    "source_not_allowed": Case("No remote admits s3://team-models/private/net.pth.", CONVERSIONS),
    "payload_too_large": Case(
        "The upload has 21474836480 bytes.", CONVERSIONS, {"limit": 10737418240, "received": 21474836480}
    ),
    "digest_mismatch": Case("The body has another sha-256 than Content-Digest says.", "/v1/checkpoints"),
    "incomplete_upload": Case("The connection ended after 1048576 of 46838211 bytes.", "/v1/checkpoints"),
    "idempotency_conflict": Case("Idempotency-Key 'nightly-41' came before, with another request.", CONVERSIONS),
    "not_ready": Case(
        "The conversion is running: it has no artifact yet.", f"{CONVERSION}/artifact", {"retry_after": 2}
    ),
    "unverified_artifact": Case("The verdict is inconclusive.", f"{CONVERSION}/artifact", {"verdict": "inconclusive"}),
    "already_finished": Case("The conversion has succeeded.", f"{CONVERSION}/cancel"),
    "in_use": Case("A conversion that is queued needs this checkpoint.", "/v1/checkpoints/6effe1f5e6d682ac…"),
    "expired": Case("The files were kept until 26 Oct 2026.", f"{CONVERSION}/artifact"),
    "unavailable": Case("The object store does not answer.", f"{CONVERSION}/artifact", {"retry_after": 5}),
    "queue_full": Case("10000 conversions are waiting.", CONVERSIONS, {"retry_after": 30}),
    "unauthenticated": Case("The request carries no key.", CONVERSIONS),
    "scope_missing": Case("The key 'dashboard' may read.", CONVERSIONS, {"scope": "convert"}),
    "rate_limited": Case("The project may ask 600 times a minute.", CONVERSIONS, {"retry_after": 1}),
    "quota_exceeded": Case("The project stores 50.2 GB of 50.0 GB.", CONVERSIONS),
    "insufficient_storage": Case("The disk of the store has 1.2 GB left, and 2 GB are kept free.", CONVERSIONS),
    "method_not_allowed": Case("PUT is not a method of this resource."),
    "http_error": Case("The part of a form has no name.", CONVERSIONS),
    "bad_request": Case("The first line of the request is no request line.", "/"),
    "head_too_large": Case("The head of the request has more than 65536 bytes.", CONVERSIONS),
    "request_timeout": Case("Nothing of the body arrived for 60 seconds.", CONVERSIONS),
    "range_not_satisfiable": Case(
        "The content has 46838211 bytes.", f"{CONVERSION}/artifact", {"content_range": "bytes */46838211"}
    ),
    "host_not_allowed": Case("The request was sent to recast.example.com.", CONVERSIONS),
    "cross_site_refused": Case("The request came from a page of https://example.org.", CONVERSIONS),
    "too_many_connections": Case("You hold 256 connections.", CONVERSIONS, {"retry_after": 5}),
    "internal": Case("Something went wrong that was not foreseen.", CONVERSIONS),
    # --- resumable uploads
    "checksum_mismatch": Case("The sha256 of the 33554432 bytes is another one.", UPLOAD),
    "offset_mismatch": Case("The upload stands at 67108864.", UPLOAD, {"upload_offset": 67108864}),
    "unsupported_checksum": Case("crc32 is not an algorithm that is known here.", UPLOAD),
    "unsupported_tus_version": Case("Tus-Resumable is missing.", UPLOAD, {"tus_version": "1.0.0"}),
    "upload_expired": Case("Nothing arrived for it for a day.", UPLOAD),
    "wrong_content_type": Case("The body is application/json.", UPLOAD),
    "too_many_uploads": Case("8 uploads of this client are on their way.", CONVERSIONS, {"retry_after": 1}),
    "too_many_unfinished_uploads": Case("100 uploads of the project are not finished.", "/v1/uploads"),
    # --- the checkpoint
    "unsupported_format": Case("The file begins with 89 50 4e 47: it is a PNG image.", CONVERSIONS),
    "empty_file": Case("The upload has no bytes.", CONVERSIONS),
    "corrupt_checkpoint": Case("The zip ends in the middle of the record data/17."),
    "already_torchscript": Case("The archive has a program in which 62 weights are constants without names."),
    "pickled_module": Case("The file holds an instance of models.net.BirdNet."),
    "unsafe_checkpoint": Case("The pickle refers to posix.system.", members={"references": ["posix.system"]}),
    "unsupported_tensor": Case("embedding.weight is a sparse tensor."),
    "no_state_dict": Case("The file holds {epoch: int, lr: float}."),
    "ambiguous_checkpoint": Case("Two state dicts are in the file.", members={"candidates": ["generator", "critic"]}),
    "key_mismatch": Case(
        "Of the 122 tensors of torchvision/resnet18 and the 122 uploaded: 2 of another shape or kind.",
        members={
            "shape_mismatches": [
                "fc.weight: checkpoint (37, 512), architecture (1000, 512)",
                "fc.bias: checkpoint (37,), architecture (1000,)",
            ],
            "missing_keys": [],
            "unexpected_keys": [],
        },
    ),
    # --- the conversion
    "conversion_failed": Case("RuntimeError: expected scalar type Float but found Half"),
    "fetch_failed": Case("s3://team-models/published/net.pth: the object is not there."),
    "publish_failed": Case("s3://serving/models: access was denied.", f"{CONVERSION}/publish"),
    "build_failed": Case("ValueError: embed_dim 100 is not divisible by num_heads 12"),
    "unsupported_opset": Case("Opset 25 was asked for; 18 to 23 can be delivered."),
    "static_axis": Case("The model cannot vary the axis height of the input images: it asks for 224."),
    "export_failed": Case("aten::_embedding_bag_forward_only has no ONNX operator."),
    "model_refuses_inputs": Case("mat1 and mat2 shapes cannot be multiplied (2x100 and 128x37)"),
    "parity_failed": Case("Output logits differs by 3.1 times its gate with the probe 'large scale'."),
    "over_budget": Case("Output logits has an SNR of 14.2 dB; the budget is 20 dB."),
    "ledger_failed": Case("fc.bias does not arrive in the artifact.", members={"missing_keys": ["fc.bias"]}),
    "dims_failed": Case("At batch = 3 the output logits has the shape [1, 1000]."),
    "verdict_not_accepted": Case("The verdict is inconclusive: the forward draws random numbers."),
    "non_finite": Case("Output logits holds NaN; layer4.1.bn2.running_var holds 3 of them."),
    "template_mismatch": Case("The slot fc.weight takes [1000, 512]."),
    "out_of_memory": Case("The conversion took 8.0 GB, which is all that it may have."),
    "memory_estimate_exceeded": Case("It would need about 61 GB; one conversion may have 16 GB."),
    "child_crashed": Case("The process ended with signal 11 in the stage export."),
    "sandbox_unavailable": Case("The platform refuses the layer network."),
    "timed_out": Case("It ran for 1800 seconds."),
    "canceled": Case("It was canceled while it ran."),
    "worker_lost": Case("3 workers died while they ran it."),
}
