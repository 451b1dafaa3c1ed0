"""Files that a stranger may send: each with the code that answers it, or None where it is read.

The groups: what a pickle may call, how a container may lie, what a tensor may claim, how names and nesting may be, and
what is no checkpoint at all.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.hostile.directories import distributions, shards
from tests.hostile.opcodes import (
    FALSE,
    FOUR,
    MAGIC,
    NONE,
    ORDERED,
    PROTOCOL,
    TRUE,
    archive,
    call,
    group,
    legacy,
    name,
    number,
    one,
    program,
    safetensors,
    stacked,
    storage,
    table,
    tensor,
    text,
)
from tests.hostile.programs import programs
from tests.hostile.raw_zips import raw_zips
from tests.hostile.sharing import sharing

Cases = dict[str, tuple[bytes, str | None]]
"""By name: the file, and the code that answers it."""


@dataclass(frozen=True)
class HostileFile:
    id: str
    make: Callable[[Path], bytes]
    """Of the canary: a file that nothing may create."""
    code: str | None


def hostile_files() -> Iterator[HostileFile]:
    yield from _gadgets()
    sources = (_pickles, _zips, _tensors, _names, _legacies, _safetensors, _foreign)
    sources += (raw_zips, shards, distributions, programs, sharing)
    for source in sources:
        for identifier, (content, code) in source().items():
            yield HostileFile(f"{source.__name__.removeprefix('_')}-{identifier}", _constant(content), code)


def _constant(content: bytes) -> Callable[[Path], bytes]:
    return lambda _: content


# --- what a pickle may call ----------------------------------------------------------------------------------------

# fmt: off
_SHELL = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "getoutput"), ("subprocess", "call"),
    ("commands", "getoutput"), ("os", "popen"), ("pty", "spawn"), ("asyncio.unix_events", "system"),
]
_PYTHON = [
    ("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("runpy", "run_path"), ("code", "interact"),
    ("timeit", "timeit"), ("pdb", "run"), ("cProfile", "run"), ("bdb", "Bdb.run"), ("doctest", "debug_script"),
    ("numpy.f2py.crackfortran", "myeval"), ("torch.jit.unsupported_tensor_ops", "execWrapper"), ("sympy", "sympify"),
    ("numpy.testing._private.utils", "runstring"), ("torch.utils.collect_env", "run"), ("pip", "main"),
]
_REACH = [
    ("builtins", "getattr"), ("builtins", "__import__"), ("importlib", "import_module"), ("operator", "methodcaller"),
    ("operator", "attrgetter"), ("functools", "partial"), ("types", "CodeType"), ("types", "FunctionType"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.jit", "load"), ("torch.serialization", "load"),
    ("pickle", "loads"), ("_pickle", "loads"), ("joblib", "load"), ("marshal", "loads"), ("ctypes", "CDLL"),
    ("urllib.request", "urlopen"), ("socket", "create_connection"), ("webbrowser", "open"), ("shutil", "rmtree"),
    ("builtins", "open"), ("io", "open"), ("pathlib", "Path.write_text"), ("logging.config", "dictConfig"),
    ("torch.distributed.rpc", "init_rpc"), ("torch.utils._config_module", "load_config"), ("copyreg", "add_extension"),
]
# fmt: on


def _gadgets() -> Iterator[HostileFile]:
    for module, attribute in (*_SHELL, *_PYTHON, *_REACH):
        for container, wrap in (("zip", archive), ("legacy", legacy)):
            identifier = f"gadget-{module}.{attribute}-{container}"
            yield HostileFile(identifier, _gadget(module, attribute, wrap), "unsafe_checkpoint")
    for identifier, form in _FORMS.items():
        yield HostileFile(f"gadget-by-{identifier}", _formed(form), "unsafe_checkpoint")


def _gadget(module: str, attribute: str, wrap: Callable[[bytes], bytes]) -> Callable[[Path], bytes]:
    return lambda canary: wrap(program(call(name(module, attribute), text(_command(module, attribute, canary)))))


def _command(module: str, attribute: str, canary: Path) -> str:
    return f"touch {canary}" if (module, attribute) in _SHELL else f"open({str(canary)!r}, 'w')"


_FORMS: dict[str, Callable[[bytes], bytes]] = {
    "stack-global": lambda command: stacked("posix", "system") + command + b"\x85R",
    "inst": lambda command: b"(" + command + b"iposix\nsystem\n",
    "obj": lambda command: b"(" + name("posix", "system") + command + b"o",
    "newobj": lambda command: name("posix", "system") + command + b"\x85\x81",
    "newobj-ex": lambda command: name("posix", "system") + command + b"\x85}\x92",
    "build-setstate": lambda command: (
        name("builtins", "object")
        + b")\x81"
        + table((text("__setstate__"), name("posix", "system")))
        + b"b"
        + command
        + b"b"
    ),
    "build-on-a-class": lambda command: name("argparse", "Namespace") + table((text("x"), command)) + b"b",
    "memo": lambda command: name("posix", "system") + b"q\x00" + b"0h\x00" + command + b"\x85R",
    "dup": lambda command: name("posix", "system") + b"2" + command + b"\x85R",
    "as-a-key": lambda command: table((call(name("posix", "system"), command), NONE)),
    "in-an-ordered-dict": lambda command: call(
        name("collections", "OrderedDict"), b"](]" + text("w") + call(name("posix", "system"), command) + b"ee"
    ),
    "in-a-hook": lambda command: call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(),
        number(0),
        group(number(4)),
        group(number(1)),
        FALSE,
        call(name("posix", "system"), command),
    ),
    "as-a-rebuilder": lambda command: call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("posix", "system"),
        name("torch", "Tensor"),
        group(command),
        table(),
    ),
    "extension-code": lambda command: b"\x82\x01" + command + b"\x85R",
    "persistent-text": lambda _: b"Pposix.system\n",
    "persistent-global": lambda command: group(text("module"), name("posix", "system"), command, NONE) + b"Q",
    "codec": lambda command: call(name("_codecs", "encode"), command, text("rot13")),
    "dotted": lambda command: stacked("torch", "os.system") + command + b"\x85R",
    "computed-name": lambda command: text("posix") + b"]" + b"\x93" + command + b"\x85R",
}


def _formed(form: Callable[[bytes], bytes]) -> Callable[[Path], bytes]:
    return lambda canary: archive(program(form(text(f"touch {canary}"))))


# --- what else a pickle may be -------------------------------------------------------------------------------------


def _pickles() -> Cases:
    tensor_class = name("torch", "Tensor")
    doubling = b"K\x00" + b"2\x86" * 60
    return {
        "uninitialised-reduce": (archive(one(call(tensor_class, number(64), number(64)))), "unsafe_checkpoint"),
        "uninitialised-newobj": (archive(one(tensor_class + group(number(64)) + b"\x81")), "unsafe_checkpoint"),
        "uninitialised-float": (archive(one(call(name("torch", "FloatTensor"), number(64)))), "unsafe_checkpoint"),
        "uninitialised-obj": (archive(one(b"(" + tensor_class + number(9) + b"o")), "unsafe_checkpoint"),
        "uninitialised-storage": (archive(one(call(name("torch", "FloatStorage"), number(9)))), "unsafe_checkpoint"),
        "uninitialised-parameter": (
            archive(
                one(call(name("torch._utils", "_rebuild_parameter"), call(tensor_class, number(9)), FALSE, ORDERED))
            ),
            "unsafe_checkpoint",
        ),
        "uninitialised-legacy": (legacy(one(call(tensor_class, number(64)))), "unsafe_checkpoint"),
        "long-name": (archive(program(name("m", "x" * 200_000))), "unsafe_checkpoint"),
        "long-name-stacked": (archive(program(stacked("m", "x" * 200_000))), "unsafe_checkpoint"),
        "nul-name": (archive(program(name("m", "a\0b"))), "unsafe_checkpoint"),
        "surrogate-name": (archive(program(b"\x8c\x01m" + text(b"\xed\xa0\x80") + b"\x93")), "unsafe_checkpoint"),
        "escape-name": (archive(program(name("m", "\x1b[31mred"))), "unsafe_checkpoint"),
        "own-class": (
            archive(
                program(
                    table(
                        (text("cfg"), call(name("__main__", "Config"))),
                    )
                )
            ),
            "unsafe_checkpoint",
        ),
        "layer": (archive(program(name("torch.nn.modules.linear", "Linear") + b")\x81")), "pickled_module"),
        "empty": (archive(b""), "corrupt_checkpoint"),
        "protocol-alone": (archive(PROTOCOL), "corrupt_checkpoint"),
        "stop-alone": (archive(b"\x80\x02."), "corrupt_checkpoint"),
        "no-stop": (archive(PROTOCOL + b"}"), "corrupt_checkpoint"),
        "unknown-opcode": (archive(program(b"\xff")), "corrupt_checkpoint"),
        "stack-underflow": (archive(program(b"R")), "corrupt_checkpoint"),
        "mark-missing": (archive(program(b"t")), "corrupt_checkpoint"),
        "memo-missing": (archive(program(b"h\x07")), "corrupt_checkpoint"),
        "memo-far": (archive(program(b"Nr\xff\xff\xff\xff")), "corrupt_checkpoint"),
        "string-beyond": (archive(PROTOCOL + b"X\xff\xff\xff\xff"), "corrupt_checkpoint"),
        "string-huge": (archive(PROTOCOL + b"\x8d" + b"\xff" * 8), "corrupt_checkpoint"),
        "long-integer": (archive(program(b"\x8b" + struct.pack("<I", 1 << 20) + bytes(1 << 20))), "corrupt_checkpoint"),
        "odd-pairs": (archive(program(b"}(Nu")), "corrupt_checkpoint"),
        "append-to-number": (archive(program(b"K\x01Na")), "corrupt_checkpoint"),
        "call-a-number": (archive(program(b"K\x01)R")), "unsafe_checkpoint"),
        "call-without-tuple": (archive(program(name("torch", "Size") + b"NR")), "unsafe_checkpoint"),
        "call-a-dtype": (archive(program(call(name("torch", "float32")))), "unsafe_checkpoint"),
        "buffer": (archive(program(b"\x97")), "unsafe_checkpoint"),
        "opcodes": (archive(PROTOCOL + b"(" + b"N" * 5_000_001 + b"t."), "payload_too_large"),
        "doubling-key": (archive(program(b"}" + doubling + b"Ns")), "no_state_dict"),
        "doubling-value": (archive(program(table((text("a"), doubling)))), "no_state_dict"),
        "colliding-keys": (
            archive(program(table(*((number(step * ((1 << 61) - 1)), NONE) for step in range(1, 20_000))))),
            "no_state_dict",
        ),
        "deep-dicts": (archive(PROTOCOL + b"}X\x01\0\0\0a" * 100_000 + b"N" + b"s" * 100_000 + b"."), "no_state_dict"),
        "deep-tuples": (archive(PROTOCOL + b")" + b"\x85" * 500_000 + b"."), "no_state_dict"),
        "itself": (archive(program(b"}q\x00" + text("a") + b"h\x00s")), "no_state_dict"),
        "list-in-itself": (archive(program(b"]q\x00h\x00a")), "no_state_dict"),
        "second-pickle": (archive(one(tensor()) + program(name("posix", "system"))), None),
        "namespace-after": (
            archive(
                program(
                    table(
                        (text("model"), table((text("w"), tensor()))),
                        (text("args"), name("argparse", "Namespace") + b")\x81" + table() + b"b"),
                    )
                )
            ),
            None,
        ),
        "root-namespace": (archive(program(name("argparse", "Namespace") + b")\x81")), "no_state_dict"),
        "shadowed-items": (
            archive(program(ORDERED + text("w") + tensor() + b"s" + table((text("items"), NONE)) + b"b")),
            None,
        ),
        "shadowed-detach": (
            archive(
                one(
                    call(name("torch._utils", "_rebuild_parameter"), tensor(), FALSE, ORDERED)
                    + table((text("detach"), NONE))
                    + b"b"
                )
            ),
            None,
        ),
        "state-of-a-list": (archive(program(b"]}b")), "unsafe_checkpoint"),
        "state-of-a-tensor": (archive(one(tensor() + table((text("data"), NONE)) + b"b")), None),
        "digits": (archive(program(b"L" + b"9" * 4_000_000 + b"L\n")), "corrupt_checkpoint"),
        "digits-of-another-script": (archive(program("I\u0663\n".encode())), "corrupt_checkpoint"),
        "integer-with-underscores": (archive(program(b"I1_0\n")), "no_state_dict"),
        "float-no-number": (archive(program(b"Fnan\n")), "no_state_dict"),
        "escapes": (archive(program(b"S'\\x6\n")), "corrupt_checkpoint"),
        "escaped-surrogate": (archive(program(b"}V\\ud800\n" + tensor() + b"s")), "unsupported_tensor"),
        "frame-beyond": (archive(PROTOCOL + b"\x95" + b"\xff" * 8 + one(tensor())[2:]), None),
        "memo-by-text": (archive(program(b"Np99999999999999999999\n")), "corrupt_checkpoint"),
        "memo-flood": (archive(program(b"N" + b"\x94" * 1_000_000)), "no_state_dict"),
        "marks": (archive(program(b"(" * 1_000_000)), "corrupt_checkpoint"),
        "doubled-list": (archive(program(b"]q\x00" + b"(h\x00h\x00e" * 200_000)), "no_state_dict"),
        "set-of-itself": (archive(program(b"\x8fq\x00(h\x00\x90")), "no_state_dict"),
        "dict-of-pairs": (archive(program(b"(" + text("w") + tensor() + b"d")), None),
        "class-by-lines": (archive(program(b"(" + text("id") + b"iposix\nsystem\n")), "unsafe_checkpoint"),
        "keywords": (
            archive(program(name("posix", "system") + group(text("id")) + table() + b"\x92")),
            "unsafe_checkpoint",
        ),
        "name-over-two-lines": (archive(program(b"cos\nsystem\ntouch\n")), "unsafe_checkpoint"),
        "name-of-a-rebuilder-within": (
            archive(program(name("torch._utils", "_rebuild_tensor_v2.__globals__"))),
            "unsafe_checkpoint",
        ),
        "call-a-storage": (archive(program(call(storage(), text("id")))), "unsafe_checkpoint"),
    }


# --- how a zip may lie ---------------------------------------------------------------------------------------------


def _zips() -> Cases:
    good = archive(one(tensor()))
    directory = good.rindex(b"PK\x01\x02")
    compressed = archive(one(tensor()), compression=zipfile.ZIP_DEFLATED)
    cases: Cases = {
        f"cut-{share}": (good[: len(good) * share // 100], "corrupt_checkpoint") for share in (10, 30, 50, 70, 90, 99)
    }
    return cases | {
        "good": (good, None),
        "trailing-comment": (good[:-2] + b"\x05\x00hello", None),
        "prefix": (b"PK\x03\x04" + b"x" * 100 + good, "corrupt_checkpoint"),
        "appended-archive": (good + archive(one(tensor(size=(2,)))), "corrupt_checkpoint"),
        "compressed": (compressed, "corrupt_checkpoint"),
        "bomb": (
            archive(one(tensor()), {"0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED),
            "corrupt_checkpoint",
        ),
        "encrypted": (
            good.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
            "corrupt_checkpoint",
        ),
        "duplicate": (_duplicate(), "corrupt_checkpoint"),
        "two-roots": (archive(one(tensor()), extra={"other/data.pkl": one(tensor())}), "corrupt_checkpoint"),
        "member-without-name": (good.replace(b"archive/version", b"\0rchive/version"), "corrupt_checkpoint"),
        "absolute": (archive(one(tensor()), extra={"/etc/passwd": b"x"}), "corrupt_checkpoint"),
        "traversal": (archive(one(tensor()), extra={"archive/../../x": b"x"}), "corrupt_checkpoint"),
        "no-pickle": (archive(None), "corrupt_checkpoint"),
        "no-storage": (archive(one(tensor()), {"7": b"x"}), "corrupt_checkpoint"),
        "short-storage": (archive(one(tensor()), {"0": bytes(8)}), "corrupt_checkpoint"),
        "long-storage": (archive(one(tensor()), {"0": bytes(64)}), "corrupt_checkpoint"),
        "empty-storage": (archive(one(tensor()), {"0": b""}), "corrupt_checkpoint"),
        "storage-key-up": (archive(one(tensor(storage("../data.pkl"))), FOUR), "corrupt_checkpoint"),
        "byteorder-odd": (archive(one(tensor()), byteorder=b"middle"), "corrupt_checkpoint"),
        "byteorder-big-lie": (archive(one(tensor()), {"0": bytes(8)}, byteorder=b"big"), "corrupt_checkpoint"),
        "byteorder-missing": (archive(one(tensor()), byteorder=None), None),
        "byteorder-big": (archive(one(tensor()), byteorder=b"big"), None),
        "header-name": (good.replace(b"archive/data/0", b"archive/data/1", 1), "corrupt_checkpoint"),
        "directory-offset": (_patched(good, directory + 42, b"\xff\xff\xff\x7f"), "corrupt_checkpoint"),
        "directory-size": (_patched(good, good.index(b"PK\x01\x02") + 24, b"\xff\xff\xff\x7f"), "corrupt_checkpoint"),
        "zip64-lie": (_patched(good, good.index(b"PK\x01\x02") + 20, b"\xff" * 8), "corrupt_checkpoint"),
        "overlap": (_overlap(good), "corrupt_checkpoint"),
        "many-records": (archive(one(tensor()), extra={f"archive/x/{index}": b"" for index in range(20_000)}), None),
        "directory-count": (_patched(good, good.rindex(b"PK\x05\x06") + 10, b"\xff\xff"), None),
        "end-alone": (b"PK\x03\x04" + good[good.rindex(b"PK\x05\x06") :], "corrupt_checkpoint"),
        "a-zip": (_zip_of({"readme.txt": b"hello"}), "unsupported_format"),
        "an-empty-zip": (_zip_of({}), "unsupported_format"),
        "npz": (_npz(), "unsupported_format"),
        "torchscript": (_torchscript(), None),
        "frozen-torchscript": (_torchscript(torch.jit.freeze), "already_torchscript"),
        "torchscript-without-storage": (_without(_torchscript(), "data/0"), "corrupt_checkpoint"),
        "pt2-without-table": (_pt2(), "corrupt_checkpoint"),
    }


def _patched(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


def _duplicate() -> bytes:
    content = archive(one(tensor()), {"0": FOUR["0"], "1": bytes(16)})
    return content.replace(b"archive/data/1", b"archive/data/0")


def _overlap(good: bytes) -> bytes:
    """The storage's entry in the directory leads to data.pkl's bytes."""
    entry = good.index(b"archive/data/0", good.index(b"PK\x01\x02")) - 46
    return _patched(good, entry + 42, bytes(4))


def _zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for member, content in members.items():
            opened.writestr(member, content)
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


def _torchscript(changed: Callable[[torch.jit.ScriptModule], torch.jit.ScriptModule] = lambda module: module) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(changed(torch.jit.script(torch.nn.Linear(2, 2).eval())), stream)
    return stream.getvalue()


def _without(content: bytes, record: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return _zip_of({n: opened.read(n) for n in opened.namelist() if not n.endswith(f"/{record}")})


def _pt2() -> bytes:
    return _zip_of({"m/archive_format": b"pt2", "m/models/model.json": b"{}", "m/byteorder": b"little"})


# --- what a tensor may claim ---------------------------------------------------------------------------------------


def _tensors() -> Cases:
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
        "too-large": ((1_000_000,), (1,), 0),
        "huge": ((2**40,), (1,), 0),
        "overflowing": ((2**40, 2**40), (1, 1), 0),
        "beyond-64-bits": ((2**70,), (1,), 0),
        "negative-size": ((-4,), (1,), 0),
        "negative-stride": ((4,), (-1,), 3),
        "negative-offset": ((4,), (1,), -1),
        "offset": ((4,), (1,), 1),
        "offset-far": ((1,), (1,), 2**61),
        "stride": ((2, 2), (3, 1), 0),
        "expanded": ((10**5, 10**5), (0, 0), 0),
        "strides-missing": ((2, 2), (1,), 0),
        "many-dimensions": ((1,) * 100, (1,) * 100, 0),
    }
    cases: Cases = {}
    for identifier, (size, stride, offset) in shapes.items():
        cases[identifier] = (archive(one(tensor(size=size, stride=stride, offset=offset))), "corrupt_checkpoint")
        old = one(tensor(storage(legacy=True), size=size, stride=stride, offset=offset))
        cases[f"{identifier}-legacy"] = (legacy(old, {"0": (4, FOUR["0"])}), "corrupt_checkpoint")
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return cases | {
        "size-no-tuple": (
            archive(one(call(rebuild, storage(), number(0), NONE, NONE, FALSE, ORDERED))),
            "corrupt_checkpoint",
        ),
        "size-of-text": (
            archive(one(call(rebuild, storage(), number(0), group(text("4")), group(number(1)), FALSE, ORDERED))),
            "corrupt_checkpoint",
        ),
        "size-of-booleans": (
            archive(one(call(rebuild, storage(), number(0), group(b"\x88"), group(number(1)), FALSE, ORDERED))),
            "corrupt_checkpoint",
        ),
        "storage-no-storage": (
            archive(one(call(rebuild, NONE, number(0), group(number(4)), group(number(1)), FALSE, ORDERED))),
            "corrupt_checkpoint",
        ),
        "arguments-missing": (archive(one(call(rebuild, storage()))), "corrupt_checkpoint"),
        "storage-type": (archive(one(tensor(storage(kind="Size")))), "corrupt_checkpoint"),
        "storage-type-two": (
            archive(program(table((text("a"), tensor()), (text("b"), tensor(storage(kind="IntStorage")))))),
            "corrupt_checkpoint",
        ),
        "storage-negative": (archive(one(tensor(storage(numel=-1)))), "corrupt_checkpoint"),
        "storage-huge": (archive(one(tensor(storage(numel=2**50)))), "corrupt_checkpoint"),
        "storage-size-two": (
            archive(program(table((text("a"), tensor()), (text("b"), tensor(storage(numel=8)))))),
            "corrupt_checkpoint",
        ),
        "quantized": (
            archive(one(tensor(storage(kind="QInt8Storage")))),
            "corrupt_checkpoint",
        ),
        "quantized-dtype": (archive(one(tensor(storage(kind="QInt8Storage", numel=16)))), "unsupported_tensor"),
        "sparse": (
            archive(one(call(name("torch._utils", "_rebuild_sparse_tensor"), NONE, NONE))),
            "unsupported_tensor",
        ),
        "nested": (archive(one(call(name("torch._utils", "_rebuild_nested_tensor"), NONE))), "unsupported_tensor"),
        "meta": (
            archive(one(call(name("torch._utils", "_rebuild_meta_tensor_no_storage"), NONE))),
            "unsupported_tensor",
        ),
        "wrapper": (archive(one(call(name("torch._utils", "_rebuild_wrapper_subclass"), NONE))), "unsupported_tensor"),
        "conjugate": (
            archive(
                one(
                    call(
                        rebuild,
                        storage(kind="ComplexFloatStorage", numel=2),
                        number(0),
                        group(number(2)),
                        group(number(1)),
                        FALSE,
                        ORDERED,
                        table((text("conj"), b"\x88")),
                    )
                )
            ),
            "unsupported_tensor",
        ),
        "device-of-numpy": (
            archive(one(call(name("torch._utils", "_rebuild_device_tensor_from_numpy"), NONE, NONE, NONE, FALSE))),
            "unsupported_tensor",
        ),
        "tied": (archive(program(table((text("a"), tensor()), (text("b"), tensor())))), None),
        "overlapping": (archive(one(tensor(size=(3, 2), stride=(1, 1)))), None),
        "offset-boolean": (
            archive(one(call(rebuild, storage(), TRUE, group(number(1)), group(number(1)), FALSE, ORDERED))),
            "corrupt_checkpoint",
        ),
        "storage-of-objects": (archive(one(tensor(storage(kind="UntypedStorage")))), "corrupt_checkpoint"),
        "storage-key-number": (archive(one(tensor(storage(key="0/../0")))), "corrupt_checkpoint"),
        "size-of-a-class": (
            archive(
                one(
                    call(
                        rebuild,
                        storage(),
                        number(0),
                        call(name("torch", "Size"), group(number(-1))),
                        group(number(1)),
                        FALSE,
                        ORDERED,
                    )
                )
            ),
            "corrupt_checkpoint",
        ),
        "parameter-of-a-parameter": (
            archive(one(call(name("torch._utils", "_rebuild_parameter"), text("w"), FALSE, ORDERED))),
            "unsafe_checkpoint",
        ),
        "no-elements": (archive(one(tensor(size=(0, 2**40), stride=(1, 1)))), None),
        "not-finite": (archive(one(tensor()), {"0": struct.pack("<4f", float("nan"), float("inf"), 0, 1)}), None),
        "optimizer-lies": (
            archive(
                program(
                    table(
                        (text("model"), table((text("w"), tensor()))),
                        (text("optimizer"), table((text("m"), tensor(size=(10**6,))))),
                    )
                )
            ),
            None,
        ),
    }


# --- names and nesting ---------------------------------------------------------------------------------------------


def _names() -> Cases:
    model = table((text("w"), tensor()))
    return {
        "nul": (archive(one(tensor(), "a\0b")), "unsupported_tensor"),
        "surrogate": (archive(one(tensor(), b"a\xed\xa0\x80b")), "unsupported_tensor"),
        "long": (archive(one(tensor(), "k" * 5_000_000)), "unsupported_tensor"),
        "longest": (archive(one(tensor(), "k" * (70 << 20))), "payload_too_large"),
        "long-multibyte": (archive(one(tensor(), "\N{SNOWMAN}" * 400)), "unsupported_tensor"),
        "nul-above": (archive(program(table((text("a\0"), model)))), "unsupported_tensor"),
        "not-utf-8": (archive(one(tensor(), b"\xff\xfe")), "corrupt_checkpoint"),
        "newline": (archive(one(tensor(), "a\nb")), None),
        "emoji": (archive(one(tensor(), "\N{PILE OF POO}")), None),
        "path": (archive(one(tensor(), "../../etc/passwd")), None),
        "markup": (archive(one(tensor(), "<script>alert(1)</script>")), None),
        "right-to-left": (archive(one(tensor(), "\u202egpj.exe")), None),
        "empty": (archive(one(tensor(), "")), None),
        "numbers": (archive(program(table((number(1), tensor())))), "no_state_dict"),
        "tuples": (archive(program(table((group(number(1)), tensor())))), "no_state_dict"),
        "tensors": (archive(program(table((tensor(), tensor())))), "no_state_dict"),
        "empty-dict": (archive(program(b"}")), "no_state_dict"),
        "list": (archive(program(b"](" + tensor() + b"e")), "no_state_dict"),
        "tensor": (archive(program(tensor())), "no_state_dict"),
        "number": (archive(program(b"K\x01")), "no_state_dict"),
        "two": (
            archive(program(table((text("model"), model), (text("ema"), table((text("v"), tensor(size=(2,)))))))),
            "ambiguous_checkpoint",
        ),
        "too-many": (
            archive(
                program(
                    tensor() + b"q\x01" + b"0}(" + b"".join(text(f"k{i}") + b"h\x01" for i in range(100_001)) + b"u"
                )
            ),
            "payload_too_large",
        ),
        "module-stack": (archive(one(tensor(), "module." * 146)), None),
        "cycle-beside": (archive(program(b"}q\x00(" + text("self") + b"h\x00" + text("model") + model + b"u")), None),
        "twenty-deep": (
            archive(program(b"".join(b"}" + text("a") for _ in range(20)) + model + b"s" * 20)),
            "no_state_dict",
        ),
    }


# --- the legacy format ---------------------------------------------------------------------------------------------


def _legacies() -> Cases:
    body = one(tensor(storage(legacy=True)))
    held = {"0": (4, FOUR["0"])}
    good = legacy(body, held)
    view = (
        group(
            text("storage"),
            name("torch", "FloatStorage"),
            text("0"),
            text("cpu"),
            number(4),
            group(text("v"), number(3), number(4)),
        )
        + b"Q"
    )
    return {
        "good": (good, None),
        "cut": (good[:-4], "corrupt_checkpoint"),
        "cut-pickle": (good[: good.index(b"FloatStorage")], "corrupt_checkpoint"),
        "trailing": (good + b"more", None),
        "magic": (legacy(body, held, magic=MAGIC + 1), "unsupported_format"),
        "storage-grows": (legacy(body, {"0": (1_000_000, FOUR["0"])}), "corrupt_checkpoint"),
        "storage-shrinks": (legacy(body, {"0": (1, FOUR["0"])}), "corrupt_checkpoint"),
        "storage-negative": (legacy(body, {"0": (-1, FOUR["0"])}), "corrupt_checkpoint"),
        "storage-missing": (legacy(body, {}), "corrupt_checkpoint"),
        "storage-unknown": (legacy(body, {"9": (4, FOUR["0"])}), "corrupt_checkpoint"),
        "storage-twice": (legacy(body, held, keys=["0", "0"]) + good[-24:], "corrupt_checkpoint"),
        "keys-no-list": (legacy(body, held, keys=3), "corrupt_checkpoint"),
        "keys-of-lists": (legacy(body, held, keys=[["0"]]), "corrupt_checkpoint"),
        "keys-gadget": (
            legacy(body)[: -len(pickle.dumps([], protocol=2))] + program(call(name("posix", "system"), text("id"))),
            "unsafe_checkpoint",
        ),
        "view-beyond": (legacy(one(tensor(view)), held), "corrupt_checkpoint"),
        "persistent-module": (legacy(program(group(text("module"), NONE, NONE, NONE) + b"Q")), "unsafe_checkpoint"),
        "persistent-number": (legacy(program(number(1) + b"Q")), "unsafe_checkpoint"),
        "tar-inside": (_patched(good + bytes(512), 257, b"ustar"), None),
    }


# --- safetensors ---------------------------------------------------------------------------------------------------

_F32: dict[str, Any] = {"dtype": "F32", "shape": [2]}


def _entry(begin: int, end: int, **other: Any) -> dict[str, Any]:
    return {**_F32, "data_offsets": [begin, end], **other}


def _safetensors() -> Cases:
    corrupt: dict[str, bytes] = {
        "short": safetensors({"a": _entry(0, 8)}, bytes(4)),
        "trailing": safetensors({"a": _entry(0, 8)}, bytes(12)),
        "overlap": safetensors({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12)),
        "hole": safetensors({"a": _entry(0, 8), "b": _entry(12, 20)}, bytes(20)),
        "hole-first": safetensors({"a": _entry(4, 12)}, bytes(12)),
        "reversed": safetensors({"a": _entry(8, 0)}, bytes(8)),
        "negative": safetensors({"a": _entry(-8, 0)}, bytes(8)),
        "size": safetensors({"a": _entry(0, 4)}, bytes(4)),
        "fraction": safetensors({"a": _entry(0, 8, shape=[2.0])}, bytes(8)),
        "boolean": safetensors({"a": _entry(0, 4, shape=[True])}, bytes(4)),
        "negative-shape": safetensors({"a": _entry(0, 8, shape=[-1, -2])}, bytes(8)),
        "dtype": safetensors({"a": _entry(0, 8, dtype="F99")}, bytes(8)),
        "dtype-list": safetensors({"a": _entry(0, 8, dtype=["F32"])}, bytes(8)),
        "overflow": safetensors({"a": _entry(0, 8, shape=[2**62, 8])}, bytes(8)),
        "dimensions": safetensors({"a": _entry(0, 4, shape=[1] * 100)}, bytes(4)),
        "member-missing": safetensors({"a": _F32}, bytes(8)),
        "member-more": safetensors({"a": _entry(0, 8, more=1)}, bytes(8)),
        "entry-list": safetensors({"a": []}),
        "metadata-number": safetensors({"a": _entry(0, 8), "__metadata__": {"x": 1}}, bytes(8)),
        "metadata-list": safetensors({"a": _entry(0, 8), "__metadata__": []}, bytes(8)),
        "duplicate": safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "json": safetensors(b'{"a":', bytes(8)),
        "deep": safetensors(b'{"a":' + b"[" * 100_000),
        "list-bomb": safetensors(b'{"a":[' + b"[]," * 2_500_000 + b"[]]}"),
        "not-utf-8": safetensors(b'{"\xff":1}'),
        "length-beyond": safetensors({"a": _entry(0, 8)}, bytes(8), length=10**6),
        "length-enormous": safetensors({"a": _entry(0, 8)}, bytes(8), length=2**63),
        "exponent": safetensors(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', bytes(4)),
        "digits": safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"1" * 100_000 + b'],"data_offsets":[0,4]}}', bytes(4)
        ),
        "not-a-number": safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
        "duplicate-by-escape": safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "duplicate-member": safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', bytes(4)
        ),
        "offsets-text": safetensors({"a": {**_F32, "data_offsets": ["0", "8"]}}, bytes(8)),
        "offsets-three": safetensors({"a": {**_F32, "data_offsets": [0, 4, 8]}}, bytes(8)),
        "offsets-unaligned": safetensors(
            {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": _entry(1, 8)}, bytes(8)
        ),
        "offsets-far": safetensors({"a": _entry(2**61, 2**61 + 8)}, bytes(8)),
        "empty-far": safetensors({"a": _entry(0, 8), "b": _entry(99, 99, shape=[0])}, bytes(8)),
        "shape-table": safetensors({"a": _entry(0, 8, shape={"0": 2})}, bytes(8)),
        "dtype-lower": safetensors({"a": _entry(0, 8, dtype="f32")}, bytes(8)),
        "two-roots": safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}{}', bytes(4)),
        "infinite": safetensors(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', bytes(4)),
    }
    cases: Cases = {key: (content, "corrupt_checkpoint") for key, content in corrupt.items()}
    many = json.dumps({f"k{i}": _entry(0, 0, shape=[0]) for i in range(100_001)}).encode()
    return cases | {
        "good": (safetensors({"a": _entry(0, 8)}, bytes(8)), None),
        "no-tensors": (safetensors({}), "no_state_dict"),
        "nul": (safetensors({"a\0b": _entry(0, 8)}, bytes(8)), "unsupported_tensor"),
        "surrogate": (
            safetensors(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
            "unsupported_tensor",
        ),
        "long-key": (safetensors({"k" * 2_000: _entry(0, 8)}, bytes(8)), "unsupported_tensor"),
        "many": (safetensors(many), "payload_too_large"),
        "large-header": (safetensors(b'{"a":1' + b" " * (33 << 20) + b"}"), "payload_too_large"),
        "metadata-large": (
            safetensors({"a": _entry(0, 8), "__metadata__": {"format": "x" * 2_000_000}}, bytes(8)),
            None,
        ),
        "packed": (safetensors({"a": _entry(0, 1, dtype="F4")}, bytes(1)), "unsupported_tensor"),
        "float8": (safetensors({"a": _entry(0, 2, dtype="F8_E4M3")}, bytes(2)), None),
        "empty-tensor": (safetensors({"a": _entry(0, 0, shape=[0, 5])}), None),
        "empty-of-a-huge-shape": (safetensors({"a": _entry(0, 0, shape=[2**61, 2**61, 0])}), "corrupt_checkpoint"),
        "unaligned": (
            safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": _entry(1, 9)}, bytes(9)),
            None,
        ),
        "metadata-twice": (
            safetensors(
                b'{"__metadata__":{"x":"1","x":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
            ),
            "corrupt_checkpoint",
        ),
        "metadata-surrogate": (
            safetensors(
                b'{"__metadata__":{"format":"\\ud800"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
            ),
            None,
        ),
        "byte-order-mark": (
            safetensors(b'\xef\xbb\xbf{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
            "unsupported_format",
        ),
    }


# --- what is no checkpoint -----------------------------------------------------------------------------------------


def _foreign() -> Cases:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member in ("pickle", "storages", "tensors"):
            tar.addfile(tarfile.TarInfo(member))
    foreign = {
        "html": b"<!DOCTYPE html><html>",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(20),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(20),
        "gzip": gzip.compress(b"weights"),
        "tar": stream.getvalue(),
        "pickle": pickle.dumps({"w": [1.0]}, protocol=4),
        "pickle-gadget": program(call(name("posix", "system"), text("id"))),
        "text": b"epoch 1 loss 0.5\n" * 9,
        "json": b'{"weights": [1, 2]}',
        "random": bytes(range(256)) * 20,
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid",
        "gguf": b"GGUF" + bytes(20),
        "one-byte": b"\x80",
        "zeros": bytes(1000),
        "numpy": b"\x93NUMPY\x01\x00" + bytes(20),
        "elf": b"\x7fELF" + bytes(20),
    }
    cases: Cases = {key: (content, "unsupported_format") for key, content in foreign.items()}
    return cases | {"empty": (b"", "empty_file")}
