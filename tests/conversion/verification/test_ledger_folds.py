"""The rounding bound: every honest order of evaluation is within, and what a weight fault changes is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.claims import ConvBnFold
from app.conversion.verification.ledger.content import ONNX_DTYPES
from app.conversion.verification.ledger.folds import carries, conv_bn

CODES = {dtype: code for code, dtype in ONNX_DTYPES.items()}


def stored(tensor: Tensor) -> StoredTensor:
    data = tensor.detach().contiguous().view(torch.uint8).reshape(-1).numpy()
    return StoredTensor("t", tuple(tensor.shape), CODES[tensor.dtype], data)


def tensors(seed: int) -> dict[str, Tensor]:
    """Weights over many magnitudes, with a dead channel, a tiny variance and a cancelling bias."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    values = {
        "w": draw(16, 4, 3, 3) * 10.0 ** (draw(16, 4, 3, 3) * 2),
        "b": draw(16) * 10,
        "g": draw(16) * 10.0 ** draw(16),
        "beta": draw(16),
        "m": draw(16) * 3,
        "v": draw(16).abs() * 10.0 ** (draw(16) * 2),
    }
    values["g"][3], values["v"][5], values["m"][7] = 0.0, 1e-12, values["b"][7]
    return values


def fold(part: str) -> ConvBnFold:
    return ConvBnFold(part, "w", "b", "g", "beta", "m", "v", eps=1e-5)


def by_division(t: dict[str, Tensor]) -> Tensor:
    return t["g"] / torch.sqrt(t["v"] + 1e-5)


def by_reciprocal_root(t: dict[str, Tensor]) -> Tensor:
    return t["g"] * torch.rsqrt(t["v"] + 1e-5)


def by_power(t: dict[str, Tensor]) -> Tensor:
    return (t["v"] + 1e-5) ** -0.5 * t["g"]


@pytest.mark.parametrize("scale", [by_division, by_reciprocal_root, by_power])
@pytest.mark.parametrize("seed", range(20))
def test_every_order_of_evaluation_is_within_the_bound(scale: Callable[[dict[str, Tensor]], Tensor], seed: int) -> None:
    t = tensors(seed)
    s = scale(t)
    weight = t["w"] * s[:, None, None, None]
    biases = [(t["b"] - t["m"]) * s + t["beta"], t["b"] * s + (t["beta"] - t["m"] * s)]
    assert carries(stored(weight), conv_bn(fold("weight"), t.__getitem__, torch.float32)) is not None
    for bias in biases:
        assert carries(stored(bias), conv_bn(fold("bias"), t.__getitem__, torch.float32)) is not None


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_what_faults_change_is_beyond_the_bound(part: str) -> None:
    t = tensors(0)
    folded = conv_bn(fold(part), t.__getitem__, torch.float32)
    exact = folded.value.float()
    assert carries(stored(exact), folded) is not None
    for element in torch.nonzero(exact.reshape(-1).abs() > 1e-30).flatten().tolist()[::7]:
        changed = exact.clone().reshape(-1)
        changed[element] *= 1 + 1e-5
        beyond = abs(changed[element].double() - folded.value.reshape(-1)[element]) > folded.bound.reshape(-1)[element]
        assert (carries(stored(changed.reshape(exact.shape)), folded) is None) == bool(beyond)
    assert carries(stored(exact.bfloat16().float()), folded) is None
    assert carries(stored(exact.half().float()), folded) is None


def test_grouped_transposed_convolutions_fold_along_their_own_axis() -> None:
    torch.manual_seed(0)
    layer, norm = nn.ConvTranspose2d(6, 4, 2, groups=2), nn.BatchNorm2d(4).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    values = {f"c.{k}": v.detach() for k, v in layer.state_dict().items()}
    values |= {f"n.{k}": v.detach() for k, v in norm.state_dict().items()}
    names = ("c.weight", "c.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var")
    parts = [
        conv_bn(ConvBnFold(part, *names, eps=norm.eps, axis=1, groups=2), values.__getitem__, torch.float32).value
        for part in ("weight", "bias")
    ]
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected = norm.double()(layer.double()(x))
    found = nn.functional.conv_transpose2d(x, parts[0], parts[1], groups=2)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_fold_in_half_precision_has_the_bound_of_half_precision() -> None:
    t = {name: value.half() for name, value in tensors(1).items()}
    t = {name: value.clamp(-4, 4) for name, value in t.items()} | {"v": torch.rand(16).half() + 0.5}
    weight = t["w"] * by_division(t)[:, None, None, None]
    assert carries(stored(weight), conv_bn(fold("weight"), t.__getitem__, torch.float16)) is not None
    assert carries(stored(weight * 1.1), conv_bn(fold("weight"), t.__getitem__, torch.float16)) is None
