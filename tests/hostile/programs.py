"""Programs that a stranger may send as sources of weights: TorchScript archives and torch.export's, forged.

Each with the code that answers it, or None where it is read.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from tests.hostile.opcodes import FOUR, NONE, archive, call, name, number, program, storage, table, tensor, text

Cases = dict[str, tuple[bytes, str | None]]

CODE = {
    "archive/code/__torch__.py": b"import os\nos.system('touch canary')\n" * 10,
    "archive/constants.pkl": b"\x80\x02).",
}
TABLE = "m/data/weights/model_weights_config.json"
MADE = name("__torch__", "M") + b")\x81"
SYSTEM = name("os", "system")
TAG = name("torch.jit._pickle", "restore_type_tag")
FLOAT = 7
"""Number of float32 in torch._export.serde.schema.ScalarType."""


def module(*state: tuple[bytes, bytes], called: str = "M") -> bytes:
    """An object of a class of the archive's own code, with this state."""
    return name("__torch__", called) + b")\x81" + table(*state) + b"b"


def script(body: bytes, records: Mapping[str, bytes] = FOUR, **extra: bytes) -> bytes:
    return archive(program(body), records, extra={**CODE, **extra})


def programs() -> Cases:
    return {f"script-{key}": case for key, case in _scripts().items()} | {
        f"exported-{key}": case for key, case in _exported().items()
    }


def _scripts() -> Cases:
    good = module((text("w"), tensor()))
    return {
        "good": (script(good), None),
        "shared-without-end": (script(_doubled(60)), "payload_too_large"),
        "shared": (script(_doubled(4)), None),
        "wide-and-deep": (script(_wide(60)), "payload_too_large"),
        "nested": (script(_nested(400, "m")), "corrupt_checkpoint"),
        "long-path": (script(_nested(100, "m" * 1000)), "unsupported_tensor"),
        "itself": (script(MADE + b"q\x01" + table((text("w"), b"h\x01")) + b"b"), "corrupt_checkpoint"),
        "name-not-text": (script(module((number(5), tensor()))), None),
        "name-of-surrogates": (script(module((text(b"\xed\xa0\x80"), tensor()))), "unsupported_tensor"),
        "state-no-table": (script(MADE + text("x") + b"b"), "already_torchscript"),
        "gadget-below": (script(module((text("w"), call(SYSTEM, text("touch canary"))))), "unsafe_checkpoint"),
        "class-of-os": (script(call(name("__torch__.os", "system"), text("touch canary"))), "already_torchscript"),
        "class-of-nothing": (script(call(name("__torch__x", "M"))), "unsafe_checkpoint"),
        "tag": (script(module((text("w"), call(TAG, tensor(), text("__import__('os')"))))), "already_torchscript"),
        "short-storage": (script(good, {"0": bytes(3)}), "corrupt_checkpoint"),
        "constants-a-bomb": (
            archive(program(good), extra={**CODE, "archive/constants.pkl": b"\x80\x02" + b"(" * 5_000_000}),
            None,
        ),
        "code-up": (script(good, **{"archive/code/../../../etc/cron.d/x": b"x"}), "corrupt_checkpoint"),
        "code-a-bomb": (_deflated(program(good), bytes(200 << 20)), None),
        "code-encrypted": (
            script(good).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
            "corrupt_checkpoint",
        ),
        "no-pickle": (archive(None, extra=CODE), "payload_too_large"),
        "weights-in-code": (script(module((text("w"), tensor(storage("../code/__torch__.py"))))), "corrupt_checkpoint"),
    }


def _doubled(levels: int) -> bytes:
    """Each module has the one before it twice: 2^levels paths lead to one tensor."""
    body = module((text("w"), tensor())) + b"q\x00"
    for level in range(1, levels + 1):
        before = b"h" + bytes([level - 1])
        body += module((text("a"), before), (text("b"), before)) + b"q" + bytes([level])
    return body


def _wide(levels: int) -> bytes:
    """Each module has the one before it, and then twenty thousand attributes of nothing."""
    nothing = [(text(f"n{number}"), NONE) for number in range(20_000)]
    body = module((text("w"), tensor()))
    for _ in range(levels):
        body = module((text("a"), body), *nothing)
    return body


def _nested(levels: int, key: str) -> bytes:
    body = tensor()
    for _ in range(levels):
        body = module((text(key), body))
    return body


