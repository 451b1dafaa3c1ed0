"""TorchScript files run by torch.jit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, bind, copied, flatten
from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, GraphFacts, ModuleValue
from app.targets.torchscript.reading import audited


class TorchScriptRuntime:
    """A file loaded with torch.jit. Arguments are bound as for the eager module it came from."""

    names_outputs = False

    def __init__(self, path: Path, model: EagerModel, *, optimise: bool = True) -> None:
        self._model, self._optimise = model, optimise
        try:
            self.loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cloned = {name: value.clone() for name, value in inputs.items()}
        args, kwargs = bind(self._model, cloned)
        try:
            with torch.inference_mode(), torch.jit.optimized_execution(self._optimise):  # type: ignore[attr-defined]
                return copied(flatten(self.loaded(*args, **kwargs), self._model.signature))
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal

    def facts(self) -> GraphFacts:
        return GraphFacts(audited.constants(self.loaded), training=audited.training_nodes(self.loaded))

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:  # noqa: ARG002
        """What the same submodule of the artifact gives for the same inputs."""
        parts = dict(self.loaded.named_modules())
        return [_given(value, parts.get(value.module)) for value in values]


def _given(value: ModuleValue, part: nn.Module | None) -> list[Tensor]:
    if part is None:
        return []
    try:
        with torch.inference_mode():
            output = part(*(tensor.clone() for tensor in value.inputs))
    except Exception:  # noqa: BLE001 - a traced submodule may take its arguments in another form: not comparable
        return []
    if not isinstance(output, Tensor) or output.is_nested or output.shape != value.output.shape:
        return []
    return [output]
