"""Warming is for a process that forks afterwards, so it runs in a process of its own here."""

import subprocess
import sys

SCRIPT = """
import os, torch
from app.targets.onnx.writing import dynamo_exporter as onnx_dynamo
from app.targets.onnx.writing.preload import warm_exporters
from app.targets.onnx.spec import OnnxOptions
from tests.targets.nets import case

request = case("lstm").request(OnnxOptions())
state, threads = torch.random.get_rng_state(), len(os.listdir("/proc/self/task"))
warm_exporters()
assert len(os.listdir("/proc/self/task")) == threads
assert torch.random.get_rng_state().equal(state)
child = os.fork()
if child == 0:
    shape = onnx_dynamo.capture(request).model.graph.inputs[0].shape
    os._exit(0 if [str(dim) for dim in shape] == ["batch", "length"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_warming_starts_no_threads_and_a_fork_exports_dynamic_sizes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
