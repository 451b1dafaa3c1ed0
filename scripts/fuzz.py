"""Bytes made to find new ways through the code that reads what strangers send, guided by what they reach (atheris).

Each target must either read its bytes or refuse them by the error that it is documented to raise: any other exception,
a crash, or an input that takes longer than SECONDS_OF_ONE ends the run with the input in a file.

    scripts/fuzz pickle 900
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app"]):
    from pydantic import TypeAdapter

    from app.conversion.checkpoint.extent import Extent
    from app.conversion.checkpoint.opening import open_checkpoint
    from app.conversion.checkpoint.safetensors_file import read_safetensors
    from app.conversion.checkpoint.torch_files import Pickles
    from app.conversion.job import ConversionOutcome
    from app.domain.checkpoint import CheckpointInspection
    from app.domain.errors import RecastError
    from app.jobs.child_problem import retold
    from app.jobs.messages import Done, Failed, understood
    from app.targets.artifact import MalformedFile
    from app.targets.onnx.reading.wire import fields as read_fields
    from app.targets.onnx.writing.protobuf import fields as written_fields
    from app.targets.onnx.writing.protobuf import len_field, varint_field

import onnx

from tests.hostile.files import hostile_files

SECONDS_OF_ONE = 10
LONGEST = 1 << 14

Target = Callable[[bytes], None]
_outcome, _inspection = TypeAdapter(ConversionOutcome), TypeAdapter(CheckpointInspection)
_scratch = Path(tempfile.mkdtemp(prefix="recast-fuzz-"))


def pickle(data: bytes) -> None:
    try:
        Pickles(data).read()
    except RecastError:
        return


def container(data: bytes) -> None:
    """A whole file: zip, legacy, safetensors, shards, distributed."""
    path = _scratch / "upload"
    path.write_bytes(data)
    try:
        open_checkpoint(path).inspection.model_dump_json()
    except RecastError as error:
        error.problem().model_dump_json()


def safetensors(data: bytes) -> None:
    path = _scratch / "model.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(64))
    try:
        read_safetensors(Extent.of(path))
    except RecastError:
        return


def messages(data: bytes) -> None:
    """What a process says: a ValueError is a crash of the child, and a problem is told by the table of errors."""
    try:
        message = understood(data + b"\n")
        if isinstance(message, Failed):
            assert retold(message.problem).status >= 400
        if isinstance(message, Done):
            for kind in (_outcome, _inspection):
                kind.validate_python(message.result)
    except (ValueError, RecursionError):
        return


def protobuf(data: bytes) -> None:
    """Both halves of the ONNX code: what one writes, the other and the library read alike; nonsense is refused."""
    try:
        whole = list(read_fields(data, 0, len(data)))
    except MalformedFile:
        whole = None
    try:
        parts = list(written_fields(data))
    except (ValueError, IndexError):
        parts = None
    if whole is not None and parts is not None:
        assert b"".join(part for _, part in parts) == data
        assert [number for number, _ in parts] == [number for number, *_ in whole]
    name = data[:100].hex()
    tensor = varint_field(2, 1) + varint_field(1, int.from_bytes(data[:7], "little")) + len_field(8, name.encode())
    read = onnx.TensorProto.FromString(tensor + len_field(9, data))
    assert (read.name, read.raw_data, read.dims[0]) == (name, data, int.from_bytes(data[:7], "little"))


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (pickle, container, safetensors, messages, protobuf)
}


def seeds(target: str) -> Iterator[bytes]:
    """Where to begin: the corpus of hostile files, and what honest parts say."""
    if target == "messages":
        yield b'{"kind":"progress","stage":"load","progress":0.5}'
        yield b'{"kind":"template_wanted","key":"' + b"ab" * 32 + b'"}'
        yield b'{"kind":"failed","problem":{"code":"key_mismatch","status":422,"title":"x","detail":"y","extra":{}}}'
        yield b'{"kind":"done","result":{"format":"torch-zip","bytes":1,"tensors":[],"dtypes":{"float32":1}}}'
        yield b'{"kind":"confinement","in_force":{"files":"in force"},"missing":{}}'
    elif target == "protobuf":
        yield onnx.helper.make_tensor("w", 1, [2], [1.0, 2.0]).SerializeToString()
        yield len_field(7, len_field(5, varint_field(1, 300)))
    else:
        yield from (content for content in map(_cut_to(target), _corpus()) if 0 < len(content) <= LONGEST)


def _corpus() -> Iterator[bytes]:
    for hostile in hostile_files():
        yield hostile.make(_scratch / "canary")


def _cut_to(target: str) -> Callable[[bytes], bytes]:
    """What of a file a target reads."""
    if target == "safetensors":
        return lambda content: content[8:] if content[8:9] == b"{" else b""
    if target == "pickle":
        return lambda content: content[content.find(b"\x80\x02") :][:4096] if b"\x80\x02" in content else b""
    return lambda content: content


def main() -> None:
    target, seconds = sys.argv[1], int(sys.argv[2])
    directory = _scratch / "corpus"
    directory.mkdir()
    for number, seed in enumerate(seeds(target)):
        (directory / str(number)).write_bytes(seed)
    bounds = [f"-max_total_time={seconds}", f"-timeout={SECONDS_OF_ONE}", f"-max_len={LONGEST}", "-rss_limit_mb=3000"]
    atheris.Setup([sys.argv[0], *bounds, *sys.argv[3:], str(directory)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
