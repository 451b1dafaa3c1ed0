"""Meeting of checkpoint and architecture: repairs, strictness, casts, ties, and the parameter report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.architectures.registry import Registry, load_registry
from app.conversion import loading
from app.conversion.checkpoint import open_checkpoint
from app.conversion.loading import LoadedModule, load_module
from app.domain.errors import KeyMismatch, MemoryEstimateExceeded
from tests.conversion.corpus import saved

PLUGIN = '''
from torch import nn
from recast_plugins import InputSpec, Signature, architecture

ROWS = Signature(inputs=(InputSpec(name="x", shape=("batch", 3)),))
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

class Idle(nn.Module):
    """A layer that the forward does not call, and one of which it takes the bias alone."""
    def __init__(self):
        super().__init__()
        self.used, self.idle, self.part = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x) + self.part.bias

class Drawn(nn.Module):
    """Numbers of its own beside the state dict: tables, and such that are drawn at random or copies of such."""
    def __init__(self):
        super().__init__()
        torch = __import__("torch")
        self.layer = nn.Linear(3, 4)
        self.table, self.tables = torch.arange(4.0), {"sin": torch.arange(4.0).sin()}
        self.seeded = torch.randn(4, generator=torch.Generator().manual_seed(3))
        self.attribute, self.listed, self.idle = torch.randn(4), [torch.rand(4)], torch.randn(4)
        self.register_buffer("buffer", torch.randn(4), persistent=False)
        self.initial = self.layer.bias.detach() * 2
        self.own = [self.layer.weight]

    def forward(self, x):
        y = self.layer(x) + self.table + self.tables["sin"] + self.seeded + self.own[0].sum()
        return y * self.attribute * self.listed[0] + self.buffer + self.initial

class Normed(nn.Module):
    """Layers under a weight norm whose keys were weight_g and weight_v once."""
    def __init__(self):
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
        self.b = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2), dim=None)

    def forward(self, x):
        return self.b(self.a(x))

class Fused(nn.Module):
    """Reads files with query, key and value apart and with a matrix transposed; its first version had a wider head."""
    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(3, 6), nn.Linear(3, 2), nn.Linear(2, 2)
        self.register_load_state_dict_pre_hook(self.read)

    @staticmethod
    def read(module, state, prefix, *arguments):
        import torch
        for part in ("weight", "bias"):
            if prefix + "q." + part in state:
                state[prefix + "qkv." + part] = torch.cat([state.pop(f"{prefix}{name}.{part}") for name in "qkv"])
        if prefix + "out.kernel" in state:
            state[prefix + "out.weight"] = state.pop(prefix + "out.kernel").t()
        if prefix + "head.scaled" in state:
            state[prefix + "head.weight"] = state.pop(prefix + "head.scaled") * 0.5
        if prefix + "twice" in state:
            state[prefix + "head.weight"], state[prefix + "head.bias"] = state.pop(prefix + "twice").split([4, 2])
            state[prefix + "head.weight"] = state[prefix + "head.weight"].view(2, 2)
        state.pop(prefix + "forgotten", None)

    def forward(self, x):
        return self.head(self.out(self.qkv(x)[..., :3]))

class Stubborn(nn.Module):
    """Refuses files that do not say their version, as mnasnet does."""
    _version = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *arguments):
        if local_metadata.get("version") not in (1, 2):
            raise ValueError("version")
        if prefix + "bad" in state_dict:
            raise KeyError("a bad key")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)

    def forward(self, x):
        return self.layer(x)

class Listed(nn.Module):
    """Computes with tensors that it keeps beside the state dict, and has a recurrent layer."""
    def __init__(self):
        super().__init__()
        self.linear, self.lstm = nn.Linear(3, 3), nn.LSTM(3, 2)
        self.weights, self.named = [self.linear.weight], {"bias": self.linear.bias}
        self.to("cpu")

    def forward(self, x):
        return self.lstm(nn.functional.linear(x, self.weights[0], self.named["bias"]))[0]

class Vocoder(nn.Module):
    """The weight norm of old."""
    def __init__(self):
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(3, 2))

    def forward(self, x):
        return self.layer(x)

@architecture("test/listed", signature=ROWS)
def listed() -> nn.Module:
    return Listed()

@architecture("test/vocoder", signature=ROWS)
def vocoder() -> nn.Module:
    return Vocoder()

@architecture("test/idle", signature=ROWS)
def idle() -> nn.Module:
    return Idle()

@architecture("test/drawn", signature=ROWS)
def drawn() -> nn.Module:
    """Drawn."""
    return Drawn()

@architecture("test/normed", signature=ROWS)
def normed() -> nn.Module:
    return Normed()

@architecture("test/fused", signature=ROWS)
def fused() -> nn.Module:
    return Fused()

@architecture("test/stubborn", signature=ROWS)
def stubborn() -> nn.Module:
    return Stubborn()

@architecture("test/mlp", signature=ROWS)
def mlp(hidden: int = 8, layers: int = 2, bias: bool = True) -> nn.Module:
    sizes = [3] + [hidden] * layers
    body = [nn.Linear(a, b, bias=bias) for a, b in zip(sizes, sizes[1:])]
    return nn.ModuleDict({"body": nn.Sequential(*body), "head": nn.Linear(hidden, 2)})

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
        content: object,
        name: str = "test/net",
        *,
        options: Mapping[str, Any] = {},
        strict: bool = True,
        prefix: str | None = None,
        allow_missing: tuple[str, ...] = (),
    ) -> LoadedModule:
        opened = open_checkpoint(saved(content, tmp_path / "c.pt"))
        signature = registry.resolve(name, options).signature
        return load_module(
            registry,
            name,
            options,
            opened,
            strict=strict,
            prefix=prefix,
            allow_missing=allow_missing,
            signature=signature,
        )

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


def test_without_a_bijection_the_file_is_refused_as_the_likeliest_reading_has_it(
    load: Load, state: dict[str, torch.Tensor]
) -> None:
    wrapped = {"module." + key: value for key, value in state.items()}
    wrapped["module.head.weight"] = torch.zeros(9, 4)
    with pytest.raises(KeyMismatch, match=r"without the prefix 'module\.") as refused:
        load(wrapped)
    assert refused.value.extra["shape_mismatches"] == ("head.weight: checkpoint (9, 4), architecture (5, 4)",)
    assert refused.value.extra["missing_keys"] == refused.value.extra["unexpected_keys"] == ()


@pytest.mark.parametrize("segment", ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrappers_of_a_part_are_taken_out_of_its_keys(load: Load, state: dict[str, torch.Tensor], segment: str) -> None:
    wrapped = {f"bn.{segment}{key[3:]}" if key.startswith("bn.") else key: value for key, value in state.items()}
    loaded = load({"model." + key: value for key, value in wrapped.items()})
    assert loaded.report.repair is not None
    assert loaded.report.repair.removed_segments == (segment,)
    assert loaded.module.bn.weight.equal(state["bn.weight"])


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("module.", {"n_averaged": torch.tensor(7)}),
        ("model.", {"loss.weight": torch.ones(5)}),
        ("ema_model.", {"initted": torch.tensor(True), "step": torch.tensor(3)}),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_keys_beside_the_prefix_are_left_out_and_listed(
    load: Load, state: dict[str, torch.Tensor], prefix: str, beside: dict[str, torch.Tensor], named: bool
) -> None:
    wrapped = {prefix + key: value for key, value in state.items()} | beside
    loaded = load(wrapped, prefix=prefix if named else None)
    assert loaded.report.ignored_keys == tuple(beside)
    assert loaded.report.repair is not None
    assert loaded.report.repair.keys == len(state)
    assert list(loaded.uploaded) == [*state, *beside]


def test_a_key_outside_of_the_prefix_is_taken_where_the_model_needs_it(
    load: Load, state: dict[str, torch.Tensor]
) -> None:
    parts = {key if key.startswith("head.") else "backbone." + key: value for key, value in state.items()}
    loaded = load(parts, prefix="backbone.")
    assert loaded.module.head.weight.equal(state["head.weight"])
    assert loaded.report.ignored_keys == ()


def test_of_two_models_in_one_file_none_is_guessed(load: Load, state: dict[str, torch.Tensor]) -> None:
    both = {f"{part}.{key}": value + at for at, part in enumerate(("model", "teacher")) for key, value in state.items()}
    with pytest.raises(KeyMismatch) as refused:
        load(both)
    assert refused.value.extra["prefixes"] == ["model.", "teacher."]
    assert load(both, prefix="teacher.").report.repair is not None


@pytest.mark.parametrize(
    ("chosen", "rival"),
    [("module.", ""), ("model.", "ema_model.module."), ("model.", "callbacks.ema.shadow.")],
    ids=["beside a plain one", "under two wrappers", "under any names"],
)
def test_a_second_model_is_seen_wherever_it_lies(
    load: Load, state: dict[str, torch.Tensor], chosen: str, rival: str
) -> None:
    averaged = {f"{rival}{key}": value * 0.5 if value.is_floating_point() else value for key, value in state.items()}
    with pytest.raises(KeyMismatch) as refused:
        load({**{f"{chosen}{key}": value for key, value in state.items()}, **averaged})
    assert refused.value.extra["prefixes"] == [chosen, rival]


def test_a_second_copy_of_the_same_model_is_no_question(load: Load, state: dict[str, torch.Tensor]) -> None:
    loaded = load({**state, **{f"module.{key}": value.clone() for key, value in state.items()}})
    assert torch.equal(loaded.module.state_dict()["bn.weight"], state["bn.weight"])


def test_the_hint_names_a_prefix_at_any_depth(load: Load, state: dict[str, torch.Tensor]) -> None:
    deep = {f"module.encoder_{part}.{key}": value + 1 for part in "qk" for key, value in state.items()}
    with pytest.raises(KeyMismatch) as refused:
        load({**deep, "module.queue": torch.zeros(3, 3)})
    assert "prefix='module.encoder_q.'" in (refused.value.told_hint or "")
    assert load({**deep, "module.queue": torch.zeros(3, 3)}, prefix="module.encoder_k.").report.repair is not None


def test_a_stack_of_wrappers_as_deep_as_names_are_long_is_refused_as_quickly_as_any(load: Load) -> None:
    with pytest.raises(KeyMismatch):
        load({"module." * 140 + f"p{index}": torch.zeros(1) for index in range(100)})


def test_twenty_thousand_keys_of_one_tensor_are_refused_in_linear_time(load: Load) -> None:
    shared = torch.zeros(1)
    with pytest.raises(KeyMismatch):
        load({f"module.p{index}": shared for index in range(20_000)})


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


@pytest.mark.parametrize(
    "foreign",
    [
        {"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)},
        {"conv.weight": torch.zeros(8, 3, 3, 3), "other.weight": torch.zeros(2)},
        {"bn.num_batches_tracked": torch.tensor(3)},
        {
            "base_model.model.conv.lora_A.weight": torch.zeros(4, 3),
            "base_model.model.conv.lora_B.weight": torch.zeros(4, 4),
        },
    ],
)
def test_without_strict_a_checkpoint_of_which_nothing_is_usable_is_still_refused(
    load: Load, foreign: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(KeyMismatch):
        load(foreign, strict=False)


def test_what_was_not_loaded_is_named_where_it_acts_unless_it_is_allowed(
    load: Load, state: dict[str, torch.Tensor]
) -> None:
    state["head.weight"] = torch.zeros(7, 4)
    del state["conv.bias"]
    report = load(state, strict=False).report
    assert report.unloaded_keys == ("conv.bias", "head.weight")
    assert report.hint is not None
    assert load(state, strict=False, allow_missing=("head.*",)).report.unloaded_keys == ("conv.bias",)
    del state["head.weight"]
    loaded = load(state, allow_missing=("head.*", "conv.bia?"))
    assert loaded.report.missing_keys == ("conv.bias", "head.weight")
    assert loaded.report.unloaded_keys == ()


def test_what_was_not_loaded_and_does_not_act_is_only_listed(load: Load) -> None:
    report = load({"used.weight": torch.ones(2, 3), "used.bias": torch.ones(2)}, "test/idle", strict=False).report
    assert report.missing_keys == ("idle.weight", "idle.bias", "part.weight", "part.bias")
    assert report.unloaded_keys == ("part.bias",)


def test_initial_values_that_are_more_than_the_process_may_have_are_refused_before_they_are_made(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "memory_left", lambda: 95)
    with pytest.raises(MemoryEstimateExceeded, match="test/idle have 96 bytes"):
        load({"used.weight": torch.ones(2, 3)}, "test/idle", strict=False)


def test_numbers_that_the_architecture_draws_at_random_and_keeps_from_checkpoints_are_named_where_they_act(
    load: Load,
) -> None:
    state = {"layer.weight": torch.ones(4, 3), "layer.bias": torch.ones(4)}
    report = load(state, "test/drawn").report
    assert sorted(report.unloaded_keys) == ["attribute", "buffer", "initial", "listed.0"]
    assert "register them as buffers" in (report.hint or "")
    assert load(state, "test/drawn", allow_missing=("[abil]*",)).report.unloaded_keys == ()


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


@pytest.mark.parametrize("name", ["test/listed", "test/vocoder", "test/normed", "test/tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_loaded_module_computes_what_one_loaded_by_torch_computes(
    load: Load, registry: Registry, name: str, dtype: torch.dtype
) -> None:
    plain = registry.build(name, {}, initialised=True)
    state = {key: torch.rand(value.shape).to(dtype) for key, value in plain.state_dict().items()}
    if name == "test/tied":
        state["decoder.weight"] = state["embedding.weight"]
    plain.load_state_dict(state)
    inputs = torch.randint(5, (2, 3)) if name == "test/tied" else torch.rand(2, 3)
    with torch.no_grad():
        if name == "test/tied":
            assert load(state, name).module.embedding(inputs).equal(plain.embedding(inputs))
        else:
            assert load(state, name).module(inputs).equal(plain(inputs))


def fused_state() -> dict[str, torch.Tensor]:
    apart = {
        f"{name}.{part}": torch.randn((2, 3) if part == "weight" else 2)
        for name in "qkv"
        for part in ("weight", "bias")
    }
    return {
        **apart,
        "out.kernel": torch.randn(3, 2),
        "out.bias": torch.randn(2),
        "head.weight": torch.randn(2, 2),
        "head.bias": torch.randn(2),
    }


def assert_uploads_are_accounted_for(loaded: LoadedModule, state: Mapping[str, torch.Tensor]) -> None:
    """Every uploaded byte stands under a name of the module, with the value that the module holds there."""
    held = loaded.module.state_dict()
    for key, tensor in loaded.uploaded.items():
        if key not in loaded.report.ignored_keys:
            assert held[key].equal(tensor.to(held[key].dtype)), key
    assert sum(t.nbytes for t in loaded.uploaded.values()) == sum(t.nbytes for t in state.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_keys_that_load_hooks_rename_are_known_by_the_names_that_the_module_gives(
    load: Load, dtype: torch.dtype, wrapper: str
) -> None:
    old = {"a.weight_g": torch.rand(4, 1), "a.weight_v": torch.rand(4, 3), "a.bias": torch.rand(4)}
    old |= {"b.weight_g": torch.rand(()), "b.weight_v": torch.rand(2, 4), "b.bias": torch.rand(2)}
    old = {wrapper + key: value.to(dtype) for key, value in old.items()}
    loaded = load(old, "test/normed")
    assert_uploads_are_accounted_for(loaded, old)
    told = {pair.uploaded: pair.loaded for pair in loaded.report.conversions}
    assert told[("a.weight_g",)] == ("a.parametrizations.weight.original0",)
    assert loaded.report.missing_keys == loaded.report.unexpected_keys == loaded.report.ignored_keys == ()


def test_tensors_that_load_hooks_join_split_and_turn_are_accounted_for_element_by_element(load: Load) -> None:
    state = fused_state()
    twice = torch.cat([state.pop("head.weight").flatten(), state.pop("head.bias")])
    state = {**state, "twice": twice, "forgotten": torch.ones(3)}
    loaded = load(state, "test/fused")
    assert_uploads_are_accounted_for(loaded, state)
    told = {pair.loaded: set(pair.uploaded) for pair in loaded.report.conversions}
    assert told[("qkv.weight",)] == {"q.weight", "k.weight", "v.weight"}
    assert told[("out.weight",)] == {"out.kernel"}
    assert told[("head.weight", "head.bias")] == {"twice"}
    assert loaded.report.ignored_keys == ("forgotten",)


def test_a_hook_that_changes_values_is_refused(load: Load) -> None:
    state = fused_state()
    state["head.scaled"] = state.pop("head.weight")
    with pytest.raises(KeyMismatch, match="would change"):
        load(state, "test/fused")


def test_a_file_without_versions_is_read_as_one_of_today_where_the_module_asks_for_one(
    registry: Registry, tmp_path: Path
) -> None:
    state = {"layer.weight": torch.rand(2, 3), "layer.bias": torch.rand(2)}
    save_file(state, tmp_path / "w.safetensors")
    opened = open_checkpoint(tmp_path / "w.safetensors")
    loaded = load_module(registry, "test/stubborn", {}, opened, strict=True, prefix=None)
    assert loaded.module.layer.weight.equal(state["layer.weight"])


def test_what_a_load_hook_raises_is_told(load: Load) -> None:
    state = {"layer.weight": torch.rand(2, 3), "layer.bias": torch.rand(2), "bad": torch.ones(1)}
    with pytest.raises(KeyMismatch, match="KeyError: 'a bad key'"):
        load(state, "test/stubborn")


@pytest.mark.parametrize(
    ("made_with", "asked", "hint"),
    [
        ({"hidden": 32}, {}, 'architecture_options={"hidden":32}'),
        ({"layers": 4}, {}, 'architecture_options={"layers":4}'),
        ({"hidden": 16, "layers": 3}, {}, 'architecture_options={"hidden":16,"layers":3}'),
        ({"bias": False}, {"hidden": 8}, 'architecture_options={"bias":false}'),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_the_hint_names_the_options_and_the_prefix_that_fit(
    load: Load, registry: Registry, made_with: dict[str, Any], asked: dict[str, Any], hint: str, prefix: str
) -> None:
    state = registry.build("test/mlp", made_with, initialised=True).state_dict()
    with pytest.raises(KeyMismatch) as refused:
        load({prefix + key: value for key, value in state.items()}, "test/mlp", options=asked)
    told = str(refused.value.told_hint)
    assert hint in told
    assert "every tensor fits" in told
    assert ("prefix='backbone.'" in told) == (prefix == "backbone.")


def test_what_would_have_fitted_is_told_where_a_part_was_left_initial(load: Load, registry: Registry) -> None:
    state = registry.build("test/net", {"classes": 7}, initialised=True).state_dict()
    report = load(state, strict=False).report
    assert report.unloaded_keys == ("head.weight", "head.bias")
    assert report.hint == ('test/net with classes=7: every tensor fits. Ask for architecture_options={"classes":7}.')


def test_lora_files_are_named_as_such(load: Load) -> None:
    with pytest.raises(KeyMismatch) as refused:
        load(
            {
                "base_model.model.head.lora_A.weight": torch.rand(2, 4),
                "base_model.model.head.lora_B.weight": torch.rand(5, 2),
            }
        )
    assert "merge_and_unload" in str(refused.value.told_hint)


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


def test_members_of_a_config_that_the_options_do_not_name_are_told(load: Load, registry: Registry) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = {"model_type": "bert", "vocab_size": 40, "max_position_embeddings": 32, **small}
    state = registry.build("transformers/bert", config, initialised=True).state_dict()
    assert load(state, "transformers/bert", options=config).report.unknown_options == ()
    told = load(state, "transformers/bert", options={**config, "hiden_dropout": 0.2, "use_cache": False}).report
    assert told.unknown_options == ("hiden_dropout",)
