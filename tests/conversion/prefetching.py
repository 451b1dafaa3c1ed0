"""Prefetches in a process of one thread, as a conversion is when it begins one; each scenario writes a line of JSON."""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from app.conversion.prefetch import ReferencePrefetch
from app.conversion.verification.case import EagerSide, unhurried
from app.conversion.verification.eager_side import full_eager_side
from app.conversion.verification.subject import Model
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.conversions import converted
from tests.conversion.verification.subjects import IMAGES, Convolutional


class Slow(Convolutional):
    """Takes its time in another process than it was made in, so that it is still at work when it is looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def forward(self, x: Tensor) -> Tensor:
        if os.getpid() != self.home:
            time.sleep(0.5)
        return super().forward(x)


def prefetch(module: nn.Module, threads: int = 2) -> ReferencePrefetch:
    begun = ReferencePrefetch(Model(module=module, signature=IMAGES, target="onnx", seed=3, threads=threads))
    begun.begin()
    return begun


def runs(pid: int | None) -> bool:
    with suppress(ProcessLookupError, TypeError):
        os.kill(pid, 0)  # type: ignore[arg-type]
        return True
    return False


def figures(side: EagerSide) -> object:
    values = [(r.probe.name, {n: v.double().sum().item() for n, v in r.y64.items()}) for r in side.references]
    return values, side.detection.model_dump() if side.detection else None


def same_as_here() -> object:
    begun = prefetch(Convolutional())
    forked = runs(begun._pid)
    side = begun.side()
    gone, again = begun._pid is None, side.references[0].again(side.references[0].probe.inputs)
    here = full_eager_side(Model(module=Convolutional(), signature=IMAGES, target="onnx", seed=3), unhurried)
    return {
        "forked": forked,
        "gone": gone,
        "waited": "waiting" in side.seconds,
        "same": figures(side) == figures(here),
        "again": bool(torch.equal(again["y"], side.references[0].y32["y"])),
        "memory": begun.memory_bytes > 0,
    }


def killed() -> object:
    begun = prefetch(Slow())
    assert begun._pid
    os.kill(begun._pid, signal.SIGKILL)
    side = begun.side()
    return {"references": len(side.references), "waited": "waiting" in side.seconds}


def ended() -> object:
    begun = prefetch(Slow())
    pid = begun._pid
    before = runs(pid)
    begun.end()
    return {"before": before, "after": runs(pid)}


def line_is_not_held() -> object:
    """The reading end sees the end of a line as soon as this process closes its own end of it."""
    read, write = os.pipe()
    begun = prefetch(Slow())
    time.sleep(0.2)
    os.close(write)
    began = time.monotonic()
    rest = os.read(read, 1)
    still = runs(begun._pid)
    begun.end()
    return {"rest": len(rest), "seconds": round(time.monotonic() - began), "still": still}


def one_thread() -> object:
    return {"forked": prefetch(Convolutional(), threads=1)._pid is not None}


def conversion() -> object:
    with TemporaryDirectory() as directory:
        outcome = converted("        return self.last(x)", OnnxOptions(), Path(directory), threads=2)
    return {"waited": "waiting" in outcome.report.verification.timings, "verdict": outcome.report.verification.verdict}


SCENARIOS = (same_as_here, killed, ended, line_is_not_held, one_thread, conversion)


def main() -> None:
    """Each in a fork of its own: libraries start threads as they are imported, which a fork leaves behind."""
    for scenario in SCENARIOS:
        child = os.fork()
        if child == 0:
            sys.stdout.write(json.dumps([scenario.__name__, scenario()]) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
