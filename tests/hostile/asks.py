"""What a stranger may ask of a conversion: options, architectures' options, probes, each with the code that answers it.

All of weights that fit ``sample/constant``, a net of eight features and four scores.
"""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import torch

from tests.service.requests import saved

WEIGHTS = {"body.weight": torch.zeros(8, 8), "body.bias": torch.zeros(8), "bias": torch.tensor([0.5, -1.0, 2.0, 0.0])}
FEATURES = "features"
DONE = "succeeded"
JUDGED = (DONE, "verdict_not_accepted")
"""The net answers the same whatever it is asked, so that its verdict is inconclusive."""


@dataclass(frozen=True)
class HostileAsk:
    """``codes``: the answers that are designed for it; ``succeeded`` is one."""

    id: str
    codes: tuple[str, ...]
    options: Any = field(default_factory=dict)
    architecture: str = "sample/constant"
    architecture_options: Any = field(default_factory=dict)
    probes: bytes | None = None
    target: str = "onnx"
    weights: Any = field(default_factory=lambda: WEIGHTS)
    members: dict[str, str] = field(default_factory=dict)

    def send(self, client: httpx.Client) -> httpx.Response:
        """The answer, once the conversion has ended."""
        data = {
            "architecture": self.architecture,
            "target": self.target,
            "options": json.dumps(self.options),
            "architecture_options": json.dumps(self.architecture_options),
            "force": "true",
            **self.members,
        }
        files = {"file": ("weights.pth", saved(self.weights))}
        if self.probes is not None:
            files["probes"] = ("probes.npz", self.probes)
        return client.post("/v1/conversions", data=data, files=files, headers={"Prefer": "wait=600"})


def hostile_asks() -> Iterator[HostileAsk]:
    for identifier, options in _INVALID_OPTIONS.items():
        yield HostileAsk(f"options-{identifier}", ("invalid_options", "invalid_request"), options)
    for identifier, (options, codes) in _OPTIONS.items():
        yield HostileAsk(f"options-{identifier}", codes, options)
    for identifier, (architecture, options, codes) in _ARCHITECTURES.items():
        yield HostileAsk(f"architecture-{identifier}", codes, {}, architecture, options)
    for identifier, content in _probes().items():
        yield HostileAsk(f"probes-{identifier}", ("invalid_options", "empty_file"), probes=content)
    for identifier, (weights, options, codes) in _keys().items():
        yield HostileAsk(f"keys-{identifier}", codes, options, weights=weights)
    for identifier, (members, codes) in _MEMBERS.items():
        yield HostileAsk(f"members-{identifier}", codes, members=members)