def _deflated(pickled: bytes, code: bytes) -> bytes:
    """Code that is compressed two hundred times over; the rest lies as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("archive/data.pkl", pickled)
        opened.writestr("archive/byteorder", b"little")
        opened.writestr("archive/data/0", FOUR["0"])
        opened.writestr("archive/constants.pkl", CODE["archive/constants.pkl"])
        opened.writestr("archive/code/__torch__.py", code, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def weight(path: Any = "weight_0", **meta: Any) -> dict[str, Any]:
    described = {
        "dtype": FLOAT,
        "sizes": [{"as_int": 4}],
        "strides": [{"as_int": 1}],
        "storage_offset": {"as_int": 0},
        **meta,
    }
    return {"path_name": path, "is_param": True, "use_pickle": False, "tensor_meta": described}


def exported(config: object, records: Mapping[str, bytes] | None = None, **others: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("m/archive_format", b"pt2")
        opened.writestr("m/byteorder", b"little")
        opened.writestr("m/models/model.json", b'{"graph": "os.system(\'touch canary\')"}')
        opened.writestr(TABLE, config if isinstance(config, bytes) else json.dumps({"config": config}))
        for key, content in (records or {"weight_0": FOUR["0"]}).items():
            opened.writestr(f"m/data/weights/{key}", content)
        for key, content in others.items():
            opened.writestr(key, content)
    return stream.getvalue()


def _exported() -> Cases:
    lies: dict[str, Any] = {
        "size-fraction": weight(sizes=[{"as_int": 4.0}]),
        "size-text": weight(sizes=[{"as_int": "4"}]),
        "size-boolean": weight(sizes=[{"as_int": True}]),
        "size-negative": weight(sizes=[{"as_int": -4}]),
        "size-huge": weight(sizes=[{"as_int": 2**80}]),
        "size-symbolic": weight(sizes=[{"as_expr": {"expr_str": "__import__('os').system('touch canary')"}}]),
        "sizes-many": weight(sizes=[{"as_int": 1}] * 200_000, strides=[{"as_int": 1}] * 200_000),
        "sizes-no-list": weight(sizes=4),
        "stride-beyond": weight(strides=[{"as_int": 2}]),
        "stride-missing": weight(strides=[]),
        "expanded": weight(sizes=[{"as_int": 10**5}] * 2, strides=[{"as_int": 0}] * 2),
        "offset": weight(storage_offset={"as_int": 1}),
        "offset-negative": weight(storage_offset={"as_int": -1}),
        "dtype-unknown": weight(dtype=99),
        "dtype-list": weight(dtype=[FLOAT]),
        "dtype-text": weight(dtype="float32"),
        "dtype-wider": weight(dtype=FLOAT + 1),
        "path-up": weight("../../../etc/passwd"),
        "path-absolute": weight("/etc/passwd"),
        "path-number": weight(0),
        "path-of-the-table": weight("model_weights_config.json", sizes=[{"as_int": 10**6}]),
        "entry-none": None,
        "pickle-text": {**weight(), "use_pickle": "no"},
    }
    cases: Cases = {key: (exported({"w": entry}), "corrupt_checkpoint") for key, entry in lies.items()}
    cases["pickle-text"] = (cases["pickle-text"][0], "unsupported_tensor")
    many = {f"k{number}": weight() for number in range(100_001)}
    return cases | {
        "good": (exported({"w": weight()}), None),
        "two-dtypes": (exported({"w": weight(), "v": weight(dtype=5, sizes=[{"as_int": 2}])}), None),
        "many": (exported(many), "payload_too_large"),
        "deep": (exported(b'{"config": ' + b'{"a":' * 100_000), "corrupt_checkpoint"),
        "not-a-number": (exported(b'{"config": {"w": NaN}}'), "corrupt_checkpoint"),
        "long-number": (exported(b'{"config": {"w": ' + b"9" * 5_000_000 + b"}}"), "corrupt_checkpoint"),
        "twice": (exported(_twice()), "corrupt_checkpoint"),
        "not-utf-8": (exported(b'{"config": {"\xff": 1}}'), "corrupt_checkpoint"),
        "table-a-bomb": (_bomb(), "corrupt_checkpoint"),
        "keys-nul": (exported({"a\0b": weight()}), "unsupported_tensor"),
        "keys-surrogate": (exported({"\ud800": weight()}), "unsupported_tensor"),
        "keys-long": (exported({"k" * 2000: weight()}), "unsupported_tensor"),
        "no-weights": (exported({}), "no_state_dict"),
        "record-missing": (exported({"w": weight()}, {"weight_1": FOUR["0"]}), "corrupt_checkpoint"),
        "member-up": (exported({"w": weight()}, **{"m/../../x": b"x"}), "corrupt_checkpoint"),
        "big-endian-lie": (exported({"w": weight()}, **{"m/data/byteorder": b"middle"}), None),
        "aoti": (exported({"w": weight()}, **{"m/data/aotinductor/model/x.so": b"\x7fELF" * 100}), None),
    }


def _twice() -> bytes:
    entry = json.dumps(weight()).encode()
    return b'{"config": {"w": ' + entry + b', "w": ' + entry + b"}}"


def _bomb() -> bytes:
    """A table that is compressed a thousand times over."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("m/archive_format", b"pt2")
        opened.writestr("m/models/model.json", b"{}")
        opened.writestr(TABLE, b'{"config": {' + b" " * (100 << 20) + b"}}")
    return stream.getvalue()
