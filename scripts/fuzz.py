"""Bytes made to find new ways through the code that reads what strangers send, guided by what they reach (atheris).

Each target must either read its bytes or refuse them by the error that it is documented to raise: any other exception,
a crash, or an input that takes longer than SECONDS_OF_ONE ends the run with the input in a file.

    scripts/fuzz pickle 900
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app"]):
    from pydantic import TypeAdapter

    from app.api import digests, preferences, ranges, resumable
    from app.api.bodies import parse_object, validated
    from app.api.filenames import safe_filename
    from app.conversion.checkpoint.extent import Extent
    from app.conversion.checkpoint.opening import open_checkpoint
    from app.conversion.checkpoint.safetensors_file import read_safetensors
    from app.conversion.checkpoint.torch_files import Pickles
    from app.conversion.job import ConversionOutcome
    from app.delivery.onnx_file import NotReadable, stored_tensors, weight_free
    from app.domain.checkpoint import CheckpointInspection
    from app.domain.errors import RecastError
    from app.domain.recipe import RecipeRequest, recipe_of
    from app.jobs.child_problem import retold
    from app.jobs.messages import Done, Failed, understood
    from app.remotes.buckets import bucket_and_path
    from app.remotes.destinations import checked_publication
    from app.remotes.egress import Egress, checked_url
    from app.remotes.grants import checked_uri, is_within, without_query
    from app.remotes.mlflow import model_parts
    from app.targets.artifact import MalformedFile
    from app.targets.onnx.reading.wire import fields as read_fields
    from app.targets.onnx.writing.protobuf import fields as written_fields
    from app.targets.onnx.writing.protobuf import len_field, varint_field

import onnx
from starlette.datastructures import Headers

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


def graphs(data: bytes) -> None:
    """What the api reads of an artifact itself: nothing beyond its bounds, and what it keeps is protobuf again."""

    async def read(start: int, end: int) -> bytes:
        return data[start:end]

    for made in (weight_free, stored_tensors):
        with suppress(NotReadable):
            found = asyncio.run(made(read, len(data)))
            assert len(found) <= 2 * len(data) + 64


def programs(data: bytes) -> None:
    """The same as a container, from TorchScript archives and torch.export's on."""
    container(data)


def recipes(data: bytes) -> None:
    """The body of a recipe: what is taken can be stored, and is what the same body means again."""
    try:
        asked = validated(RecipeRequest, parse_object(data.decode(), "body"))
        recipe = recipe_of(asked)
    except (RecastError, UnicodeDecodeError):
        return
    assert recipe_of(asked).digest == recipe.digest
    assert "\\u0000" not in json.dumps(recipe.told(), allow_nan=False)


def uris(data: bytes) -> None:
    """What clients name to import from, to publish to and to be told at."""
    text = data.decode("utf-8", "replace")
    for read in (_import, _publish, _webhook):
        with suppress(RecastError):
            read(text)


def _import(text: str) -> None:
    uri = checked_uri(text)
    path = without_query(uri)
    assert is_within(uri, path)
    assert is_within(f"{path}/x", path)
    if uri.startswith(("s3:", "gs:")):
        bucket_and_path(uri)
    if uri.startswith("models:"):
        model_parts(uri)


def _publish(text: str) -> None:
    checked_publication(text)
    checked_publication({"uri": text, "name": text})


def _webhook(text: str) -> None:
    url = checked_url(text, Egress())
    assert url.scheme == "https"
    assert url.hostname not in ("localhost.", "127.0.0.1", "::1", "0.0.0.0")


def headers(data: bytes) -> None:
    """Headers that are read by hand: tus', digests, ranges, preferences, names of files."""
    text = data.decode("latin-1")
    for name in ("upload-metadata", "upload-checksum", "repr-digest", "x-content-sha256"):
        with suppress(RecastError):
            told = Headers(raw=[(name.encode(), data)])
            resumable._metadata(text)
            resumable._checksum(told)
            digests.told_sha256(told)
    with suppress(RecastError):
        found = ranges.requested_range(text, 1000)
        assert found is None or 0 <= found[0] < found[1] <= 1000
    ranges.matches(text, '"tag"')
    wait = preferences.wait_seconds([text])
    assert wait is None or 0 <= wait <= preferences.LONGEST_WAIT
    name = safe_filename(data.decode("utf-8", "surrogateescape"))
    assert name is None or ("/" not in name and name.isprintable() and name not in (".", ".."))


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (pickle, container, safetensors, messages, protobuf, graphs, programs, recipes, uris, headers)
}
BEGINNINGS = {
    "messages": (
        b'{"kind":"progress","stage":"load","progress":0.5}',
        b'{"kind":"template_wanted","key":"' + b"ab" * 32 + b'"}',
        b'{"kind":"failed","problem":{"code":"key_mismatch","status":422,"title":"x","detail":"y","extra":{}}}',
        b'{"kind":"done","result":{"format":"torch-zip","bytes":1,"tensors":[],"dtypes":{"float32":1}}}',
        b'{"kind":"confinement","in_force":{"files":"in force"},"missing":{}}',
    ),
    "protobuf": (
        onnx.helper.make_tensor("w", 1, [2], [1.0, 2.0]).SerializeToString(),
        len_field(7, len_field(5, varint_field(1, 300))),
    ),
    "graphs": (
        len_field(
            7, len_field(5, varint_field(1, 300) + len_field(8, b"w") + len_field(9, b"abcd")) + len_field(1, b"n")
        ),
        len_field(7, len_field(5, len_field(1, b"\x02\x03"))) + varint_field(1, 8),
    ),
    "recipes": (
        b'{"name":"own/net","base":"timm/resnet50","replace":{"fc":[{"Dropout":{"p":0.2}},{"Linear":{"out_features":37}}]}}',
        b'{"name":"own/net","base":"timm/resnet50","children":-2,"prefix":"0","heads":{"1":["AdaptiveConcatPool2d"]}}',
        b'{"name":"own/net","base":"b","take":{"low":"layer2"},"inputs":{"x":["batch",3,8,8]},"outputs":{"a":"low"}}',
        b'{"name":"a/b","base":"c","heads":{"h":{"layers":[{"layers":["ReLU"],"name":"n"}],"input":["x"]}},"outputs":["h"]}',
    ),
    "uris": (
        *(b"s3://bucket/a/b.pt", b"gs://bucket/a?x=1", b"hf://org/repo/w.bin@main", b"models:/name/3"),
        *(
            b"https://host:8443/a%2fb/../c?d#e",
            b"https://[::ffff:127.0.0.1]/",
            b"oci://host/name:tag",
            b"file:///etc/passwd",
        ),
    ),
    "headers": (
        *(
            b"filename dy5wdGg=,labels e30=",
            b"sha256 " + b"A" * 43 + b"=",
            b"sha-256=:" + b"A" * 43 + b"=:",
            b"ab" * 32,
        ),
        *(b"bytes=0-9", b"bytes=-5", b'W/"tag", "a"', b"respond-async, wait=5", b"../../w\\x.pth"),
    ),
}
"""Where to begin, of readers that take no files."""


def seeds(target: str) -> Iterator[bytes]:
    """The corpus of hostile files, or what honest parts say."""
    if target in BEGINNINGS:
        yield from BEGINNINGS[target]
    else:
        yield from (content for content in map(_cut_to(target), _corpus(target)) if 0 < len(content) <= LONGEST)


def _corpus(target: str) -> Iterator[bytes]:
    for hostile in hostile_files():
        if target != "programs" or hostile.id.startswith("programs-"):
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