_LARGE = 10**6
_INVALID_OPTIONS: dict[str, Any] = {
    "unknown": {"nonsense": 1},
    "list": [1, 2],
    "opset-text": {"opset": "18"},
    "opset-fraction": {"opset": 18.5},
    "opset-huge": {"opset": 10**30},
    "ir-negative": {"ir_version": -1},
    "exporter": {"exporter": "../../bin/sh"},
    "target-other": {"target": "torchscript"},
    "shape-of-nothing": {"example_shapes": {"nothing": [1, 8]}},
    "shape-text": {"example_shapes": {FEATURES: "8"}},
    "shape-fraction": {"example_shapes": {FEATURES: [1.5, 8]}},
    "shape-negative": {"example_shapes": {FEATURES: [-1, 8]}},
    "shape-zero": {"example_shapes": {FEATURES: [0, 0]}},
    "shape-short": {"example_shapes": {FEATURES: [8]}},
    "shape-of-many-axes": {"example_shapes": {FEATURES: [1] * 100}},
    "shape-long": {"example_shapes": {FEATURES: [1] * 10_000}},
    "axes-of-nothing": {"dynamic_axes": {"nothing": {"0": "batch"}}},
    "axes-beyond": {"dynamic_axes": {FEATURES: {"7": "batch"}}},
    "axes-huge": {"dynamic_axes": {FEATURES: {str(2**70): "batch"}}},
    "axes-negative": {"dynamic_axes": {FEATURES: {"-3": "batch"}}},
    "axes-text": {"dynamic_axes": {FEATURES: {"first": "batch"}}},
    "axes-name-markup": {"dynamic_axes": {FEATURES: {"0": "<script>"}}},
    "axes-name-empty": {"dynamic_axes": {FEATURES: {"0": ""}}},
    "axes-name-long": {"dynamic_axes": {FEATURES: {"0": "n" * 5_000}}},
    "names-too-many": {"input_names": [f"n{n}" for n in range(4_096)]},
    "names-beyond": {"input_names": ["n"] * 10_000},
    "names-long": {"input_names": ["n" * 5_000]},
    "names-numbers": {"input_names": [1]},
    "names-twice": {"input_names": ["scores"], "output_names": ["scores"]},
    "names-empty": {"input_names": [""]},
    "names-line-end": {"input_names": ["a\nb"]},
    "names-right-to-left": {"input_names": ["\u202egpj.exe"]},
    "names-of-nothing": {"input_names": []},
    "missing-many": {"allow_missing": ["*"] * 5_000},
    "missing-long": {"allow_missing": ["*" * 300]},
    "missing-numbers": {"allow_missing": [1]},
    "prefix-long": {"prefix": "p" * 5_000},
    "key-long": {"checkpoint_key": "k" * 5_000},
    "verification": {"verification": "none"},
    "measure": {"measure": ["everything"]},
    "measure-many": {"measure": ["matrix"] * 10_000},
    "data-text": {"external_data": "../../x"},
}
_OPTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "opset-old": ({"opset": 1}, ("unsupported_opset",)),
    "opset-new": ({"opset": 2**31 - 1}, ("unsupported_opset",)),
    "opset-negative": ({"opset": -(2**31)}, ("unsupported_opset", "invalid_options")),
    "shape-of-other-width": ({"example_shapes": {FEATURES: [1, 9]}}, ("model_refuses_inputs",)),
    "shape-of-64-bits": ({"example_shapes": {FEATURES: [2**63, 8]}}, ("memory_estimate_exceeded",)),
    "names-path": ({"input_names": ["../../etc/passwd"]}, JUDGED),
    "shape-enormous": ({"example_shapes": {FEATURES: [_LARGE, _LARGE]}}, ("memory_estimate_exceeded",)),
    "shape-beyond": ({"example_shapes": {FEATURES: [10**18, 8]}}, ("memory_estimate_exceeded",)),
    "shape-tall": (
        {"example_shapes": {FEATURES: [_LARGE, 8]}},
        (*JUDGED, "memory_estimate_exceeded"),
    ),
    "shape-prime": ({"example_shapes": {FEATURES: [999_983, 8]}}, JUDGED),
    "missing-stars": ({"allow_missing": ["*a" * 100] * 100}, JUDGED),
    "key-of-nothing": ({"checkpoint_key": "a." * 500}, ("no_state_dict", "key_mismatch")),
    "prefix-of-nothing": ({"prefix": "nothing."}, ("key_mismatch", *JUDGED)),
    "name-emoji": ({"input_names": ["\N{PILE OF POO}"]}, ("invalid_options", *JUDGED)),
}
_FITS = ("key_mismatch", "shape_mismatch", "memory_estimate_exceeded", "invalid_options", "build_failed")
_ARCHITECTURES: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "unknown": ("torchvision/resnet18\0", {}, ("unknown_architecture",)),
    "path": ("../../etc/passwd", {}, ("unknown_architecture",)),
    "long": ("a" * 100_000, {}, ("unknown_architecture", "invalid_request")),
    "markup": ("<script>alert(1)</script>", {}, ("unknown_architecture",)),
    "module": ("os/system", {}, ("unknown_architecture",)),
    "classes": ("torchvision/resnet18", {"num_classes": 10**9}, ("invalid_options",)),
    "classes-most": ("torchvision/resnet18", {"num_classes": 100_000}, _FITS),
    "classes-negative": ("torchvision/resnet18", {"num_classes": -1}, ("invalid_options",)),
    "classes-text": ("torchvision/resnet18", {"num_classes": "10"}, ("invalid_options",)),
    "classes-boolean": ("torchvision/resnet18", {"num_classes": True}, ("invalid_options",)),
    "classes-infinite": ("torchvision/resnet18", {"num_classes": 1e308}, ("invalid_options",)),
    "image": ("torchvision/vit_b_16", {"image_size": 10**6}, ("invalid_options",)),
    "image-most": ("torchvision/vit_b_16", {"image_size": 4096}, _FITS),
    "image-odd": ("torchvision/vit_b_16", {"image_size": 225}, ("invalid_options",)),
    "image-large": ("torchvision/vit_h_14", {"num_classes": 100_000}, _FITS),
    "channels": ("timm/resnet18", {"in_chans": 10**7}, ("invalid_options",)),
    "hidden": ("transformers/bert", {"hidden_size": 10**9}, ("invalid_options",)),
    "hidden-most": ("transformers/bert", {"hidden_size": 8192, "num_attention_heads": 64}, _FITS),
    "layers": ("transformers/bert", {"num_hidden_layers": 10**6}, ("invalid_options",)),
    "layers-many": ("transformers/bert", {"num_hidden_layers": 200}, _FITS),
    "layers-zero": ("transformers/bert", {"num_hidden_layers": 0}, _FITS),
    "vocabulary": ("transformers/bert", {"vocab_size": 2**62}, ("invalid_options",)),
    "heads-zero": ("transformers/bert", {"num_attention_heads": 0}, ("invalid_options", "build_failed")),
    "auto-map": ("transformers/bert", {"auto_map": {"AutoModel": "evil.Model"}}, ("invalid_options", *_FITS)),
    "code": ("transformers/bert", {"trust_remote_code": True}, ("invalid_options", *_FITS)),
    "path-of-a-model": ("transformers/bert", {"_name_or_path": "../../etc/passwd"}, ("invalid_options", *_FITS)),
    "activation": ("transformers/bert", {"hidden_act": "__import__('os').system('id')"}, ("invalid_options", *_FITS)),
    "dtype": ("transformers/bert", {"torch_dtype": "os.system"}, ("invalid_options", *_FITS)),
    "nested": ("transformers/bert", {"architectures": [["x"] * 90] * 90}, ("invalid_options", *_FITS)),
    "many-names": ("transformers/bert", {f"option{n}": n for n in range(3_000)}, ("invalid_options",)),
    "none-that-fits": ("sample/constant", {"mode": "escape"}, ("invalid_options",)),
}
_MEMBERS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "accept-unknown": ({"accept": "everything"}, ("invalid_request",)),
    "force-odd": ({"force": "maybe"}, ("invalid_request",)),
    "name-long": ({"name": "n" * 5_000}, ("invalid_request",)),
    "name-control": ({"name": "a\x1b[2J"}, ("invalid_request",)),
    "labels-list": ({"labels": "[]"}, ("invalid_request",)),
    "labels-many": ({"labels": json.dumps({f"k{n}": "v" for n in range(5_000)})}, ("invalid_request",)),
    "labels-value": ({"labels": json.dumps({"k": "v" * 5_000})}, ("invalid_request",)),
    "labels-key": ({"labels": json.dumps({"../k": "v"})}, ("invalid_request",)),
    "options-deep": ({"options": "[" * 100_000}, ("invalid_request",)),
    "options-infinite": ({"options": '{"opset": 1e999}'}, ("invalid_request",)),
    "options-digits": ({"options": '{"opset": ' + "9" * 100_000 + "}"}, ("invalid_request",)),
    "options-nul": ({"options": '{"prefix": "a\\u0000"}'}, ("invalid_request",)),
    "options-surrogate": ({"options": '{"prefix": "\\ud800"}'}, ("invalid_request",)),
    "options-many": ({"options": json.dumps({str(n): 0 for n in range(25_000)})}, ("invalid_request",)),
    "options-large": ({"options": json.dumps({"prefix": "p" * (1 << 20)})}, ("invalid_request", "payload_too_large")),
    "member-unknown": ({"callback_url_of_nobody": "http://127.0.0.1/"}, ("invalid_request",)),
}


