"""Tensors fill a template exactly, or the error lists what does not fit; nothing is left on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.domain.errors import ExportFailed, TemplateMismatch
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.layout import PROTOBUF_LIMIT
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.pieces import Slot
from app.targets.templating.recipe import Weight
from app.targets.templating.slots import TensorForm, WeightTable
from tests.targets.capturing import ConvNet, Tied, train_a_little
from tests.targets.conftest import TemplateOf

State = dict[str, Tensor]


def drop(state: State) -> None:
    del state["fc.bias"]


def add(state: State) -> None:
    state["extra"] = torch.zeros(1)


def reshape(state: State) -> None:
    state["fc.weight"] = state["fc.weight"].reshape(16, 5)


def widen(state: State) -> None:
    state["fc.weight"] = state["fc.weight"].double()


def make_sparse(state: State) -> None:
    state["fc.weight"] = state["fc.weight"].to_sparse()


def move(state: State) -> None:
    state["fc.weight"] = state["fc.weight"].to("meta")


def reshape_unreached(state: State) -> None:
    state["aux.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "member", "named"),
    [
        (drop, "missing_keys", "fc.bias"),
        (add, "unexpected_keys", "extra"),
        (reshape, "shape_mismatches", "fc.weight: template has float32[5, 16], checkpoint has float32[16, 5]"),
        (widen, "shape_mismatches", "fc.weight: template has float32[5, 16], checkpoint has float64[5, 16]"),
        (
            make_sparse,
            "shape_mismatches",
            "fc.weight: template has float32[5, 16], checkpoint has float32[5, 16] torch",
        ),
        (move, "shape_mismatches", "fc.weight: template has float32[5, 16], checkpoint has float32[5, 16] on meta"),
        (reshape_unreached, "shape_mismatches", "aux.bias: template has float32[2], checkpoint has float32[3]"),
    ],
)
def test_what_does_not_fit_is_listed(
    change: Callable[[State], None], member: str, named: str, template_of: TemplateOf, tmp_path: Path
) -> None:
    state = train_a_little(ConvNet(), 2).state_dict()
    change(state)
    with pytest.raises(TemplateMismatch) as refusal:
        write_onnx(template_of(ConvNet), state, tmp_path / "model.onnx")
    assert any(line.startswith(named) for line in refusal.value.extra[member])
    assert named.split(":", maxsplit=1)[0] in refusal.value.detail
    assert list(tmp_path.iterdir()) == []


def test_weights_that_no_output_depends_on_may_be_absent(template_of: TemplateOf, tmp_path: Path) -> None:
    state = train_a_little(ConvNet(), 2).state_dict()
    whole = write_onnx(template_of(ConvNet), state, tmp_path / "whole.onnx")
    del state["bn.num_batches_tracked"]
    assert write_onnx(template_of(ConvNet), state, tmp_path / "model.onnx").sha256 == whole.sha256


def test_different_values_for_tied_weights_are_refused(template_of: TemplateOf, tmp_path: Path) -> None:
    state = dict(train_a_little(Tied(), 2).state_dict())
    state["head.weight"] = state["head.weight"].clone()
    write_onnx(template_of(Tied), state, tmp_path / "equal.onnx")
    state["head.weight"][7, 7] += 1
    with pytest.raises(TemplateMismatch, match=r"different values: \w+\.weight and \w+\.weight"):
        write_onnx(template_of(Tied), state, tmp_path / "model.onnx")


def test_a_file_beyond_protobufs_limit_is_refused_where_external_data_is_forbidden(tmp_path: Path) -> None:
    form = TensorForm("float32", (PROTOBUF_LIMIT // 4, 1))
    template = OnnxTemplate(
        path=tmp_path / "template",
        exporter="dynamo",
        warnings=(),
        structure="",
        weights=WeightTable({"w": form}, {}, {}),
        slots=(Slot("w", form, Weight("w")),),
        constants={},
        model_head=b"",
        graph_head=b"",
        graph_tail=b"",
        model_tail=b"",
    )
    with pytest.raises(ExportFailed, match="protobuf"):
        write_onnx(template, {"w": torch.zeros(1, 1).expand(form.shape)}, tmp_path / "m.onnx", external_data=False)
    assert list(tmp_path.iterdir()) == []


def test_a_side_file_does_not_outlive_an_artifact_that_could_not_be_written(
    template_of: TemplateOf, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(IsADirectoryError):
        write_onnx(
            template_of(Tied), train_a_little(Tied(), 2).state_dict(), tmp_path / "model.onnx", external_data=True
        )
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
