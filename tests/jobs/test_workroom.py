"""Work directories: one per worker, and what dead workers left is removed."""

import subprocess
import sys
from pathlib import Path

from app.jobs.workroom import work_room

HOLDER = """
import sys
from pathlib import Path
from app.jobs.workroom import work_room
with work_room(Path(sys.argv[1])) as room:
    (room / "half").write_text("half")
    print(room, flush=True)
    sys.stdin.read()
"""


def test_rooms_of_living_workers_stay_and_those_of_dead_ones_go(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    room = Path(other.stdout.readline().strip())
    with work_room(tmp_path) as ours:
        assert ours != room
        assert (room / "half").exists()
    assert not ours.exists()
    other.kill()
    other.wait()
    with work_room(tmp_path):
        assert not room.exists()
