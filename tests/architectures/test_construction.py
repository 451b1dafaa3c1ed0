"""Built modules: nothing uninitialised survives, constants are real, ties stay ties, values are reproducible."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from app.architectures.construction import initialised, outline, skeleton
from app.architectures.named_tensors import named_tensors, tied_groups
from app.architectures.registry import Registry
from app.domain.errors import BuildFailed, InvalidOptions

SMALL_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SMALL_TEXT |= {"vocab_size": 100}
SPREAD: list[tuple[str, dict[str, object]]] = [
    ("torchvision/resnet18", {}),
    ("torchvision/swin_t", {}),
    ("torchvision/swin_v2_t", {}),
    ("torchvision/googlenet", {}),
    ("torchvision/quantized_mobilenet_v2", {}),
    ("torchvision/lraspp_mobilenet_v3_large", {}),
    ("torchvision/ssdlite320_mobilenet_v3_large", {}),
    ("torchvision/raft_small", {}),
    ("timm/vit_tiny_patch16_224", {}),
    ("timm/swin_tiny_patch4_window7_224", {}),
    ("timm/swinv2_cr_tiny_224", {}),
    ("timm/vit_small_patch16_rope_mixed_224", {}),
    ("timm/vit_tiny_r_s16_p8_224", {}),
    ("timm/efficientvit_m0", {}),
    ("timm/coat_lite_tiny", {}),
    ("timm/levit_128s", {}),
    ("timm/beit_base_patch16_224", {}),
    ("transformers/bert", SMALL_TEXT),
    ("transformers/gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "task": "causal-lm"}),
    ("transformers/llama", {**SMALL_TEXT, "task": "causal-lm"}),
    ("transformers/deberta-v2", SMALL_TEXT),
    ("transformers/wav2vec2", SMALL_TEXT),
    ("sample/tagger", {}),
    ("sample/tied", {}),
]


def constants(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the module that is not in its state dict."""
    for name, part in module.named_modules():
        for key in part._non_persistent_buffers_set:
            if part._buffers[key] is not None:
                yield f"{name}.{key}", part._buffers[key]
        for key, value in vars(part).items():
            for place, tensor in enumerate(value if isinstance(value, list | tuple) else [value]):
                if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter):
                    yield f"{name}.{key}.{place}", tensor


@pytest.mark.parametrize(("name", "options"), SPREAD, ids=[name for name, _ in SPREAD])
def test_a_built_module_is_the_initialised_one_without_its_values(
    registry: Registry, name: str, options: dict[str, object]
) -> None:
    built = registry.build(name, options)
    real = registry.build(name, options, initialised=True)

    assert all(tensor.is_meta for tensor in built.state_dict().values())
    assert not any(tensor.is_meta for tensor in real.state_dict().values())
    assert not built.training
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in built.state_dict().items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in real.state_dict().items()
    }
    assert tied_groups(named_tensors(built)) == tied_groups(named_tensors(real))
    expected = dict(constants(real))
    for key, tensor in constants(built):
        assert torch.equal(tensor, expected.pop(key)), key
    assert not expected


def test_initialised_modules_are_the_same_each_time_and_leave_the_random_state_alone(registry: Registry) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = registry.build("sample/tagger", {}, initialised=True).state_dict()
    second = registry.build("sample/tagger", {}, initialised=True).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_tied_language_model_names_its_ties(registry: Registry) -> None:
    assert tied_groups(named_tensors(registry.build("sample/tied", {}))) == [("embedding.weight", "head.weight")]


def test_parameters_registered_twice_stay_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = nn.Parameter(torch.ones(2))
            self.first = weight
            self.second = weight

    module = skeleton(Twice)
    assert module.first is module.second


def test_a_constant_made_where_the_weights_are_gets_its_values() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(4))
            self.register_buffer("positions", torch.arange(4, device=self.weight.device), persistent=False)

    assert skeleton(Positions).positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kept_in", ["buffer", "attribute", "list", "dictionary"])
def test_a_constant_computed_from_initial_weights_is_never_left_without_values(kept_in: str) -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            scale = self.linear.weight.detach().abs().sum() + 1.0
            match kept_in:
                case "buffer":
                    self.register_buffer("scale", scale, persistent=False)
                case "attribute":
                    self.scale = scale
                case "list":
                    self.scale = [scale]
                case "dictionary":
                    self.scale = {"scale": scale}

    def scale_of(module: nn.Module) -> Tensor:
        scale = module.scale
        return scale[0] if isinstance(scale, list) else scale["scale"] if isinstance(scale, dict) else scale

    built = skeleton(Norm)
    assert torch.equal(scale_of(built), scale_of(initialised(Norm)))
    assert built.linear.weight.is_meta


def test_a_buffer_filled_from_weights_is_filled() -> None:
    class Copying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.register_buffer("first", torch.zeros(3, 3), persistent=False)
            self.first.copy_(self.linear.weight.detach())

    assert torch.equal(skeleton(Copying).first, initialised(Copying).first)


