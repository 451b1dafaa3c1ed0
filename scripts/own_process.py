"""Work in a process of its own, whose memory goes with it and whose crash ends nothing else."""

import multiprocessing
from collections.abc import Callable
from typing import Any


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives in a process of its own. Raises ChildProcessError where that ended without a word."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"the process ended with status {process.exitcode}") from None
    finally:
        process.join()
