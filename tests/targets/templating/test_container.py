"""A damaged or foreign template file is refused, never half read."""

from pathlib import Path

import pytest

from app.targets.onnx.writing.template import load_onnx_template
from app.targets.templating.container import MAGIC, BrokenTemplate, read_container, write_container
from app.targets.torchscript.writing.template import TorchScriptTemplate
from tests.targets.capturing import ConvNet
from tests.targets.conftest import TemplateOf


def test_header_and_blobs_come_back(tmp_path: Path) -> None:
    write_container(tmp_path / "t", {"kind": "x", "names": ["é", ""]}, {"a": b"123", "b": b"", "c": b"\0"})
    assert read_container(tmp_path / "t") == ({"kind": "x", "names": ["é", ""]}, {"a": b"123", "b": b"", "c": b"\0"})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"PK" + content[2:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:20],
        lambda content: b"",
        lambda content: MAGIC + (1 << 60).to_bytes(8, "little") + content[16:],
        lambda content: content.replace(b'"a":[0,3]', b'"a":[0,4]'),
        lambda content: content.replace(b'"a":[0,3]', b'"a":[1,3]'),
        lambda content: content.replace(b'"blobs"', b'"bolbs"'),
    ],
)
def test_damage_is_told(change, tmp_path: Path) -> None:
    write_container(tmp_path / "t", {"kind": "x"}, {"a": b"123", "b": b"45"})
    (tmp_path / "t").write_bytes(change((tmp_path / "t").read_bytes()))
    with pytest.raises(BrokenTemplate):
        read_container(tmp_path / "t")


def test_a_template_of_another_kind_or_version_is_told(template_of: TemplateOf, tmp_path: Path) -> None:
    with pytest.raises(BrokenTemplate, match="kind onnx"):
        TorchScriptTemplate.load(template_of(ConvNet).path)
    write_container(tmp_path / "t", {"kind": "onnx", "version": 0}, {})
    with pytest.raises(BrokenTemplate, match="version 0"):
        load_onnx_template(tmp_path / "t")
