from pathlib import Path

import pytest
import torch

from app.architectures.registry import Registry, load_registry

SAMPLES = Path(__file__).parents[1] / "plugins"


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry with the sample plug-ins."""
    return load_registry(SAMPLES)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
