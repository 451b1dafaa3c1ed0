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
from app.conversion.exporters.preload import warm_exporters

tqdm.tqdm.set_lock(threading.RLock())  # its own would be a named semaphore, left behind by every child that exports
warm_exporters()
load_registry().resolve("torchvision/resnet18", {})  # reads entry points and imports what checks options
gc.collect()
gc.freeze()
