"""The catalog answers without torch."""

import subprocess
import sys

import pytest

from app.domain.architecture import ArchitectureDescription, BrokenPlugin, InputSpec, Signature
from app.domain.catalog import Catalog
from app.domain.errors import InvalidOptions, UnknownArchitecture
from app.domain.options import complete_options

SCHEMA = {
    "type": "object",
    "properties": {
        "classes": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
        "width": {"type": ["integer", "null"]},
    },
    "additionalProperties": False,
}


def entry(name: str, family: str, summary: str = "") -> ArchitectureDescription:
    signature = Signature(inputs=(InputSpec(name="x", shape=("batch", 1)),))
    return ArchitectureDescription(
        name=name,
        family=family,
        library="sample",
        library_version="1",
        summary=summary,
        options_schema=SCHEMA,
        signature=signature,
    )


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(
        [
            entry("torchvision/resnet18", "resnet", "Image classification"),
            entry("torchvision/resnet50", "resnet", "Image classification"),
            entry("timm/resnet50", "resnet"),
            entry("timm/vit_tiny", "vision_transformer"),
        ],
        broken=[BrokenPlugin(name="acme", error="RuntimeError: no licence")],
    )


def test_search_takes_every_word_whatever_its_case(catalog: Catalog) -> None:
    assert [found.name for found in catalog.search("RESNET50")] == ["torchvision/resnet50", "timm/resnet50"]
    assert [found.name for found in catalog.search("image 18")] == ["torchvision/resnet18"]
    assert [found.name for found in catalog.search(family="vision_transformer")] == ["timm/vit_tiny"]
    assert len(catalog.search()) == len(catalog) == 4
    assert catalog.search("resnet", "vision_transformer") == ()


def test_unknown_names_are_answered_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownArchitecture) as refused:
        catalog.get("resnet50")
    assert refused.value.problem().extra["nearest"][:2] == ["torchvision/resnet50", "timm/resnet50"]
    with pytest.raises(UnknownArchitecture, match="no licence"):
        catalog.get("acme/model")


def test_options_are_checked(catalog: Catalog) -> None:
    catalog.validate_options("timm/vit_tiny", {"classes": 10})
    with pytest.raises(InvalidOptions, match="classes") as refused:
        catalog.validate_options("timm/vit_tiny", {"classes": 11})
    assert refused.value.problem().extra["option"] == "classes"
    with pytest.raises(InvalidOptions, match="depth"):
        catalog.validate_options("timm/vit_tiny", {"depth": 1})
    with pytest.raises(UnknownArchitecture):
        catalog.validate_options("nothing/here", {})


def test_options_are_completed_with_defaults_and_whole_numbers() -> None:
    assert complete_options(SCHEMA, {}) == {"classes": 3}
    completed = complete_options(SCHEMA, {"classes": 4.0, "width": 2.0})
    assert completed == {"classes": 4, "width": 2}
    assert {type(value) for value in completed.values()} == {int}


def test_the_catalog_needs_no_torch() -> None:
    program = "import app.domain.catalog, app.domain.options, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
