"""The kinds of torchvision models: their options, inputs, outputs and builder arguments."""

import inspect
from typing import Any

from torch import nn

from app.architectures.entry import Options, object_schema
from app.architectures.images import image_size_property, normalised_images, num_classes_property, size_pair
from app.domain.architecture import InputSpec, OutputSpec, Signature, Uniform

IMAGENET_CLASSES = 1000
MOST_FRAMES = 256
FLOW_UPDATES = 12
"""How many flows RAFT returns: the default of num_flow_updates in torchvision.models.optical_flow.RAFT.forward."""


def _published(transforms: Any) -> str:
    """How torchvision prepares images for its published weights, in its own words without what types it accepts."""
    told = transforms().describe().replace("`", "").replace("InterpolationMode.", "")
    return f"For the published weights: {told[told.find('objects. ') + len('objects. ') :]}"


class Kind:
    """What models of one kind share. ``weights`` is a member of a weights enum: only its metadata is used."""

    summary = ""

    def __init__(self, model: str, family: str, weights: Any) -> None:
        self.model = model
        self.family = family
        self.meta: dict[str, Any] = weights.meta if weights else {}
        transforms = weights.transforms if weights else None
        self.preset: dict[str, Any] = getattr(transforms, "keywords", {})
        self.preprocessing = _published(transforms) if transforms else None

    def options_schema(self) -> dict[str, Any]:
        """JSON Schema of the options."""
        raise NotImplementedError

    def signature(self, options: Options) -> Signature:
        """Inputs and outputs for these options."""
        raise NotImplementedError

    def arguments(self, options: Options, /) -> dict[str, Any]:
        """Keyword arguments of torchvision's builder for these options."""
        raise NotImplementedError

    def construct(self, options: Options) -> nn.Module:
        """The model with neither its own nor its backbone's trained weights."""
        from torchvision.models import get_model_builder

        builder = get_model_builder(self.model)
        without_weights = {
            name: None for name in ("weights", "weights_backbone") if name in inspect.signature(builder).parameters
        }
        module: nn.Module = builder(**without_weights, **self.arguments(options))
        return module

    def classes(self, default: int) -> int:
        """Number of classes of the published weights."""
        return len(self.meta.get("categories", ())) or default


class Classification(Kind):
    summary = "Image classification"

    def options_schema(self) -> dict[str, Any]:
        properties = {"num_classes": num_classes_property(self.classes(IMAGENET_CLASSES)), "image_size": self._size()}
        if self.family in ("googlenet", "inception"):
            properties["aux_logits"] = {
                "type": "boolean",
                "default": True,
                "description": "Whether the state dict has the auxiliary classifiers; they do not act on the output.",
            }
            properties["transform_input"] = {
                "type": "boolean",
                "default": False,
                "description": "Re-normalise the input as torchvision does for its published weights.",
            }
        return object_schema(properties)

    def _size(self) -> dict[str, Any]:
        side = int(self.preset.get("crop_size", 224))
        match self.family:
            case "vision_transformer":
                patch = int(self.model.rpartition("_")[2])
                return image_size_property((side, side), minimum=patch, multiple_of=patch, square=True)
            case "maxvit":
                return image_size_property((side, side), minimum=224, multiple_of=224)
        smallest = max(self.meta.get("min_size", (1, 1)))
        return image_size_property((side, side), minimum=smallest if smallest < side else 32)

    def signature(self, options: Options) -> Signature:
        return Signature(
            inputs=(normalised_images("images", "batch", 3, *size_pair(options), preprocessing=self.preprocessing),),
            outputs=(OutputSpec(name="logits", dtype="float32", shape=("batch", options["num_classes"])),),
        )

    def arguments(self, options: Options) -> dict[str, Any]:
        arguments: dict[str, Any] = {"num_classes": options["num_classes"]}
        match self.family:
            case "vision_transformer":
                arguments["image_size"] = size_pair(options)[0]
            case "maxvit":
                arguments["input_size"] = size_pair(options)
            case "googlenet" | "inception":
                arguments["init_weights"] = False  # their truncated normal takes seconds and is never used
                arguments |= {name: options[name] for name in ("aux_logits", "transform_input")}
        return arguments


