"""Reading a sharded checkpoint: an index, and the files over which the tensors are spread.

The index is what transformers and accelerate write: {"metadata": ..., "weight_map": {tensor: file}}.
"""

from collections.abc import Mapping

from app.conversion.checkpoint.extent import Extent
from app.conversion.checkpoint.json_table import read_table
from app.conversion.checkpoint.names import check_key, shown
from app.conversion.checkpoint.safetensors_file import read_safetensors
from app.conversion.checkpoint.stored_tensors import Stored
from app.conversion.checkpoint.torch_files import Contents, read_legacy, read_zip
from app.conversion.checkpoint.unwrap import unwrap
from app.conversion.checkpoint.zipped_directory import ZippedDirectory
from app.domain.checkpoint_format import HEAD, recognise_head
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge

INDEX = ".index.json"
MAX_SHARDS = 1_000

_READERS = {"torch-zip": read_zip, "torch-legacy": read_legacy, "safetensors": read_safetensors}


def index_of(names: list[str]) -> str | None:
    """The index among the files of a zip, rather of safetensors; None without one. Raises CorruptCheckpoint for two."""
    found = [name for name in names if name.endswith(INDEX) and not name.rpartition("/")[2].startswith(".")]
    found = [name for name in found if name.endswith(f".safetensors{INDEX}")] or found
    if len(found) > 1:
        raise CorruptCheckpoint(f"The zip holds {len(found)} indexes: {', '.join(map(shown, found[:5]))}.")
    return found[0] if found else None


def read_sharded(directory: ZippedDirectory, index: str) -> Contents:
    """The tensors of all shards, in the index's order.

    Raises CorruptCheckpoint when the index and its files disagree, and what reading one file does.
    """
    places = _weight_map(directory.file(index))
    folder = index[: len(index) - len(index.rpartition("/")[2])]
    shards = {shard: _shard(directory.file(folder + shard)) for shard in dict.fromkeys(places.values())}
    tensors: dict[str, Stored] = {}
    for name, shard in places.items():
        if name not in shards[shard]:
            raise CorruptCheckpoint(f"{name!r} is not in {shown(shard)}, where the index says.", tensor=name)
        tensors[name] = shards[shard][name]
    left = sum(len(held) for held in shards.values()) - len(tensors)
    notes = (f"{left} tensors that the index does not name were left out",) if left else ()
    return Contents(tensors, (f"read from {len(shards)} shards", *notes))


def _weight_map(index: Extent) -> Mapping[str, str]:
    places = read_table(index, "The index").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise CorruptCheckpoint("The index has no weight_map of tensors to files.")
    for name in places:
        check_key(name)
    shards = set(places.values())
    if len(shards) > MAX_SHARDS:
        raise PayloadTooLarge(f"The index names {len(shards):,} files; at most {MAX_SHARDS:,} are read.")
    if any("/" in shard or "\\" in shard or not shard for shard in shards):
        raise CorruptCheckpoint("The index names a file that does not lie beside it.")
    return places


def _shard(file: Extent) -> dict[str, Stored]:
    root = _READERS[recognise_head(file.read(HEAD))](file).root
    return unwrap(root, "")[0].tensors
