"""examples/platform is run as its first lines say, on a service of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_internal_platform_runs_from_import_to_publication():
    command = [sys.executable, str(ROOT / "examples" / "platform" / "internal_platform.py")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    for told in (
        "told of conversion.succeeded: onnx, signature verified",
        "told of conversion.published: torchscript, signature verified",
        "published s3://models/triton/examples-digits-onnx/1/model.onnx",
        "published s3://models/triton/examples-digits-torchscript/1/model.pt",
        "statement of onnx verified",
    ):
        assert told in ran.stdout, ran.stdout