def _keys() -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    module = "module." * 140
    many = {f"k{n}": torch.zeros(1) for n in range(20_000)}
    held = {f"{'a.' * n}a": dict(WEIGHTS) for n in range(60)}
    knots: list[dict[str, Any]] = [{} for _ in range(400)]
    for place, knot in enumerate(knots):
        knot.update({f"{'a.' * n}a": knots[(7 * place + 11 * n + 1) % len(knots)] for n in range(40)})
    return {
        "readings": (knots[0], {"checkpoint_key": ".".join("a" * 500)}, ("no_state_dict",)),
        "none": ({}, {}, ("no_state_dict",)),
        "others": ({"w": torch.zeros(3)}, {}, ("key_mismatch",)),
        "many": (many, {}, ("key_mismatch",)),
        "many-not-strict": (many, {"strict": False}, ("key_mismatch",)),
        "modules": ({f"{module}{key}": value for key, value in WEIGHTS.items()}, {}, (*JUDGED, "key_mismatch")),
        "dots": ({"." * 900 + key: value for key, value in WEIGHTS.items()}, {}, ("key_mismatch",)),
        "splits": (held, {"checkpoint_key": ".".join("a" * 60)}, (*JUDGED, "no_state_dict", "key_mismatch")),
        "shape": ({**WEIGHTS, "bias": torch.zeros(5)}, {}, ("shape_mismatch", "key_mismatch")),
        "expanded": (
            {**WEIGHTS, "body.weight": torch.zeros(1).expand(8, 8)},
            {},
            (*JUDGED, "corrupt_checkpoint", "unsupported_tensor"),
        ),
        "transposed": ({**WEIGHTS, "body.weight": torch.zeros(8, 8).t()}, {}, JUDGED),
        "complex": ({**WEIGHTS, "bias": torch.zeros(4, dtype=torch.complex64)}, {}, _TYPES),
        "booleans": ({**WEIGHTS, "bias": torch.zeros(4, dtype=torch.bool)}, {}, (*_TYPES, DONE)),
        "integers": ({**WEIGHTS, "bias": torch.zeros(4, dtype=torch.int64)}, {}, (*_TYPES, DONE)),
        "not-finite": ({**WEIGHTS, "bias": torch.full((4,), float("nan"))}, {}, ("non_finite",)),
        "subnormal": ({**WEIGHTS, "bias": torch.full((4,), 1e-45)}, {}, JUDGED),
        "double": ({**WEIGHTS, "bias": torch.full((4,), 1e300, dtype=torch.float64)}, {}, ("non_finite",)),
        "prefixes": ({f"p{n}.{key}": v for n in range(300) for key, v in WEIGHTS.items()}, {}, ("key_mismatch",)),
    }


