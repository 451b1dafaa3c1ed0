"""TorchScript by trace and by script, reloaded from the bytes written."""

import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import bind, call, flatten
from app.architectures.sample import sample_inputs
from app.domain.architecture import InputSpec, Signature
from app.domain.errors import ExportFailed
from app.targets.request import ExportRequest
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing import exporter as torchscript
from app.targets.torchscript.writing.exporter import Method
from tests.targets.capturing import save_script
from tests.targets.nets import case

METHODS = pytest.mark.parametrize("method", ["trace", "script"])


def written(request: ExportRequest, method: Method, path: Path) -> bytes:
    save_script(torchscript.capture(request, method), path)
    return path.read_bytes()


def worst_error(content: bytes, request: ExportRequest, seed: int = 1) -> float:
    loaded = torch.jit.load(io.BytesIO(content))
    inputs = sample_inputs(request.signature, {"batch": 3, "length": 4}, torch.Generator().manual_seed(seed))
    args, kwargs = bind(request, inputs)
    with torch.inference_mode():
        got = flatten(loaded(*args, **kwargs), request.signature)
    expected = call(request, inputs)
    assert list(got) == list(expected)
    return max(float((got[name] - expected[name]).abs().max()) for name in got)


@METHODS
@pytest.mark.parametrize("kind", ["conv_bn", "lstm", "tied", "attention"])
def test_the_file_computes_what_the_module_computes_and_keeps_its_state_dict(
    method: Method, kind: str, tmp_path: Path
) -> None:
    request = case(kind).request(TorchScriptOptions())
    content = written(request, method, tmp_path / "model.pt")
    assert worst_error(content, request) < 1e-5
    assert list(torch.jit.load(io.BytesIO(content)).state_dict()) == list(request.module.state_dict())


def test_a_dictionary_output_with_keyword_inputs_is_scripted_and_refused_in_words_by_trace(tmp_path: Path) -> None:
    request = case("two_inputs").request(TorchScriptOptions())
    assert worst_error(written(request, "script", tmp_path / "model.pt"), request) < 1e-6
    with pytest.raises(ExportFailed, match="forward"):
        torchscript.capture(request, "trace")


def test_script_keeps_a_branch_and_trace_warns_that_it_froze_it(tmp_path: Path) -> None:
    request = case("branching").request(TorchScriptOptions())
    content = written(request, "script", tmp_path / "model.pt")
    assert max(worst_error(content, request, seed) for seed in range(6)) < 1e-6
    assert any("TracerWarning" in line for line in torchscript.capture(request, "trace").warnings)


def test_a_dataclass_is_a_tuple_of_its_fields_in_a_trace_and_refused_in_words_by_script(tmp_path: Path) -> None:
    request = case("dataclass").request(TorchScriptOptions())
    loaded = torch.jit.load(io.BytesIO(written(request, "trace", tmp_path / "model.pt")))
    args, kwargs = bind(request, request.sample)
    expected = call(request, request.sample).values()
    given = loaded(*args, **kwargs)
    assert isinstance(given, tuple)
    assert all(torch.equal(left, right) for left, right in zip(given, expected, strict=True))
    assert not request.module._forward_hooks
    with pytest.raises(ExportFailed) as refused:
        torchscript.capture(request, "script")
    assert refused.value.told_hint


def test_a_result_that_has_no_type_is_refused_without_its_numbers() -> None:
    class Unlike(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"a": x, "b": [x]}

    signature = Signature(inputs=(InputSpec(name="x", shape=(2,)),), axes=())
    request = ExportRequest(Unlike().eval(), signature, TorchScriptOptions(), {"x": torch.tensor([0.625, 0.375])})
    with pytest.raises(
        ExportFailed, match=r"no type for what the model gives: Dictionary .* consistent type"
    ) as refused:
        torchscript.capture(request, "trace")
    assert "0.625" not in refused.value.detail


@METHODS
@pytest.mark.parametrize("option", ["freeze", "optimize_for_inference"])
def test_freezing_and_optimising_keep_the_result(method: Method, option: str, tmp_path: Path) -> None:
    request = case("conv_bn").request(TorchScriptOptions.model_validate({option: True}))
    assert worst_error(written(request, method, tmp_path / "model.pt"), request) < 1e-5


class Blurred(nn.Module):
    """Has a kernel of its own that is no weight, so that it becomes a constant."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernel = torch.full((channels, 3, 1, 1), 0.5)
        self.last = nn.Conv2d(channels, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.nn.functional.conv2d(image, self.kernel)).flatten(1)


@METHODS
@pytest.mark.parametrize("channels", [1, 4])
def test_a_layout_that_torch_cannot_save_leaves_the_frozen_module(
    channels: int, method: Method, tmp_path: Path
) -> None:
    request = case("conv_bn").request(TorchScriptOptions(optimize_for_inference=True))
    module = Blurred(channels).eval()
    captured = torchscript.capture(replace(request, module=module), method)
    assert any("layouts for one CPU" in line for line in captured.warnings)
    save_script(captured, tmp_path / "model.pt")
    (image,) = request.sample.values()
    assert torch.allclose(torch.jit.load(tmp_path / "model.pt")(image), module(image), atol=1e-5)


@METHODS
@pytest.mark.parametrize("kind", ["conv_bn", "lstm"])
def test_the_bytes_do_not_depend_on_what_the_process_compiled_before(method: Method, kind: str, tmp_path: Path) -> None:
    request = case(kind).request(TorchScriptOptions())
    first = written(request, method, tmp_path / "first.pt")
    torch.jit.script(case(kind).module)
    torch.jit.trace(case(kind).module.eval(), tuple(request.sample.values()), check_trace=False)
    assert written(request, method, tmp_path / "second.pt") == first


def test_the_bytes_are_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.targets.torchscript.writing import exporter as torchscript;"
        "from app.targets.torchscript.spec import TorchScriptOptions; from tests.targets.nets import case;"
        "from tests.targets.capturing import save_script;"
        "captured = torchscript.capture(case('conv_bn').request(TorchScriptOptions()), 'trace');"
        "save_script(captured, Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "other.pt")], check=True, timeout=120)
    torch.jit.script(case("conv_bn").module)
    here = written(case("conv_bn").request(TorchScriptOptions()), "trace", tmp_path / "here.pt")
    assert (tmp_path / "other.pt").read_bytes() == here


@METHODS
def test_no_path_of_this_machine_and_no_time_is_in_the_file(method: Method, tmp_path: Path) -> None:
    content = written(case("conv_bn").request(TorchScriptOptions()), method, tmp_path / "model.pt")
    for trace in (b"/site-packages", str(Path.cwd()).encode(), str(sys.prefix).encode(), b"debug_pkl"):
        assert trace not in content
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_tensor_records_are_stored_and_aligned_for_memory_mapping(tmp_path: Path) -> None:
    content = written(case("conv_bn").request(TorchScriptOptions()), "trace", tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        for info in archive.infolist():
            header = content[info.header_offset : info.header_offset + 30]
            start = (
                info.header_offset
                + 30
                + int.from_bytes(header[26:28], "little")
                + int.from_bytes(header[28:30], "little")
            )
            assert info.compress_type == zipfile.ZIP_STORED
            assert start % 64 == 0


def test_debug_files_stay_when_asked_for(tmp_path: Path) -> None:
    captured = torchscript.capture(case("conv_bn").request(TorchScriptOptions()), "trace")
    save_script(captured, tmp_path / "model.pt", keep_debug=True)
    assert b"debug_pkl" in (tmp_path / "model.pt").read_bytes()


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    written(case("conv_bn").request(TorchScriptOptions()), "trace", tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
