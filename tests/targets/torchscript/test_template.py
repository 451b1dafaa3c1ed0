"""A TorchScript archive filled from a template is the archive that saving the module would give."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from app.domain.architecture import InputSpec
from app.domain.errors import TemplateMismatch
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing.template import (
    TorchScriptTemplate,
    build_template,
)
from tests.targets.capturing import (
    SPECS,
    Attention,
    ConvNet,
    Recurrent,
    Tied,
    capture_torchscript,
    draw,
    save_script,
    train_a_little,
)


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent, Tied])
@pytest.mark.parametrize("method", ["trace", "script"])
def test_filling_gives_the_bytes_of_saving_the_module(kind: type[nn.Module], method: str, tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(kind(), 1), method)
    build_template(captured, request, tmp_path / "template")
    template = TorchScriptTemplate.load(tmp_path / "template")
    module = train_a_little(request.module, 2)
    save_script(captured, tmp_path / "saved.pt")
    template.fill(module.state_dict(), tmp_path / "model.pt", module=module)
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "saved.pt").read_bytes()


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent, Tied])
def test_torch_loads_it_and_computes_the_same_bits(kind: type[nn.Module], tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(kind(), 1))
    template = build_template(captured, request, tmp_path / "template")
    module = train_a_little(kind(), 2)
    template.fill(module.state_dict(), tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt", map_location="cpu")
    inputs = draw(SPECS[kind], batch=3)
    with torch.inference_mode():
        assert torch.equal(loaded(inputs), module(inputs))
    for key, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)


def test_tensors_without_elements_have_their_places(tmp_path: Path) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.none, self.last = nn.Parameter(torch.zeros(4, 0)), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.last(x), self.none.sum(1).expand(x.shape[0], 4)], -1)

    request, captured = capture_torchscript(Empty(), spec=InputSpec(name="x", shape=("batch", 3)))
    template = build_template(captured, request, tmp_path / "template")
    template.fill(request.module.state_dict(), tmp_path / "model.pt")
    assert torch.jit.load(tmp_path / "model.pt").state_dict()["none"].shape == (4, 0)


def test_resnet18_is_exact(tmp_path: Path) -> None:
    spec = InputSpec(name="x", shape=("batch", 3, 64, 64))
    request, captured = capture_torchscript(train_a_little(torchvision.models.resnet18(), 1), spec=spec)
    template = build_template(captured, request, tmp_path / "template")
    assert (tmp_path / "template").stat().st_size < 150_000
    module = train_a_little(torchvision.models.resnet18(), 2)
    template.fill(module.state_dict(), tmp_path / "model.pt", module=module)
    inputs = draw(spec, batch=3)
    with torch.inference_mode():
        assert torch.equal(torch.jit.load(tmp_path / "model.pt")(inputs), module(inputs))


def test_tied_parameters_share_one_storage(tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(Tied(), 1))
    template = build_template(captured, request, tmp_path / "template")
    template.fill(train_a_little(Tied(), 2).state_dict(), tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    assert loaded.head.weight.data_ptr() == loaded.embedding.weight.data_ptr()
    assert (tmp_path / "model.pt").stat().st_size < 2048 * 64 * 4 + 64 * 64 * 4 + 20_000


def test_buffers_outside_the_state_dict_stay_in_the_template(tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(Attention(), 1))
    template = build_template(captured, request, tmp_path / "template")
    template.fill(train_a_little(Attention(), 2).state_dict(), tmp_path / "model.pt")
    assert torch.equal(torch.jit.load(tmp_path / "model.pt").scale, Attention().scale)


def test_a_checkpoint_in_another_memory_order_gives_a_template_all_the_same(tmp_path: Path) -> None:
    module = train_a_little(ConvNet(), 1)
    request, captured = capture_torchscript(module)
    build_template(captured, request, tmp_path / "template")
    for parameter in (strided := train_a_little(ConvNet(), 1)).parameters():
        parameter.data = parameter.data.mT.contiguous().mT if parameter.dim() > 1 else parameter.data
    request, captured = capture_torchscript(strided)
    build_template(captured, request, tmp_path / "strided")
    assert (tmp_path / "strided").read_bytes() == (tmp_path / "template").read_bytes()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(ConvNet(), 1))
    template = build_template(captured, request, tmp_path / "template")
    state = ConvNet().state_dict()
    del state["fc.bias"]
    with pytest.raises(TemplateMismatch, match=r"fc\.bias"):
        template.fill(state, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent, Tied])
@pytest.mark.parametrize("method", ["trace", "script"])
@pytest.mark.parametrize("option", ["freeze", "optimize_for_inference", "keep_debug"])
def test_every_option_leaves_a_template_that_other_weights_fill(
    kind: type[nn.Module], method: str, option: str, tmp_path: Path
) -> None:
    options = TorchScriptOptions.model_validate({option: True, "check_trace": False})
    request, captured = capture_torchscript(train_a_little(kind(), 1), method, options)
    template = build_template(captured, request, tmp_path / "template")
    assert template.against_reuse is None
    module = train_a_little(kind(), 2)
    template.fill(module.state_dict(), tmp_path / "model.pt")
    inputs = draw(SPECS[kind], batch=3)
    with torch.inference_mode():
        loaded = torch.jit.load(tmp_path / "model.pt")(inputs)
        torch.testing.assert_close(loaded, module(inputs), rtol=0, atol=1e-6)


def test_debug_records_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    options = TorchScriptOptions(keep_debug=True)
    request, captured = capture_torchscript(train_a_little(ConvNet(), 1), options=options)
    template = build_template(captured, request, tmp_path / "template")
    assert any(record.name.endswith(".debug_pkl") for record in template.records)


@pytest.mark.parametrize("kind", [ConvNet, Recurrent])
@pytest.mark.parametrize("freeze", [False, True])
def test_weights_that_lie_in_one_storage_give_the_template_of_those_that_do_not(
    kind: type[nn.Module], freeze: bool, tmp_path: Path
) -> None:
    options = TorchScriptOptions(freeze=freeze, check_trace=False)
    module, together = train_a_little(kind(), 1), train_a_little(kind(), 1)
    tensors = list(together.parameters())
    storage = torch.cat([tensor.detach().flatten() for tensor in tensors])
    for tensor, part in zip(tensors, storage.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.data = part.view(tensor.shape)
    last = list(together.parameters())[-1]  # the same memory twice: alike in this checkpoint, not in the architecture
    next(p for p in tensors if p.shape == last.shape).data = last.data
    for made, path in ((module, tmp_path / "apart"), (together, tmp_path / "together")):
        request, captured = capture_torchscript(made, options=options)
        build_template(captured, request, path)
    assert (tmp_path / "together").read_bytes() == (tmp_path / "apart").read_bytes()
