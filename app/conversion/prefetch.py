"""The eager side of a full verification, made in a process of its own while the exporter is at work.

An exporter is Python on one core, for seconds; what verification needs of the model alone can be had from another core
meanwhile. The process is forked, so that it shares the model's memory, and it is gone when the conversion ends.
"""

import fcntl
import os
import pickle
import resource
import select
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from app.conversion.decisions.search import Decisions, find_decisions
from app.conversion.verification.case import EagerSide, unhurried
from app.conversion.verification.eager_side import full_eager_side
from app.conversion.verification.noise import pooled
from app.conversion.verification.oracle import eager_once_more, oracle
from app.conversion.verification.subject import Model
from app.processes import end_with_parent

_PIPE = 1 << 20
"""Bytes of an answer that need not wait for its reader."""
_DESCRIPTORS = 1 << 16
"""More than any process of ours has open."""


class ReferencePrefetch:
    """``begin`` it before an exporter runs, ask for the ``side`` after, and ``end`` it in any case."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pid: int | None = None
        self._hurry = -1
        self._answer: BinaryIO | None = None
        self._side: EagerSide | None = None
        self._decisions: Decisions | None = None
        self.memory_bytes = 0
        """The most that the other process held beside what it shared when it began."""

    def begin(self) -> None:
        """Fork, once, where there is a core to spare and this process has one thread: then a fork is safe."""
        if self._side or self._pid or self._model.threads < 2 or len(list(Path("/proc/self/task").iterdir())) > 1:
            return
        told, answer = os.pipe()
        fcntl.fcntl(answer, fcntl.F_SETPIPE_SZ, _PIPE)
        self._answer = os.fdopen(told, "rb")
        hurry, self._hurry = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _prefetch(self._model, answer, hurry)
        os.close(answer)
        os.close(hurry)

    def side(self) -> EagerSide:
        """The eager side, waited for or, where no other process made it, made now. Raises as ``full_eager_side``."""
        if self._side is None and self._pid:
            self._side = self._waited_for()
        if self._side is None:
            self._side = full_eager_side(self._model, unhurried)
        return self._side

    def decisions(self) -> Decisions:
        """What the model's Python decides, waited for or, where no other process found it, found now."""
        if self._decisions is None and self._answer is not None:
            with suppress(EOFError, pickle.UnpicklingError):
                self._decisions = pickle.load(self._answer)
        if self._decisions is None:
            self._decisions = find_decisions(self._model)
        return self._decisions

    def end(self) -> None:
        """Kill the other process where it still runs, and wait until it is gone."""
        if self._pid:
            if self._answer is not None:
                self._answer.close()
                self._answer = None
            os.close(self._hurry)
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid = None

    def _waited_for(self) -> EagerSide | None:
        """What the other process made; None where it ended without. From now on it may use all threads."""
        began = time.perf_counter()
        with suppress(BrokenPipeError):
            os.write(self._hurry, b"!")
        self.decisions()
        content = self._answer.read() if self._answer is not None else b""
        self.end()
        try:
            side, self.memory_bytes = pickle.loads(content)
        except (EOFError, pickle.UnpicklingError):  # it was killed before or while it told
            return None
        again = partial(eager_once_more, self._model)
        references = [replace(taken, again=again) for taken in side.references]
        references = pooled([t if t.oracle.asked else replace(t, oracle=oracle(self._model, t)) for t in references])
        seconds = {**side.seconds, "waiting": time.perf_counter() - began}
        found: EagerSide = replace(side, references=references, seconds=seconds)
        return found


def _prefetch(model: Model, answer: int, hurry: int) -> None:
    """The other process. It ends here whatever happens."""
    try:
        end_with_parent()
        _close_all_but(answer, hurry)
        began = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

        def pace() -> bool:
            hurried = bool(select.select([hurry], [], [], 0)[0])
            if hurried:
                torch.set_num_threads(model.threads)
            return hurried

        file = os.fdopen(answer, "wb")
        pickle.dump(find_decisions(model), file)
        file.flush()
        side = full_eager_side(replace(model, threads=1), pace, ahead=True)
        portable = replace(side, references=[replace(r, again=_elsewhere, peers=()) for r in side.references])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with file:
            pickle.dump((portable, max(0, peak - began)), file)
    except BaseException:
        traceback.print_exc()  # into the child's log; the work is then done again where its error can be told
        raise
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    """The line to the supervisor above all: its end must be seen when the conversion's process dies."""
    edges = [2, *sorted(kept), _DESCRIPTORS]
    for low, high in pairwise(edges):
        os.closerange(low + 1, high)


def _elsewhere(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stands for the module, which does not travel."""
    raise NotImplementedError
