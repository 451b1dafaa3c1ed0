"""Archives of torch.export: filled from a template, the same bytes for the same weights, and nothing pickled."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.errors import ExportFailed, StaticAxis, TemplateMismatch
from app.targets.artifact import ArtifactRefused, MalformedFile
from app.targets.claims import Claim
from app.targets.pt2.reading.reader import READER
from app.targets.pt2.spec import Pt2Options
from app.targets.pt2.writing.template import Pt2Template
from app.targets.pt2.writing.writer import WRITER
from app.targets.request import ExportRequest
from tests.targets.capturing import Attention, ConvNet, Recurrent, Tied, draw, request_for, train_a_little

KINDS = [ConvNet, Attention, Recurrent, Tied]


def request_of(module: nn.Module, spec: InputSpec | None = None) -> ExportRequest:
    return request_for(module, spec, Pt2Options())


def template_of(request: ExportRequest, directory: Path) -> Pt2Template:
    path = directory / "template"
    built = WRITER.build_template(WRITER.capture(request, "torch.export"), request, path)
    assert built.against_reuse is None
    return WRITER.load_template(path)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_and_another_batch_compute_what_the_model_computes(kind: type[nn.Module], tmp_path: Path) -> None:
    template = template_of(request_of(train_a_little(kind(), 1)), tmp_path)
    request = request_of(train_a_little(kind(), 2))
    written = WRITER.fill(template, request.module.state_dict(), request, tmp_path / "model.pt2")
    runner = READER.open(written.path, request, threads=1)
    for batch in (1, 3):
        x = draw(request.signature.inputs[0], batch)
        with torch.inference_mode():
            torch.testing.assert_close(*runner.run({"x": x}).values(), request.module(x))
    assert WRITER.is_filled(template, written)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_on_disk_is_what_is_claimed_of_its_place(kind: type[nn.Module], tmp_path: Path) -> None:
    request = request_of(train_a_little(kind(), 1))
    template = template_of(request, tmp_path)
    state = request.module.state_dict()
    WRITER.fill(template, state, request, tmp_path / "model.pt2")
    claims, places = dict(WRITER.claims(template)), []
    for stored in READER.tensors(tmp_path / "model.pt2"):
        for place in (stored.name, *stored.aliases):
            places.append(place)
            _holds(claims[place], state, stored.data.tobytes())
    assert sorted(places) == sorted(claims)
    assert set(state) <= set(claims)


def _holds(claim: Claim, state: dict[str, Tensor], data: bytes) -> None:
    if claim.evaluate is not None:
        assert claim.evaluate(state.__getitem__).contiguous().view(-1).view(torch.uint8).numpy().tobytes() == data


def test_the_file_says_nothing_of_this_server_and_holds_no_pickle(tmp_path: Path) -> None:
    template = template_of(request_of(train_a_little(ConvNet(), 1)), tmp_path)
    request = request_of(train_a_little(ConvNet(), 2))
    WRITER.fill(template, request.module.state_dict(), request, tmp_path / "model.pt2")
    content = (tmp_path / "model.pt2").read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        table = json.loads(archive.read("archive/data/weights/model_weights_config.json"))["config"]
        assert archive.read("archive/data/sample_inputs/model.pt") == b""
    assert set(table) == set(request.module.state_dict())
    assert not any(entry["use_pickle"] for entry in table.values())


def test_equal_weights_give_equal_bytes_in_a_fresh_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.targets.capturing import ConvNet, train_a_little;"
        "from tests.targets.pt2.test_template import request_of, template_of, WRITER;"
        "request = request_of(train_a_little(ConvNet(), 1));"
        "directory = Path(sys.argv[1]); template = template_of(request, directory);"
        "WRITER.fill(template, request.module.state_dict(), request, directory / 'model.pt2')"
    )
    (tmp_path / "other").mkdir()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "other")], check=True, timeout=300)
    request = request_of(train_a_little(ConvNet(), 1))
    WRITER.fill(template_of(request, tmp_path), request.module.state_dict(), request, tmp_path / "model.pt2")
    assert (tmp_path / "other/model.pt2").read_bytes() == (tmp_path / "model.pt2").read_bytes()


def test_weights_of_another_form_do_not_fill_it(tmp_path: Path) -> None:
    request = request_of(train_a_little(ConvNet(), 1))
    template = template_of(request, tmp_path)
    state = {**request.module.state_dict(), "fc.bias": torch.zeros(7)}
    with pytest.raises(TemplateMismatch):
        WRITER.fill(template, state, request, tmp_path / "model.pt2")


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([row[None] * 2 for row in x])


class Tagger(nn.Module):
    """Recurrent layers of both kinds, several layers, both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 3, num_layers=2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        states, last = self.gru(x)
        out, (hidden, cell) = self.lstm(states)
        return out, last, hidden, cell


def test_recurrent_layers_take_sequences_of_any_length(tmp_path: Path) -> None:
    spec = InputSpec(name="x", shape=("batch", "length", 4))
    signature = Signature(inputs=(spec,), axes=(Axis(name="batch"), Axis(name="length", sample=7)))
    module = train_a_little(Tagger(), 1)
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    request = ExportRequest(module, signature, Pt2Options(), sample)
    template = template_of(request, tmp_path)
    written = WRITER.fill(template, module.state_dict(), request, tmp_path / "model.pt2")
    runner = READER.open(written.path, EagerModel(module, signature), threads=1)
    for batch, length in ((1, 7), (3, 2), (2, 1), (2, 40)):
        x = torch.randn(batch, length, 4)
        with torch.inference_mode():
            torch.testing.assert_close(tuple(runner.run({"x": x}).values()), module(x))


def test_an_axis_that_the_code_fixes_is_refused_in_words() -> None:
    with pytest.raises(StaticAxis):
        WRITER.capture(request_of(FixedBatch(), InputSpec(name="x", shape=("batch", 3))), "torch.export")


class Baked(nn.Module):
    """Keeps its weight under a name that no state dict knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32))
        self.kept = self.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept


def test_a_weight_that_became_a_constant_is_no_template(tmp_path: Path) -> None:
    request = request_of(Baked(), InputSpec(name="x", shape=("batch", 32)))
    with pytest.raises(ExportFailed):
        WRITER.build_template(WRITER.capture(request, "torch.export"), request, tmp_path / "template")


@pytest.mark.parametrize("record", ["data/constants/custom_obj_0", "data/weights/model.pt", "models/other.json"])
def test_records_that_torch_would_unpickle_are_refused_before_torch_sees_them(record: str, tmp_path: Path) -> None:
    request = request_of(train_a_little(ConvNet(), 1))
    path = tmp_path / "model.pt2"
    WRITER.fill(template_of(request, tmp_path), request.module.state_dict(), request, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"archive/{record}", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(MalformedFile):
        READER.tensors(path)
    with pytest.raises(ArtifactRefused):
        READER.open(path, request, threads=1)


def test_what_the_program_says_of_itself_is_read_without_torch_loading_it(tmp_path: Path) -> None:
    request = request_of(train_a_little(ConvNet(), 1))
    WRITER.fill(template_of(request, tmp_path), request.module.state_dict(), request, tmp_path / "model.pt2")
    facts = READER.open(tmp_path / "model.pt2", request, threads=1).facts()
    assert facts.constants is not None
    assert facts.constants.norms == (("batch_norm", 1e-5),)
    assert facts.training == []
    assert facts.axes is not None
    (batch, *rest) = facts.axes["x"]
    assert isinstance(batch, str)
    assert rest == [3, 8, 8]
