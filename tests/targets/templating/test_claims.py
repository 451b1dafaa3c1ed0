"""What a template claims of its initializers holds for the files it writes, as the weight ledger checks it."""

from hashlib import sha256
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.reader import reader_of
from app.targets.writer import writer_of
from tests.targets.capturing import Attention, ConvNet, Recurrent, Tied, request_for, train_a_little
from tests.targets.conftest import TemplateOf

claims = writer_of("onnx").claims
KINDS = [ConvNet, Attention, Recurrent, Tied]


def judge(template: OnnxTemplate, artifact: Path, uploaded: dict[str, Tensor], module: nn.Module) -> Ledger:
    signature = request_for(module).signature
    load = LoadReport(strict=True)
    return ledger_of(
        reader_of("onnx").tensors(artifact),
        claims(template),
        uploaded=uploaded,
        load=load,
        module=module,
        signature=signature,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_initializer_has_exactly_one_claim(
    kind: type[nn.Module], template_of: TemplateOf, tmp_path: Path
) -> None:
    write_onnx(template_of(kind), train_a_little(kind(), 2).state_dict(), tmp_path / "model.onnx")
    names = [tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert sorted(claims(template_of(kind))) == sorted(names)


@pytest.mark.parametrize("kind", KINDS)
def test_claims_pass_the_ledger(kind: type[nn.Module], template_of: TemplateOf, tmp_path: Path) -> None:
    module = train_a_little(kind(), 2)
    uploaded = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    write_onnx(template_of(kind), uploaded, tmp_path / "model.onnx")
    found = judge(template_of(kind), tmp_path / "model.onnx", uploaded, module)
    assert found.problems == ()
    assert found.passed


def test_a_swapped_pair_of_tensors_breaks_the_claims(template_of: TemplateOf, tmp_path: Path) -> None:
    module = train_a_little(ConvNet(), 2)
    uploaded = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    swapped = uploaded | {"bn.weight": uploaded["bn.bias"], "bn.bias": uploaded["bn.weight"]}
    write_onnx(template_of(ConvNet), swapped, tmp_path / "model.onnx")
    assert not judge(template_of(ConvNet), tmp_path / "model.onnx", uploaded, module).passed


def test_kinds_say_what_was_done(template_of: TemplateOf) -> None:
    said = claims(template_of(Attention))
    assert said["out.bias"].kind == "identical"
    assert said["out.weight_transposed"].kind == "transposed"
    assert said["qkv_transposed"].kind == "arranged"
    assert set(next(claim for name, claim in said.items() if name.startswith("table")).tensors) == {"table", "index"}
    assert said["scale"].kind == "constant"
    assert said["scale"].sha256 == sha256(torch.linspace(0.5, 1.5, 16).numpy().tobytes()).hexdigest()


def test_claims_give_the_initializers_values(template_of: TemplateOf, tmp_path: Path) -> None:
    state = train_a_little(Attention(), 2).state_dict()
    write_onnx(template_of(Attention), state, tmp_path / "model.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    made = {name: claim.evaluate for name, claim in claims(template_of(Attention)).items() if claim.evaluate}
    assert len(made) >= 6
    for name, evaluate in made.items():
        assert torch.equal(evaluate(state.__getitem__), torch.from_numpy(stored[name].copy()))
