"""What is made again when a plug-in's layouts come, and what is not."""

from dataclasses import replace

import pytest

from app.api.layouts import LayoutReader
from app.architectures.known import known_layouts, packed
from app.database import layouts
from app.database.session import Database
from app.domain.catalog import Catalog
from app.domain.layout_file import dump
from tests.api.server import description, known_layouts_of

RESNET18 = "torchvision/resnet18"
PLUGIN = "birds/resnet"

pytestmark = pytest.mark.anyio


async def test_the_index_of_what_the_package_brings_is_not_made_again_for_a_plugin(database: Database):
    version = next(file.version for file in known_layouts() if file.source == "torchvision")
    plugin = description(PLUGIN).model_copy(update={"plugin": "birds", "source_digest": "1"})
    catalog = Catalog([plugin, description(RESNET18).model_copy(update={"library_version": version})])
    reader = LayoutReader(database)
    stored, brought = await reader.indexes(catalog)
    assert (PLUGIN in stored, PLUGIN in brought, RESNET18 in brought) == (False, False, True)
    source = layouts.source_of(plugin)
    document = dump(*source, [replace(layout, architecture=PLUGIN) for layout in known_layouts_of(RESNET18)])
    async with database.transaction() as session:
        await layouts.record(session, source, packed(document))
    renewed, same = await reader.indexes(catalog)
    assert PLUGIN in renewed
    assert same is brought
    assert (await reader.indexes(catalog)) == (renewed, brought)
