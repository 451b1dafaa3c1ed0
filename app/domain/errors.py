"""Every way in which Recast says no, as one table. An error names its cause and what to do next.

``code`` is stable: clients branch on it. ``status`` is the HTTP status when the error answers a request; an error that
ends a conversion keeps its code in the conversion's ``error`` field.
"""

import errno
from typing import Any, ClassVar

from pydantic import Field

from app.domain.base import Value
from app.domain.text import LONGEST_DETAIL, storable, storable_json

LISTED = 50
"""How many keys a problem lists before it only counts them (HTTP contract)."""
COUNTED = frozenset({"missing_keys", "unexpected_keys", "shape_mismatches"})
"""Lists whose count is always told, so that clients need not look whether they were cut (HTTP contract)."""


class Problem(Value):
    """An error as data: what RFC 9457 calls a problem document, without the parts that belong to one request."""

    code: str
    title: str
    status: int
    detail: str
    stage: str | None = None
    hint: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further members of the problem document: missing_keys, unexpected_keys, shape_mismatches, candidates, ..."""


class RecastError(Exception):
    """The root of all designed errors. Subclasses fix ``code``, ``status`` and ``title``.

    ``extra`` members are shown at the top level of the problem document. Lists longer than LISTED are cut,
    with ``<name>_count`` beside them; beside those of COUNTED it always stands.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    hint: ClassVar[str | None] = None

    def __init__(self, detail: str, *, hint: str | None = None, stage: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.stage = stage
        self.told_hint = hint if hint is not None else type(self).hint
        self.extra = extra

    def problem(self) -> Problem:
        """This error as data, with long lists and texts cut, in text that can be stored and sent."""
        shown: dict[str, Any] = {}
        for name, value in self.extra.items():
            if isinstance(value, (list, tuple)):
                shown[name] = list(value[:LISTED])
                if len(value) > LISTED or name in COUNTED:
                    shown[f"{name}_count"] = len(value)
            else:
                shown[name] = value
        return Problem(
            code=self.code,
            title=self.title,
            status=self.status,
            detail=storable(self.detail, LONGEST_DETAIL),
            stage=self.stage,
            hint=self.told_hint and storable(self.told_hint, LONGEST_DETAIL),
            extra=storable_json(shown),
        )


# --- requests ------------------------------------------------------------------------------------------------------


class InvalidRequest(RecastError):
    code, status, title = "invalid_request", 422, "The request is not valid"
    hint = "The detail and `errors` say which part of the request; change it and send it again."


class NotFound(RecastError):
    code, status, title = "not_found", 404, "Not found"
    hint = "Look at the id: what was deleted, and what belongs to another project, is not found either."


class UnknownArchitecture(RecastError):
    code, status, title = "unknown_architecture", 404, "No architecture of that name"
    hint = "GET /v1/architectures lists the names."


class UnknownCheckpoint(RecastError):
    code, status, title = "unknown_checkpoint", 404, "No checkpoint of that sha256"
    hint = "Upload the file first: POST /v1/checkpoints."


class InvalidOptions(RecastError):
    code, status, title = "invalid_options", 422, "The options are not valid"
    hint = "The options of a target are in /openapi.json, those of an architecture in GET /v1/architectures/{name}."


class TargetNotInstalled(RecastError):
    code, status, title = "target_not_installed", 422, "The installation lacks what this target needs"
    hint = "Its operator can add it; every architecture's description says with which command."


class InvalidRecipe(RecastError):
    code, status, title = "invalid_recipe", 422, "The recipe is not valid"
    hint = "The detail says which part of it; docs/recipes.md describes recipes and lists their layers."


class AddressNotAllowed(RecastError):
    code, status, title = "address_not_allowed", 422, "The service does not connect to that address"
    hint = "Name a public host; who runs this service can admit internal ones by RECAST_INTERNAL_HOSTS."


class SourceNotAllowed(RecastError):
    code, status, title = "source_not_allowed", 403, "That place may not be used"
    hint = "Who runs this service names the places that may be read from or published to (RECAST_REMOTES_FILE)."


class PayloadTooLarge(RecastError):
    code, status, title = "payload_too_large", 413, "The upload is larger than this server accepts"
    hint = "`limit` says how many bytes are accepted."


class DigestMismatch(RecastError):
    code, status, title = "digest_mismatch", 422, "The bytes received do not have the digest sent with them"
    hint = "The file changed on its way, or the digest is of another file. Nothing was stored; upload again."


class IncompleteUpload(RecastError):
    code, status, title = "incomplete_upload", 400, "The body ended early"
    hint = "Nothing was stored; upload again."


class IdempotencyConflict(RecastError):
    code, status, title = "idempotency_conflict", 409, "This Idempotency-Key was used with another request"
    hint = "Use a new key for a new request."


class NotReady(RecastError):
    code, status, title = "not_ready", 409, "The conversion has no such result"
    hint = "While the conversion runs, ask again after Retry-After; when it has failed, `problem` says why."


class Unverified(RecastError):
    code, status, title = "unverified_artifact", 409, "The artifact did not pass verification"
    hint = "Read the report. To have the file nevertheless, add ?unverified=true."


class AlreadyFinished(RecastError):
    code, status, title = "already_finished", 409, "The conversion has finished"
    hint = "GET the conversion to see how it ended."


class InUse(RecastError):
    code, status, title = "in_use", 409, "Something that has not finished still needs this"
    hint = "Wait until it has finished, or cancel it."


class Expired(RecastError):
    code, status, title = "expired", 410, "The artifact is no longer kept"
    hint = "Convert again: an upload and the same request give the same artifact."


class Unavailable(RecastError):
    code, status, title = "unavailable", 503, "A part of the service is not available now"
    hint = "Ask again after Retry-After; GET /readyz says which part is away."


class QueueFull(RecastError):
    code, status, title = "queue_full", 429, "Too many conversions are waiting"
    hint = "Ask again after Retry-After."


class Unauthenticated(RecastError):
    code, status, title = "unauthenticated", 401, "This service wants to know who asks"
    hint = "Send Authorization: Bearer rk_...; who runs this service makes keys with `recast keys create`."


class ScopeMissing(RecastError):
    code, status, title = "scope_missing", 403, "The key does not permit that"
    hint = "Use a key that has the scope which `scope` names."


class RateLimited(RecastError):
    code, status, title = "rate_limited", 429, "Too many requests of this key"
    hint = "Ask again after Retry-After."


class QuotaExceeded(RecastError):
    code, status, title = "quota_exceeded", 429, "The project may not use more"
    hint = "Delete what is no longer needed, or ask who runs this service for more."


class InsufficientStorage(RecastError):
    code, status, title = "insufficient_storage", 507, "The store is full"
    hint = "Ask again later; who runs this service must make room."


# --- the checkpoint ------------------------------------------------------------------------------------------------


class UnsupportedFormat(RecastError):
    code, status, title = "unsupported_format", 415, "This is not a checkpoint file"
    hint = "Send what torch.save(model.state_dict(), path) or safetensors.torch.save_file wrote."


class EmptyFile(RecastError):
    code, status, title = "empty_file", 422, "The file is empty"
    hint = "Look at the path that was sent: the file has no bytes."


class CorruptCheckpoint(RecastError):
    code, status, title = "corrupt_checkpoint", 422, "The file is damaged or not what it claims to be"
    hint = "Save the state dict anew with torch.save(model.state_dict(), path) or safetensors, and compare the sha256."


class AlreadyTorchScript(RecastError):
    code, status, title = "already_torchscript", 422, "This file is TorchScript whose weights have no names"
    hint = "The module was frozen. Send the checkpoint that it was made of, or the file from before torch.jit.freeze."


class PickledModule(RecastError):
    code, status, title = "pickled_module", 422, "The file holds a whole pickled module, not a state dict"
    hint = (
        "Unpickling a module runs code, so Recast does not. Where the model's code is at hand: "
        "m = torch.load(path, weights_only=False); torch.save(m.state_dict(), 'weights.pth')"
    )


class UnsafeCheckpoint(RecastError):
    code, status, title = "unsafe_checkpoint", 422, "The file refers to Python objects that are not loaded"
    hint = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth')."


class UnsupportedTensor(RecastError):
    code, status, title = "unsupported_tensor", 422, "The checkpoint holds a tensor that is not a plain dense tensor"
    hint = "Save plain dense tensors: convert the one that the detail names, or leave it out."


class NoStateDict(RecastError):
    code, status, title = "no_state_dict", 422, "The file holds no state dict"
    hint = "Save the weights: torch.save(model.state_dict(), 'weights.pth')."


class AmbiguousCheckpoint(RecastError):
    code, status, title = "ambiguous_checkpoint", 422, "The file holds more than one state dict"
    hint = "Say which one: options.checkpoint_key is one of the candidates."


class KeyMismatch(RecastError):
    code, status, title = "key_mismatch", 422, "The checkpoint does not fit the architecture"
    hint = (
        "The lists of keys say where they differ: choose the architecture and the options that the weights were "
        "trained with."
    )


# --- the conversion ------------------------------------------------------------------------------------------------


class ConversionError(RecastError):
    """An error that ends a running conversion."""

    hint = "The detail says what failed; the conversion's report, where it got that far, says more."

    code, status, title = "conversion_failed", 422, "The conversion failed"


class FetchFailed(ConversionError):
    code, title = "fetch_failed", "The file could not be fetched"
    hint = "The conversion's log says what was tried. Look at the URI, or send the file itself."


class PublishFailed(RecastError):
    code, status, title = "publish_failed", 422, "The files could not be published"
    hint = "Look at the place, and at its remote's credentials; POST /v1/conversions/{id}/publish tries again."


class BuildFailed(ConversionError):
    code, title = "build_failed", "The architecture could not be built"
    hint = "The detail says what the architecture's builder raised; change its options."


class UnsupportedOpset(ConversionError):
    code, title = "unsupported_opset", "The requested opset cannot be delivered"
    hint = "The detail says which opsets can be delivered."


class StaticAxis(ConversionError):
    code, title = "static_axis", "An axis that was asked to be dynamic cannot vary"
    hint = "Leave the axis out of dynamic_axes, or convert for one size with example_shapes."


class ExportFailed(ConversionError):
    code, title = "export_failed", "No exporter could express this model"
    hint = "The detail says why each exporter failed; another target may be able to."


class ModelRefuses(ConversionError):
    code, title = "model_refuses_inputs", "The model itself fails on the inputs that its architecture declares"
    hint = (
        "Choose options and example_shapes that fit each other. In a plug-in: run the module on a tensor of each "
        "declared shape and correct the signature or the forward."
    )


class ParityFailed(ConversionError):
    code, title = "parity_failed", "The artifact does not compute what the model computes"
    hint = "Read the report: it says which output differs, by how much and at which input."


class OverBudget(ConversionError):
    code, title = "over_budget", "The approximation lies farther from the model than its budget admits"
    hint = "Use precision fp16 or fp32, or give a budget that you can bear; the report names the layers that lose most."


class LedgerFailed(ConversionError):
    code, title = "ledger_failed", "The artifact does not carry exactly the uploaded weights"
    hint = "Read the report: it says which weights are missing, changed or unexplained."


class DimsFailed(ConversionError):
    code, title = "dims_failed", "The artifact is wrong or fails at other sizes of a dynamic axis"
    hint = "Convert without the axis that fails (dynamic_axes), or for one size with example_shapes."


class VerdictNotAccepted(ConversionError):
    code, title = "verdict_not_accepted", "Verification could not decide what the request asks for"
    hint = (
        "Read the report's findings. ?unverified=true downloads this artifact nevertheless; accept=inconclusive in a "
        "request takes such a result for success."
    )


class NonFinite(ConversionError):
    code, title = "non_finite", "The model's outputs are not finite"
    hint = "Look at the weights first: the report says which of them hold NaN or infinities."


class TemplateMismatch(ConversionError):
    code, title = "template_mismatch", "The weights do not fill the template's slots exactly"
    hint = "Convert again with force=true; if it happens again, it is a fault of the service."


class OutOfMemory(ConversionError):
    code, title = "out_of_memory", "The conversion needed more memory than it may use"
    hint = "Convert on a machine with more memory, or with smaller example_shapes."


ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "bad_alloc", "failed to allocate memory")
"""How torch, C++ and onnxruntime say in a RuntimeError that memory is out."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether an exception, of whatever type, says that memory could not be had."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in ALLOCATION_FAILURES)


def disk_ran_out(error: BaseException) -> bool:
    """Whether an exception says that a disk, or what may be used of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class MemoryEstimateExceeded(ConversionError):
    code, status, title = "memory_estimate_exceeded", 413, "The conversion would need more memory than it may ever use"
    hint = "Convert on a machine with more memory; who runs this service can set a larger RECAST_MEMORY_BUDGET."


class ChildCrashed(ConversionError):
    code, title = "child_crashed", "The conversion process ended without a result"
    hint = "Retry once; if it happens again, report it with the conversion's id."


class SandboxUnavailable(ConversionError):
    code, title = "sandbox_unavailable", "The conversion's process could not be confined as this service requires"
    hint = "Who runs this service finds in /readyz what the platform refuses, and in SECURITY.md how to grant it."


class TimedOut(ConversionError):
    code, title = "timed_out", "The conversion took longer than allowed"
    hint = "Retry when the service is less busy; who runs it can raise RECAST_JOB_TIMEOUT."


class Canceled(ConversionError):
    code, title = "canceled", "The conversion was canceled"
    hint = "POST /v1/conversions/{id}/retry queues it again."


class WorkerLost(ConversionError):
    code, title = "worker_lost", "The workers that ran this conversion died"
    hint = "Retry with POST /v1/conversions/{id}/retry; if it happens again, the job itself kills its workers."