class Quantizable(Classification):
    summary = "Image classification: the float model that torchvision quantises (not a quantised state dict)"

    def arguments(self, options: Options) -> dict[str, Any]:
        return {"quantize": False, **super().arguments(options)}


class Segmentation(Kind):
    summary = "Semantic segmentation"

    def options_schema(self) -> dict[str, Any]:
        side = int(self.preset.get("resize_size", 520))
        properties = {
            "num_classes": num_classes_property(self.classes(21)),
            "image_size": image_size_property((side, side), minimum=32),
        }
        if self._may_have_aux():
            properties["aux_loss"] = {
                "type": "boolean",
                "default": False,
                "description": "Whether the model has the auxiliary classifier; torchvision's published weights do.",
            }
        return object_schema(properties)

    def _may_have_aux(self) -> bool:
        return self.family != "lraspp"

    def signature(self, options: Options) -> Signature:
        height, width = size_pair(options)
        shape = ("batch", options["num_classes"], height, width)
        names = ("out", "aux") if options.get("aux_loss") else ("out",)
        return Signature(
            inputs=(normalised_images("images", "batch", 3, height, width, preprocessing=self.preprocessing),),
            outputs=tuple(OutputSpec(name=name, dtype="float32", shape=shape) for name in names),
        )

    def arguments(self, options: Options) -> dict[str, Any]:
        names = ("num_classes", "aux_loss") if self._may_have_aux() else ("num_classes",)
        return {name: options[name] for name in names}


class Video(Kind):
    summary = "Video classification"

    def options_schema(self) -> dict[str, Any]:
        num_classes = num_classes_property(self.classes(400))
        if self.family == "mvit":  # its builders fix the size
            return object_schema({"num_classes": num_classes})
        side = self._side()
        frames: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MOST_FRAMES, "default": 16}
        if self.family == "s3d":
            frames["minimum"] = self.meta.get("min_temporal_size", 14)
        smallest = side if self.family == "s3d" else 32
        return object_schema(
            {
                "num_classes": num_classes,
                "image_size": image_size_property((side, side), minimum=smallest),
                "frames": frames,
            }
        )

    def signature(self, options: Options) -> Signature:
        frames = options.get("frames", self.meta.get("min_temporal_size", 16))
        height, width = size_pair(options) if "image_size" in options else (self._side(),) * 2
        return Signature(
            inputs=(normalised_images("video", "batch", 3, frames, height, width, preprocessing=self.preprocessing),),
            outputs=(OutputSpec(name="logits", dtype="float32", shape=("batch", options["num_classes"])),),
        )

    def arguments(self, options: Options) -> dict[str, Any]:
        return {"num_classes": options["num_classes"]}

    def _side(self) -> int:
        return int(self.preset.get("crop_size", (112, 112))[0])


class OpticalFlow(Kind):
    summary = "Optical flow between two images"

    def options_schema(self) -> dict[str, Any]:
        smallest = max(self.meta.get("min_size", (128, 128)))
        return object_schema({"image_size": image_size_property((smallest,) * 2, minimum=smallest, multiple_of=8)})

    def signature(self, options: Options) -> Signature:
        height, width = size_pair(options)
        pixels = Uniform(low=-1.0, high=1.0)
        return Signature(
            inputs=tuple(
                InputSpec(name=name, shape=("batch", 3, height, width), distribution=pixels)
                for name in ("image1", "image2")
            ),
            outputs=tuple(
                OutputSpec(name=f"flow_{update}", dtype="float32", shape=("batch", 2, height, width))
                for update in range(FLOW_UPDATES)
            ),
        )

    def arguments(self, _options: Options) -> dict[str, Any]:
        return {}
