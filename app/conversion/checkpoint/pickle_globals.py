"""Which Python objects a pickle refers to, read from its opcodes without running them."""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import BinaryIO

from app.domain.errors import PickledModule, RecastError, UnsafeCheckpoint

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}

# Library modules whose classes are layers: one of them in a pickle means that a whole model was saved.
_LAYER_MODULES = ("torch.nn.modules.", "torch.fx.graph_module", "torchvision.models.", "timm.", "transformers.models.")


def globals_of(file: BinaryIO) -> Iterator[str]:
    """Dotted names in the order in which the pickle at the file's position refers to them.

    A name built by STACK_GLOBAL from strings that were not literals is given as "?". Stops at the pickle's end or at
    its first damaged opcode.
    """
    memo: dict[int, str] = {}
    recent: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                yield _today(*str(argument).split(" ", 1))
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(recent[-2:]) if len(recent) >= 2 else "?"
            elif opcode.name in _STRINGS:
                recent.append(str(argument))
            elif opcode.name == "MEMOIZE" and recent:
                memo[len(memo)] = recent[-1]
            elif opcode.name in _PUTS and recent and argument is not None:
                memo[int(argument)] = recent[-1]
            elif opcode.name in _GETS and argument is not None and int(argument) in memo:
                recent.append(memo[int(argument)])
            del recent[:-2]
    except (ValueError, EOFError, UnicodeDecodeError, OverflowError):
        return


def _today(module: str, name: str) -> str:
    """The name as unpicklers read it: protocols 0 to 2 are written with Python 2's module names."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def refusal(unsafe: list[str], reason: str) -> RecastError:
    """The error for a pickle that needs more than tensors and plain containers.

    ``unsafe`` are the globals outside torch's allow-list, ``reason`` what the unpickler said.
    """
    layers = [name for name in unsafe if name.startswith(_LAYER_MODULES)]
    if layers:
        return PickledModule(f"The pickle rebuilds a model out of {', '.join(layers[:3])}.", unsafe_globals=unsafe)
    if not unsafe:
        return UnsafeCheckpoint(
            f"The weights-only reader refused the pickle: {reason}", hint=_RESAVE, unsafe_globals=unsafe
        )
    return UnsafeCheckpoint(
        f"The pickle refers to {', '.join(unsafe[:5])}{' ...' if len(unsafe) > 5 else ''}; Recast imports nothing that "
        "a file names.",
        hint=_RESAVE,
        unsafe_globals=unsafe,
    )


_RESAVE = (
    "Save the weights alone, on a machine that trusts the file: c = torch.load(path, weights_only=False); then "
    "torch.save(c.state_dict(), 'weights.pth') where c is a model, and torch.save(c['state_dict'], 'weights.pth') "
    "with the key under which your file keeps them where c is a dict."
)
