"""What the forkserver imports once, so that a conversion process starts in milliseconds instead of seconds."""

import gc
import threading

import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import timm  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401
import tqdm  # type: ignore[import-untyped]
import transformers  # noqa: F401

import app.conversion.pipeline  # noqa: F401
from app.architectures.registry import load_registry
from app.targets.reader import reader_of
from app.targets.specs import SPECS
from app.targets.writer import writer_of

tqdm.tqdm.set_lock(threading.RLock())  # its own would be a named semaphore, left behind by every child that exports
for target in (name for name, spec in SPECS.items() if spec.installing is None):
    reader_of(target)
    writer_of(target).warm()
registry = load_registry()
for name in ("torchvision/resnet18", "timm/resnet18", "transformers/bert"):
    # Reads the entry points, and imports what checks options and what every model of the library builds on.
    registry.build(name, {})
gc.collect()
gc.freeze()
