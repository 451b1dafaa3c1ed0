"""Work directories: one per worker, and what dead workers left is removed."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.jobs.workroom import abandoned_rooms, work_room

HOLDER = """
import sys
from pathlib import Path
from app.jobs.workroom import work_room
with work_room(Path(sys.argv[1])) as room:
    (room / "half").write_text("half")
    print(room, flush=True)
    sys.stdin.read()
"""


@pytest.mark.anyio
async def test_rooms_of_living_workers_stay_and_those_of_dead_ones_go(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    room = Path(other.stdout.readline().strip())
    with work_room(tmp_path) as ours:
        assert ours != room
        async with abandoned_rooms(tmp_path) as ended:
            assert ended == []
        assert (room / "half").exists()
    assert not ours.exists()
    other.kill()
    other.wait()
    async with abandoned_rooms(tmp_path) as ended:
        assert ended == [room.name]
        assert room.exists()
    assert not room.exists()
