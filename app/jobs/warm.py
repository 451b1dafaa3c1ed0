"""What the forkserver imports once, so that a conversion process starts in milliseconds instead of seconds."""

import gc

import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import timm  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401
import transformers  # noqa: F401

import app.conversion.pipeline  # noqa: F401

gc.collect()
gc.freeze()