_TYPES = ("dtype_mismatch", "unsupported_tensor", "key_mismatch", "verdict_not_accepted", "verification_failed")


def _probes() -> dict[str, bytes]:
    good = np.zeros((2, 8), dtype=np.float32)
    lie = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 8)}", bytes(32))
    return {
        "empty": b"",
        "text": b"not a zip",
        "no-arrays": zipped({}),
        "other-name": npz(other=good),
        "other-type": npz(features=good.astype(np.float64)),
        "other-width": npz(features=np.zeros((2, 9), dtype=np.float32)),
        "other-rank": npz(features=np.zeros(8, dtype=np.float32)),
        "objects": npz(features=np.array([{"a": 1}], dtype=object)),
        "structured": npz(features=np.zeros(2, dtype=[("a", "f4")])),
        "text-array": npz(features=np.array(["a"])),
        "bare-array": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 8)}", bytes(64)),
        "shape-lies": zipped({"features.npy": lie}),
        "shape-negative": zipped(
            {"features.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}", b"")}
        ),
        "header-code": zipped({"features.npy": npy("__import__('os').system('id')", b"")}),
        "header-deep": zipped({"features.npy": npy("(" * 5_000, b"")}),
        "header-long": zipped({"features.npy": npy("{" + " " * 60_000 + "}", b"")}),
        "header-cut": zipped({"features.npy": b"\x93NUMPY\x01\x00\xff"}),
        "version": zipped({"features.npy": b"\x93NUMPY\x09\x00" + bytes(64)}),
        "pickle": zipped({"features.npy": b"\x80\x04cposix\nsystem\n."}),
        "many": zipped({f"p{n}/features.npy": b"" for n in range(2_000)}),
        "bomb": zipped({"features.npy": bytes(300 << 20)}, zipfile.ZIP_DEFLATED),
        "lzma": zipped({"features.npy": bytes(1 << 20)}, zipfile.ZIP_LZMA),
        "up": zipped({"../features.npy": b"x"}),
        "cut": npz(features=good)[:-30],
        "no-rows-of-nothing": npz(features=np.zeros((2, 0), dtype=np.float32)),
    }


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(header: str, content: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        for member, content in members.items():
            opened.writestr(member, content)
    return stream.getvalue()
