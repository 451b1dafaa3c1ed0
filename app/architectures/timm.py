"""timm's models by the names of its ``list_models()``. Signatures come from the models' default configurations."""

from functools import cached_property
from typing import Any

from torch import nn

from app.architectures.entry import Entry, Options, object_schema
from app.architectures.images import (
    MOST_CHANNELS,
    image_size_property,
    normalised_images,
    num_classes_property,
    size_pair,
)
from app.domain.architecture import OutputSpec, Signature

PREFIX = "timm/"
POOLS = ("", "avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "token", "map")


class TimmModels:
    """Every model of ``timm.list_models()``."""

    prefix = PREFIX

    @cached_property
    def _names(self) -> tuple[str, ...]:
        import timm

        return tuple(PREFIX + name for name in timm.list_models())

    def names(self) -> tuple[str, ...]:
        return self._names

    def entry(self, name: str) -> Entry:
        import timm

        model = name.removeprefix(PREFIX)
        entrypoint = timm.model_entrypoint(model)
        defaults: Any = timm.get_pretrained_cfg(model)
        fixed_size = bool(defaults.fixed_input_size)

        def construct(options: Options) -> nn.Module:
            arguments: dict[str, Any] = {key: options[key] for key in ("num_classes", "in_chans")}
            if fixed_size:
                arguments["img_size"] = size_pair(options)
            if options["global_pool"] is not None:
                arguments["global_pool"] = options["global_pool"]
            module: nn.Module = timm.create_model(model, pretrained=False, **arguments)
            return module

        return Entry(
            name=name,
            family=entrypoint.__module__.rpartition(".")[2],
            library="timm",
            library_version=timm.__version__,
            summary="Image classification" if defaults.num_classes else "Image features",
            options_schema=_options_schema(defaults),
            signature=_signature,
            construct=construct,
        )


def _options_schema(defaults: Any) -> dict[str, Any]:
    channels, height, width = defaults.input_size
    return object_schema(
        {
            "num_classes": {
                **num_classes_property(max(defaults.num_classes, 0), minimum=0),
                "description": "0: the pooled features, without a classifier.",
            },
            "in_chans": {"type": "integer", "minimum": 1, "maximum": MOST_CHANNELS, "default": channels},
            "image_size": image_size_property((height, width), minimum=16),
            "global_pool": {
                "enum": [None, *POOLS],
                "default": None,
                "description": "null: the model's own. Not every model has every kind.",
            },
        }
    )


def _signature(options: Options) -> Signature:
    classes = options["num_classes"]
    logits = OutputSpec(name="logits", dtype="float32", shape=("batch", classes))
    return Signature(
        inputs=(normalised_images("images", "batch", options["in_chans"], *size_pair(options)),),
        outputs=(logits,) if classes else (OutputSpec(name="features", dtype="float32"),),
    )
