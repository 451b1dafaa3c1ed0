"""Under what version the layouts of architectures are looked up."""

from importlib.metadata import version

import pytest
import timm
import torchvision

from app.architectures.known import known_layouts
from app.database.layouts import source_of
from tests.api.server import description


@pytest.mark.parametrize("library", [torchvision, timm])
def test_what_the_package_brings_serves_the_installed_library_however_it_was_built(library):
    brought = {(file.source, file.version) for file in known_layouts()}
    told = description(f"{library.__name__}/resnet18").model_copy(
        update={"library": library.__name__, "library_version": library.__version__}
    )
    assert (library.__name__, version(library.__name__)) in brought
    assert source_of(told) in brought
