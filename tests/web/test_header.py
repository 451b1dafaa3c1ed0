"""The reader of checkpoints in the browser, held against files as torch and safetensors write them."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from safetensors.torch import save as save_safetensors

READ = """async (content) => {
  const { readHeader } = await import("/static/header.js");
  const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
  const told = await readHeader(new File([bytes], "weights"));
  return told && { ...told, tensors: [...told.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]) };
}"""


def saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def read(tab: Page, content: bytes) -> Any:
    import base64

    tab.goto("/problems")
    return tab.evaluate(READ, base64.b64encode(content).decode())


def told_of(state: dict[str, torch.Tensor]) -> list[list[Any]]:
    return [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in state.items()]


STATE = OrderedDict(
    {
        "conv.weight": torch.zeros(3, 2, 5, 5),
        "half": torch.zeros(4, dtype=torch.float16),
        "brain": torch.zeros(4, 1, dtype=torch.bfloat16),
        "count": torch.zeros((), dtype=torch.int64),
        "mask": torch.zeros(2, dtype=torch.bool),
    }
)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_state_dict_of_torch_is_read(tab: Page, protocol: int):
    told = read(tab, saved(STATE, pickle_protocol=protocol))
    assert (told["format"], told["path"], told["tensors"]) == ("torch-zip", [], told_of(STATE))


def test_the_weights_of_a_training_checkpoint_are_found(tab: Page):
    module = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    content = {"epoch": 3, "net": {"model": module.state_dict()}, "optim": optimizer.state_dict(), "args": {"lr": 0.1}}
    told = read(tab, saved(content))
    assert (told["path"], told["tensors"]) == (["net", "model"], told_of(module.state_dict()))


def test_parameters_and_views_are_tensors(tab: Page):
    state = {"p": torch.nn.Parameter(torch.zeros(2, 3)), "v": torch.zeros(10, 10)[2:5, ::2]}
    assert read(tab, saved(state))["tensors"] == [["p", "float32", [2, 3]], ["v", "float32", [3, 5]]]


def test_safetensors_are_read(tab: Page):
    told = read(tab, save_safetensors(dict(STATE)))
    assert told["format"] == "safetensors"
    assert sorted(told["tensors"]) == sorted(told_of(STATE))


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("fetch('https://example.org')",)


def test_nothing_of_a_pickle_is_run(tab: Page):
    content = saved({"model": STATE, "attack": Attack()})
    told = read(tab, content)
    assert told["tensors"] == told_of(STATE)


TWO_STATE_DICTS = saved({"a": STATE, "b": {"w": torch.ones(2)}})


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no zip", b"\xff" * 100, pickle.dumps({"a": 1}), TWO_STATE_DICTS]
)  # fmt: skip
def test_what_cannot_be_told_is_left_to_the_service(tab: Page, content: bytes):
    import base64

    tab.goto("/problems")
    told = tab.evaluate(f"content => ({READ})(content).catch(() => null)", base64.b64encode(content).decode())
    assert told is None
