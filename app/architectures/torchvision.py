"""torchvision's models by the names of its ``list_models()``.

Signatures come from the weights' metadata and from the kinds below, so that listing builds nothing. No weights are ever
loaded or downloaded: ``weights`` and ``weights_backbone`` are always None.
"""

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from app.architectures import torchvision_kinds as kinds
from app.architectures.entry import Entry, Options
from app.architectures.torchvision_detection import Detection

PREFIX = "torchvision/"

KINDS: dict[str, type[kinds.Kind]] = {
    "torchvision.models.detection": Detection,
    "torchvision.models.optical_flow": kinds.OpticalFlow,
    "torchvision.models.quantization": kinds.Quantizable,
    "torchvision.models.segmentation": kinds.Segmentation,
    "torchvision.models.video": kinds.Video,
}
"""Kind of model by the package its builder lives in; all others classify images."""


class TorchvisionModels:
    """Every model of ``torchvision.models.list_models()``."""

    prefix = PREFIX

    @cached_property
    def _names(self) -> tuple[str, ...]:
        from torchvision.models import list_models

        return tuple(PREFIX + name for name in sorted(list_models()))

    def names(self) -> tuple[str, ...]:
        return self._names

    def holds(self, name: str) -> bool:
        return name in self._names

    def entry(self, name: str) -> Entry:
        import torchvision
        from torchvision.models import get_model_builder, get_model_weights

        model = name.removeprefix(PREFIX)
        package, _, family = get_model_builder(model).__module__.rpartition(".")
        first_weights = next(iter(get_model_weights(model)), None)
        kind = KINDS.get(package, kinds.Classification)(model, family, first_weights)
        return Entry(
            name=name,
            family=family,
            library="torchvision",
            library_version=torchvision.__version__,
            summary=kind.summary,
            options_schema=kind.options_schema(),
            signature=kind.signature,
            construct=kind.construct,
            convert=_published if family == "densenet" else None,
        )


def _published(_module: nn.Module, _options: Options, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the keys of torchvision's published DenseNets ("norm.1") as the module has them ("norm1").

    Only the function that loads those files knows the pattern (torchvision/models/densenet.py), so it is given the
    tensors as if they were the published ones.
    """
    from torchvision.models import densenet

    class Published:
        def get_state_dict(self, **_: object) -> dict[str, Tensor]:
            return tensors

    class Receiver(nn.Module):
        def load_state_dict(self, state_dict: Any, *_: object, **__: object) -> None:
            renamed.update(state_dict)

    renamed: dict[str, Tensor] = {}
    densenet._load_state_dict(Receiver(), Published(), progress=False)
    return renamed
