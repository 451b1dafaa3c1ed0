"""``.pt2`` files loaded back from disk with torch.export."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from app.architectures.calling import copied
from app.domain.architecture import Signature
from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, GraphFacts, MalformedFile, ModuleValue
from app.targets.pt2.reading import audited
from app.targets.pt2.reading.archive import Pt2Archive


class Pt2Runtime:
    """The program of a file that holds no pickles. Takes inputs by position, gives outputs by position."""

    names_outputs = False

    def __init__(self, path: Path, signature: Signature) -> None:
        self._names = tuple(spec.name for spec in signature.inputs)
        try:
            self._program = Pt2Archive(path).program()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._module = torch.export.load(str(path)).module()
        except MalformedFile as refusal:
            raise ArtifactRefused(str(refusal)) from refusal
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.inference_mode():
                outputs = self._module(*(inputs[name].clone() for name in self._names))
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        return copied({f"output {position}": value for position, value in enumerate(outputs)})

    def facts(self) -> GraphFacts:
        axes = audited.input_axes(self._program)
        return GraphFacts(
            audited.constants(self._program),
            training=audited.training_nodes(self._program),
            axes={name: axes[position] for position, name in enumerate(self._names)},
        )

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """Every float value of the program that has as many elements: it carries no names of modules."""
        seen = _Intermediates(self._module)
        try:
            with torch.inference_mode():
                seen.run(*(inputs[name].clone() for name in self._names))
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        by_count: dict[int, list[Tensor]] = {}
        for tensor in seen.floats:
            by_count.setdefault(tensor.numel(), []).append(tensor)
        return [by_count.get(value.output.numel(), []) for value in values]


class _Intermediates(torch.fx.Interpreter):
    def __init__(self, module: torch.nn.Module) -> None:
        assert isinstance(module, torch.fx.GraphModule)
        super().__init__(module)
        self.floats: list[Tensor] = []

    def run_node(self, n: torch.fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.floats.append(value.clone())
        return value
