"""Versions of what shapes an artifact, read from package metadata without importing any of it."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGE = "recast-service"
SHAPING_LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "safetensors",
    "openvino",
)
"""Libraries whose version can change an artifact or its verdict."""


@cache
def service_version() -> str:
    return version(PACKAGE) if _installed(PACKAGE) else "0.0.0+source"


@cache
def library_versions() -> dict[str, str]:
    """Version of each shaping library that is installed here, and of Python."""
    found = {name: version(name) for name in SHAPING_LIBRARIES if _installed(name)}
    return {"python": platform.python_version(), **found}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
