"""torchvision's detection models: a list of images in, a dictionary of detections for each image out."""

from typing import Any

from torch import nn

from app.architectures.entry import Options, object_schema
from app.architectures.images import LARGEST_SIDE, image_size_property, num_classes_property, size_pair
from app.architectures.torchvision_kinds import Kind
from app.domain.architecture import InputSpec, OutputSpec, Signature, Uniform

ROI_OUTPUTS = ("boxes", "labels", "scores")
"""Order of torchvision.models.detection.roi_heads.RoIHeads.forward."""
ONE_STAGE_OUTPUTS = ("boxes", "scores", "labels")
"""Order of postprocess_detections in retinanet.py, fcos.py and ssd.py of torchvision.models.detection."""
OUTPUTS = {
    "faster_rcnn": ROI_OUTPUTS,
    "mask_rcnn": (*ROI_OUTPUTS, "masks"),
    "keypoint_rcnn": (*ROI_OUTPUTS, "keypoints", "keypoints_scores"),
}
FIXED_SIZE_FAMILIES = ("ssd", "ssdlite")
"""They resize every image to one size of their own, and their builders fix it."""


class Detection(Kind):
    """One image as the only element of a list; the number of detections depends on its content, so no axis is symbolic.

    A state dict trained from published weights has frozen batch normalisation, whose layers have no
    ``num_batches_tracked``: option ``frozen_batch_norm``.
    """

    summary = "Object detection on one image"

    def options_schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "num_classes": num_classes_property(self.classes(91), minimum=2),
            "image_size": image_size_property((320, 320), minimum=32),
            "frozen_batch_norm": {
                "type": "boolean",
                "default": False,
                "description": "Fixed statistics, as torchvision builds when it starts from published weights.",
            },
            "frozen_batch_norm_eps": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 1e-5,
                "description": "torchvision sets 0 for models that start from COCO_V1 weights.",
            },
        }
        if self.family not in FIXED_SIZE_FAMILIES:
            side = {"type": ["integer", "null"], "minimum": 32, "maximum": LARGEST_SIDE, "default": None}
            properties["min_size"] = {**side, "description": "The shorter side to which images are resized inside."}
            properties["max_size"] = {**side, "description": "The longer side to which images are resized inside."}
        if self.family == "keypoint_rcnn":
            properties["num_keypoints"] = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 17}
        return object_schema(properties)

    def signature(self, options: Options) -> Signature:
        image = InputSpec(name="images", shape=(3, *size_pair(options)), distribution=Uniform(), in_list=True)
        names = OUTPUTS.get(self.family, ONE_STAGE_OUTPUTS)
        return Signature(inputs=(image,), axes=(), outputs=tuple(OutputSpec(name=name) for name in names))

    def arguments(self, options: Options) -> dict[str, Any]:
        names = ("num_classes", "num_keypoints", "min_size", "max_size")
        return {name: options[name] for name in names if options.get(name) is not None}

    def construct(self, options: Options) -> nn.Module:
        module = super().construct(options)
        if options["frozen_batch_norm"]:
            _freeze_batch_norm(module, options["frozen_batch_norm_eps"])
        return module


def _freeze_batch_norm(module: nn.Module, eps: float) -> None:
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=eps))
        else:
            _freeze_batch_norm(child, eps)
