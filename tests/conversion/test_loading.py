"""Meeting of checkpoint and architecture: repairs, strictness, casts, ties, and the parameter report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.architectures.registry import Registry, load_registry
from app.conversion.checkpoint import open_checkpoint
from app.conversion.loading import LoadedModule, load_module
from app.domain.errors import KeyMismatch
from tests.conversion.corpus import saved

PLUGIN = '''
from torch import nn
from app.architectures.plugins import InputSpec, Signature, architecture

INPUT = Signature(inputs=(InputSpec(name="x", shape=("batch", 3, 8, 8)),))

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)
        self.register_buffer("scale", __import__("torch").full((1,), 2.0), persistent=False)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).mean((2, 3))) * self.scale

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.decoder = nn.Linear(3, 6, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(self.embedding(x))

class Renamed(nn.Module):
    """Reads old files, in which the layer had another name."""
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        for part in ("weight", "bias"):
            if prefix + "old." + part in state_dict:
                state_dict[prefix + "layer." + part] = state_dict.pop(prefix + "old." + part)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(self, x):
        return self.layer(x)

@architecture("test/net", signature=INPUT)
def net(classes: int = 5) -> nn.Module:
    return Net(classes)

@architecture("test/tied", signature=INPUT)
def tied() -> nn.Module:
    return Tied()

@architecture("test/renamed", signature=INPUT)
def renamed() -> nn.Module:
    return Renamed()
'''

Load = Callable[..., LoadedModule]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "loading_nets.py").write_text(PLUGIN)
    return load_registry(folder)


@pytest.fixture
def load(registry: Registry, tmp_path: Path) -> Load:
    def load(
        content: object, name: str = "test/net", *, strict: bool = True, prefix: str | None = None
    ) -> LoadedModule:
        opened = open_checkpoint(saved(content, tmp_path / "c.pt"))
        return load_module(registry, name, {}, opened, strict=strict, prefix=prefix)

    return load


@pytest.fixture
def state(registry: Registry) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    module = registry.build("test/net", {}, initialised=True)
    return {
        key: torch.randn(value.shape, generator=generator).abs() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }


def test_an_exact_checkpoint_is_loaded_without_copies_in_eval_mode(load: Load, state: dict[str, torch.Tensor]) -> None:
    loaded = load(state)
    assert not any(module.training for module in loaded.module.modules())
    assert loaded.report.repair is None
    assert loaded.report.missing_keys == loaded.report.unexpected_keys == loaded.report.shape_mismatches == ()
    for key, value in loaded.module.state_dict().items():
        assert value.equal(state[key])
        assert value.data_ptr() == loaded.uploaded[key].data_ptr()
    assert loaded.module.scale.item() == 2


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model."])
def test_wrapper_prefixes_are_taken_off_and_reported(load: Load, state: dict[str, torch.Tensor], prefix: str) -> None:
    loaded = load({prefix + key: value for key, value in state.items()})
    assert loaded.report.repair is not None
    assert loaded.report.repair.stripped_prefix == prefix
    assert loaded.report.repair.keys == len(state)
    assert loaded.report.repair.examples[0] == (prefix + "conv.weight", "conv.weight")
    assert list(loaded.uploaded) == list(state)


def test_another_prefix_is_taken_off_only_when_named(load: Load, state: dict[str, torch.Tensor]) -> None:
    wrapped = {"backbone." + key: value for key, value in state.items()}
    with pytest.raises(KeyMismatch) as refused:
        load(wrapped)
    assert "prefix='backbone.'" in str(refused.value.told_hint)
    assert load(wrapped, prefix="backbone.").report.repair is not None


def test_a_prefix_is_not_taken_off_where_no_bijection_follows(load: Load, state: dict[str, torch.Tensor]) -> None:
    wrapped = {"module." + key: value for key, value in state.items()}
    wrapped["module.head.weight"] = torch.zeros(9, 4)
    with pytest.raises(KeyMismatch) as refused:
        load(wrapped)
    assert set(refused.value.extra["unexpected_keys"]) == set(wrapped)


def test_a_prefix_on_some_keys_only_is_no_wrapper(load: Load, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(KeyMismatch):
        load({("module." if key.startswith("conv") else "") + key: value for key, value in state.items()})


def test_every_difference_is_listed(load: Load, state: dict[str, torch.Tensor]) -> None:
    state["head.weight"] = torch.zeros(7, 4)
    state["extra.weight"] = torch.zeros(1)
    del state["bn.running_var"]
    with pytest.raises(KeyMismatch) as refused:
        load(state)
    extra = refused.value.problem().extra
    assert extra["missing_keys"] == ["bn.running_var"]
    assert extra["unexpected_keys"] == ["extra.weight"]
    assert extra["shape_mismatches"] == ["head.weight: checkpoint (7, 4), architecture (5, 4)"]


def test_without_strict_what_is_missing_keeps_its_seeded_initial_value(
    load: Load, state: dict[str, torch.Tensor], registry: Registry
) -> None:
    state["head.weight"] = torch.zeros(7, 4)
    state["extra.weight"] = torch.zeros(1)
    del state["bn.running_var"]
    loaded = load(state, strict=False)
    report = loaded.report
    assert (report.missing_keys, report.unexpected_keys) == (("bn.running_var",), ("extra.weight",))
    assert len(report.shape_mismatches) == 1
    assert set(report.ignored_keys) == {"head.weight", "extra.weight"}
    initial = registry.build("test/net", {}, initialised=True)
    assert loaded.module.head.weight.equal(initial.head.weight)
    assert loaded.module.conv.weight.equal(state["conv.weight"])
    assert not any(tensor.is_meta for tensor in loaded.module.state_dict().values())
    assert "extra.weight" in loaded.uploaded


def test_without_strict_a_checkpoint_of_another_network_is_still_refused(load: Load) -> None:
    with pytest.raises(KeyMismatch):
        load({"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}, strict=False)


def test_a_missing_batch_counter_is_harmless(load: Load, state: dict[str, torch.Tensor]) -> None:
    del state["bn.num_batches_tracked"]
    loaded = load({"module." + key: value for key, value in state.items()})
    assert loaded.report.missing_keys == ()
    assert loaded.module.bn.num_batches_tracked.item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_widths_are_cast_and_the_upload_keeps_its_own(
    load: Load, state: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    loaded = load({key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()})
    assert loaded.module.conv.weight.dtype == torch.float32
    assert loaded.module.conv.weight.equal(state["conv.weight"].to(dtype).float())
    assert loaded.uploaded["conv.weight"].dtype == dtype


def test_integers_in_the_place_of_floats_are_refused(load: Load, state: dict[str, torch.Tensor]) -> None:
    state["conv.weight"] = state["conv.weight"].to(torch.int8)
    with pytest.raises(KeyMismatch) as refused:
        load(state)
    assert "int8" in refused.value.extra["shape_mismatches"][0]


def test_memory_formats_become_the_architectures(load: Load, state: dict[str, torch.Tensor]) -> None:
    state["conv.weight"] = state["conv.weight"].to(memory_format=torch.channels_last)
    assert load(state).module.conv.weight.is_contiguous()


def tied_state() -> dict[str, torch.Tensor]:
    weight = torch.randn(6, 3)
    return {"embedding.weight": weight, "decoder.weight": weight}


@pytest.mark.parametrize("omitted", [None, "embedding.weight", "decoder.weight"])
def test_tied_weights_stay_one_object_also_where_the_file_holds_one(load: Load, omitted: str | None) -> None:
    state = {key: value for key, value in tied_state().items() if key != omitted}
    loaded = load(state, "test/tied")
    assert loaded.module.embedding.weight is loaded.module.decoder.weight
    assert loaded.module.decoder.weight.equal(next(iter(state.values())))
    assert loaded.report.missing_keys == ()
    assert loaded.parameters.total == 18


def test_copies_of_a_tied_weight_are_accepted_and_different_values_are_not(load: Load) -> None:
    state = {key: value.clone() for key, value in tied_state().items()}
    assert load(state, "test/tied").module.embedding.weight is not None
    state["decoder.weight"][0, 0] += 1
    with pytest.raises(KeyMismatch) as refused:
        load(state, "test/tied")
    assert refused.value.extra["untied"] == ["embedding.weight", "decoder.weight"]


def test_hooks_that_read_old_files_run(load: Load) -> None:
    loaded = load({"old.weight": torch.ones(2, 3), "old.bias": torch.zeros(2)}, "test/renamed")
    assert loaded.module.layer.weight.equal(torch.ones(2, 3))


def test_safetensors_load_like_torch_files(registry: Registry, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    opened = open_checkpoint(tmp_path / "w.safetensors")
    loaded = load_module(registry, "test/net", {}, opened, strict=True, prefix=None)
    assert all(value.equal(state[key]) for key, value in loaded.module.state_dict().items())


def test_the_parameter_report_tells_what_parameters_and_named_parameters_tell(
    load: Load, state: dict[str, torch.Tensor]
) -> None:
    loaded = load(state)
    parameters: list[nn.Parameter] = list(loaded.module.parameters())
    report = loaded.parameters
    assert report.total == report.trainable == sum(parameter.numel() for parameter in parameters)
    assert report.buffers == sum(buffer.numel() for buffer in loaded.module.buffers())
    told: dict[str, Any] = {tensor.name: tensor for tensor in report.tensors}
    assert [tensor.name for tensor in report.tensors if tensor.trainable] == [
        n for n, _ in loaded.module.named_parameters()
    ]
    assert told["conv.weight"].shape == (4, 3, 3, 3)
    assert told["bn.running_mean"].trainable is False
