"""Which of the architecture's tensors an artifact can leave in the uploaded file, and whether it may point into it."""

from torch import Tensor

from app.conversion.checkpoint import OpenedCheckpoint
from app.conversion.job import ConversionJob
from app.conversion.loading import LoadedModule
from app.domain.errors import LISTED, InvalidOptions
from app.domain.text import listed
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import CheckpointFile

FORMATS = frozenset({"torch-zip", "safetensors"})
"""Whose tensors any reader finds at the offsets that the graph names, without reading the file itself."""
SUFFIXES = {"torch-zip": ".pth", "safetensors": ".safetensors"}
_RESAVE = "Save the state dict with safetensors.torch.save_file or torch.save, or leave external_data at auto."


def checkpoint_file(job: ConversionJob, opened: OpenedCheckpoint, loaded: LoadedModule) -> CheckpointFile | None:
    """The file that the artifact shall point into; None where it shall carry its weights.

    Raises InvalidOptions where the file does not hold the architecture's tensors as they are: another format than
    FORMATS, tensors of another dtype than the architecture's, bytes that were swapped.
    """
    if not isinstance(job.options, OnnxOptions) or not job.options.over_checkpoint:
        return None
    kind = opened.inspection.format
    if kind not in FORMATS:
        raise _refusal(f"a file of format {kind} cannot be pointed into; safetensors and torch.save's zip can")
    if opened.mapped is None:
        raise _refusal("no tensor stands in the file as a processor of today reads it")
    held = {key: tensor for key, tensor in loaded.module.state_dict().items() if isinstance(tensor, Tensor)}
    cast = [
        f"{key} ({_dtype(loaded.uploaded[key])} in the file, {_dtype(tensor)} in the architecture)"
        for key, tensor in held.items()
        if key in loaded.uploaded and loaded.uploaded[key].dtype != tensor.dtype
    ]
    if cast:
        raise _refusal(f"tensors would have to be cast: {listed(cast, LISTED)}")
    offsets = {key: offset for key, tensor in held.items() if (offset := opened.mapped.offset(tensor)) is not None}
    named = job.options.for_file(job.checkpoint_filename)
    return CheckpointFile(
        named.checkpoint_name or f"checkpoint{SUFFIXES[kind]}",
        job.checkpoint_sha256,
        opened.inspection.bytes,
        offsets,
    )


def _refusal(why: str) -> InvalidOptions:
    return InvalidOptions(f"external_data=checkpoint: {why}.", stage="load", hint=_RESAVE)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