class Recurrent(nn.Module):
    """Keeps weak references to its parameters and moves itself while it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, bidirectional=True)
        self.to("cpu")
        self.half = nn.Linear(2, 2)


class WeightNormed(nn.Module):
    """Computes a plain attribute from parameters, with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv1d(2, 3, 3))
        self.turned = nn.utils.weight_norm(nn.ConvTranspose1d(3, 2, 4, 2, 1))


class SpectralNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.old = nn.utils.spectral_norm(nn.Linear(3, 3))
        self.new = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        self.turned = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))


class Listed(nn.Module):
    """Keeps its parameters in a list and a dictionary beside the state dict, and finds a scale from their values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.weights = [self.linear.weight]
        self.by_name = {"bias": self.linear.bias}
        self.scale = float(self.linear.weight.abs().max())


class Checking(nn.Module):
    """Raises what it likes where its initial weights are not to its taste."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        values = self.linear.weight.detach().cpu().numpy() if not self.linear.weight.is_meta else None
        if values is None:
            raise ValueError("no values")


@pytest.mark.parametrize("constructor", [Recurrent, WeightNormed, SpectralNormed, Listed, Checking])
def test_what_cannot_be_built_without_values_is_built_with_them_and_gives_them_back(
    constructor: Callable[[], nn.Module],
) -> None:
    built, real = skeleton(constructor), initialised(constructor)
    assert all(tensor.is_meta for tensor in built.state_dict().values())
    assert {key: tensor.shape for key, tensor in built.state_dict().items()} == {
        key: tensor.shape for key, tensor in real.state_dict().items()
    }
    built.load_state_dict(real.state_dict(), assign=True)
    copy.deepcopy(built)


def test_whatever_holds_a_tensor_of_the_state_dict_holds_the_one_on_meta() -> None:
    built = skeleton(Listed)
    assert built.weights[0] is built.linear.weight
    assert built.by_name["bias"] is built.linear.bias


def test_the_default_configuration_of_a_very_large_model_is_built_without_its_memory(registry: Registry) -> None:
    module = registry.build("transformers/mixtral", {"num_hidden_layers": 4, "task": "causal-lm"})
    assert sum(parameter.numel() for parameter in module.parameters()) > 5e9


class MadeOfZeros(nn.Module):
    """Its parameter would be 8 TB."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2**20, 2**21))


def test_parameters_of_any_size_made_by_any_factory_cost_nothing() -> None:
    assert skeleton(MadeOfZeros).weight.shape == (2**20, 2**21)


def test_a_large_constant_has_its_values() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.mask = torch.ones(8, 2**20).tril()

    built = skeleton(Masked)
    assert built.linear.weight.is_meta
    assert built.mask.sum() == 8 * 9 / 2


def test_a_fault_is_not_told_as_a_want_of_memory() -> None:
    def construct() -> nn.Module:
        MadeOfZeros()
        raise TypeError("None ** 0.5")

    with pytest.raises(TypeError, match=r"None \*\* 0.5"):
        skeleton(construct)


def test_defaults_that_the_library_itself_cannot_build_are_called_that(registry: Registry) -> None:
    with pytest.raises(BuildFailed) as failed:
        registry.build("transformers/esm", {})
    assert "config.json" in (failed.value.problem().hint or "")
    registry.build("transformers/esm", {"vocab_size": 33, "num_hidden_layers": 1})


def test_what_a_constructor_raises_is_told(registry: Registry) -> None:
    with pytest.raises(BuildFailed, match="Invalid pool type: map") as failed:
        registry.build("timm/resnet18", {"global_pool": "map"})
    assert failed.value.problem().stage == "build"


def test_frozen_batch_normalisation_has_the_state_of_published_detection_weights(registry: Registry) -> None:
    options = {"frozen_batch_norm": True, "frozen_batch_norm_eps": 0.0}
    keys = registry.build("torchvision/fasterrcnn_resnet50_fpn", options).state_dict()
    assert "backbone.body.bn1.running_mean" in keys
    assert not [key for key in keys if key.endswith("num_batches_tracked")]


def test_what_the_constructor_says_of_its_options_is_heard_at_once() -> None:
    """Not after the whole module was made with random values, which took minutes and 27 GB for a large one."""
    made = 0

    def construct() -> nn.Module:
        nonlocal made
        made += 1
        nn.Linear(4, 4)
        raise InvalidOptions("a classifier needs pad_token_id")

    for build in (skeleton, outline):
        made = 0
        with pytest.raises(InvalidOptions):
            build(construct)
        assert made == 1


def test_a_module_that_no_memory_holds_is_never_made_with_values() -> None:
    def construct() -> nn.Module:
        layers = nn.ModuleList(nn.Linear(1 << 20, 1 << 20, bias=False) for _ in range(64))
        raise KeyError(f"rope of {len(layers)} layers")

    for build in (skeleton, outline):
        with pytest.raises(KeyError, match="rope"):
            build(construct)


def test_an_outline_allocates_nothing_for_its_parameters() -> None:
    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.empty(4, 4)
            self.allocated = not weight.is_meta
            self.weight = nn.Parameter(weight)

    assert not outline(Made).allocated
    assert skeleton(Made).allocated, "where values may be needed, what is small has some"
