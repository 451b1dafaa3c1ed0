"""OpenVINO's Python package, an optional extra of the installation, without its telemetry."""

import sys
from importlib import import_module
from types import ModuleType


def openvino() -> ModuleType:
    """The package. Raises ImportError where it is not installed.

    Its telemetry is a package beside it, which writes an identifier into the home directory and asks a server about
    consent as soon as a model is read. Where that package cannot be imported OpenVINO goes on without
    (openvino/tools/ovc/telemetry_utils.py).
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return import_module("openvino")
