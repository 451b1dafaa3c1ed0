"""timm's models by the names of its ``list_models()``. Signatures come from the models' default configurations."""

import inspect
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

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

    def holds(self, name: str) -> bool:
        """Also "timm/resnet50.a1_in1k": the model with the defaults of those published weights."""
        if name in self._names:
            return True
        import timm

        model, _, tag = name.removeprefix(PREFIX).partition(".")
        return PREFIX + model in self._names and f"{model}.{tag}" in timm.list_pretrained(model)

    def entry(self, name: str) -> Entry:
        import timm

        model = name.removeprefix(PREFIX)
        entrypoint = timm.model_entrypoint(model)
        defaults: Any = timm.get_pretrained_cfg(model)
        fixed_size = bool(defaults.fixed_input_size)

        def arguments(options: Options) -> dict[str, Any]:
            given: dict[str, Any] = {key: options[key] for key in ("num_classes", "in_chans")}
            if fixed_size:
                given["img_size"] = size_pair(options)
            if options["global_pool"] is not None:
                given["global_pool"] = options["global_pool"]
            return given

        def construct(options: Options) -> nn.Module:
            module: nn.Module = timm.create_model(model, pretrained=False, **arguments(options))
            return module

        def convert(module: nn.Module, options: Options, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return _filtered(model, arguments(options), module, tensors)

        return Entry(
            name=name,
            family=entrypoint.__module__.rpartition(".")[2],
            library="timm",
            library_version=timm.__version__,
            summary="Image classification" if defaults.num_classes else "Image features",
            options_schema=_options_schema(defaults),
            signature=partial(_signature, _preprocessing(defaults)),
            construct=construct,
            convert=convert,
        )


def _filtered(
    model: str, arguments: dict[str, Any], module: nn.Module, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A published state dict after the model's own filter, which renames keys of other projects and of older versions.

    timm hands the filter to the function that loads published weights, so that one is watched while the model is made.
    """
    import timm
    from timm.models import _builder

    filters: list[Any] = []
    watched = _builder.load_pretrained
    _builder.load_pretrained = lambda *_, filter_fn=None, **__: filters.append(filter_fn)
    try:
        with torch.device("meta"):
            timm.create_model(model, pretrained=True, pretrained_cfg_overlay={"file": "unread"}, **arguments)
    finally:
        _builder.load_pretrained = watched
    (filter_fn,) = filters or [None]
    if filter_fn is None:
        return tensors
    takes_module = len(inspect.signature(filter_fn).parameters) > 1
    filtered: dict[str, Tensor] = filter_fn(dict(tensors), module) if takes_module else filter_fn(dict(tensors))
    return filtered


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


def _preprocessing(defaults: Any) -> str:
    """How timm prepares images for the published weights of this configuration (timm.data.create_transform)."""
    _, height, width = defaults.input_size
    resized = f"resized ({defaults.interpolation}) to {round(height / defaults.crop_pct)} pixels"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (defaults.mean, defaults.std))
    return (
        f"For the published weights: images are {resized}, cropped in the middle to {height} × {width}, "
        f"rescaled to [0, 1] and normalized by mean {mean} and std {std}."
    )


def _signature(preprocessing: str, options: Options) -> Signature:
    classes = options["num_classes"]
    logits = OutputSpec(name="logits", dtype="float32", shape=("batch", classes))
    images = normalised_images("images", "batch", options["in_chans"], *size_pair(options), preprocessing=preprocessing)
    return Signature(
        inputs=(images,),
        outputs=(logits,) if classes else (OutputSpec(name="features", dtype="float32"),),
    )
