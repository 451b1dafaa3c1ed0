"""The embedded server: one per data directory, shared by processes, recovered after any end."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest

from app.database import embedded
from app.database.embedded import EmbeddedPostgres
from app.domain.errors import Unavailable

HOLDER = """
import sys, time
from pathlib import Path
from app.database.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
server.close()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that other users may pass through, as the server is another user when the tests run as root."""
    with TemporaryDirectory(prefix="recast-test-") as directory:
        yield Path(directory)
        for process in postmasters(Path(directory)):
            process.kill()


def postmasters(data_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        words = process.info["cmdline"] or []
        if str(data_dir.resolve() / "postgres" / "data") in words and "-D" in words:
            found.append(process)
    return found


def start_holder(data_dir: Path) -> subprocess.Popen[str]:
    """Another process that holds on to the server until its input ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline().startswith("postgresql://")
    return holder


def insert_one(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row
        return int(row[0])


def kill(process: psutil.Process) -> None:
    process.kill()
    process.wait(20)


def test_rows_outlive_a_stop_and_no_server_stays(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
    assert postmasters(data_dir) == []
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1


def test_it_speaks_over_a_private_socket_only(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW server_version_num").fetchone() >= ("180000",)  # type: ignore[operator]
    assert (data_dir / "postgres" / "data").stat().st_mode & 0o077 == 0


def test_the_server_stays_until_the_last_process_lets_go(data_dir: Path) -> None:
    holder = start_holder(data_dir)
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1
    assert len(postmasters(data_dir)) == 1
    holder.communicate()
    assert postmasters(data_dir) == []


def test_a_server_that_outlived_its_killed_holder_is_found_and_stopped_in_the_end(data_dir: Path) -> None:
    holder = start_holder(data_dir)
    holder.kill()
    holder.wait()
    orphan = postmasters(data_dir)[0]
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
        assert postmasters(data_dir) == [orphan]
    assert postmasters(data_dir) == []


def test_it_recovers_after_everything_was_killed(data_dir: Path) -> None:
    holder = start_holder(data_dir)
    url = EmbeddedPostgres(data_dir).url
    insert_one(url)
    holder.kill()
    kill(postmasters(data_dir)[0])
    assert (data_dir / "postgres" / "data" / "postmaster.pid").exists()
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1


def test_a_server_whose_directory_is_not_there_is_waited_for_and_not_made_anew(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
        (postmaster,) = [p for p in postmasters(data_dir) if p.ppid() == 1]
        os.kill(postmaster.pid, signal.SIGKILL)
        postmaster.wait(20)
        (data_dir / "postgres").rename(data_dir / "away")
        for instead in ("nothing", "an empty directory"):
            if instead != "nothing":
                (data_dir / "postgres").mkdir()
            with pytest.raises((Unavailable, FileNotFoundError)):
                server.ensure_running()
        assert [path.name for path in (data_dir / "postgres").iterdir()] == ["start.lock"]
        shutil.rmtree(data_dir / "postgres")
        (data_dir / "away").rename(data_dir / "postgres")
        server.ensure_running()
        insert_one(server.url)


def test_a_server_that_does_not_stop_in_time_fails_nobody(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 1)
    server = EmbeddedPostgres(data_dir)
    insert_one(server.start())
    (postmaster,) = [p for p in postmasters(data_dir) if p.ppid() == 1]
    postmaster.suspend()
    server.close()
    postmaster.resume()
    with EmbeddedPostgres(data_dir) as next_one:
        assert count(next_one.url) == 1


def test_a_server_that_is_stopped_by_another_meanwhile_fails_nobody(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(data_dir)
    insert_one(server.start())
    servers = postmasters(data_dir)
    for process in servers:
        process.kill()
    psutil.wait_procs(servers, 20)
    (data_dir / "postgres" / "data" / "postmaster.pid").unlink()
    ended = subprocess.Popen(["true"])
    process = os.pidfd_open(ended.pid)
    ended.wait()
    monkeypatch.setattr(server, "_postmaster", lambda: nullcontext(process))  # it lived a moment ago
    server.close()
    os.close(process)


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
    pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{data_dir}\n1\n5432\n{data_dir}\n\n  1 1\nready   \n")
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1


def test_it_waits_for_a_postmaster_that_is_slow_to_answer(data_dir: Path) -> None:
    holder = start_holder(data_dir)
    postmaster = postmasters(data_dir)[0]
    postmaster.send_signal(signal.SIGSTOP)
    late = subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {postmaster.pid}"])
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
    late.wait()
    assert postmasters(data_dir) == [postmaster]
    holder.communicate()


def test_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for holder in holders:
        assert holder.stdout
        assert holder.stdout.readline().startswith("postgresql://")
    assert len(postmasters(data_dir)) == 1
    for holder in holders:
        holder.communicate()
    assert postmasters(data_dir) == []


@pytest.mark.parametrize("name", ["with space and 'quotes'", "long-" * 30, "ünï"])
def test_any_directory_will_do(data_dir: Path, name: str) -> None:
    with EmbeddedPostgres(data_dir / name) as server:
        insert_one(server.url)
        assert count(server.url) == 1


def test_starting_says_nothing_of_runtime_directories(data_dir: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOLDER, str(data_dir)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stderr == ""


def test_the_services_role_can_run_no_program(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TEMP TABLE told (line text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY told FROM PROGRAM 'id'")


def test_nobody_enters_without_the_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        password = server.url.partition("@")[0].rpartition(":")[2]
        assert len(password) > 40
        assert (data_dir / "postgres" / "password").stat().st_mode & 0o777 == 0o600
        for other in (server.url.replace(password, "guessed"), server.url.replace(f"recast:{password}", "postgres")):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(other)


def test_a_cluster_of_an_earlier_version_is_taken_over(data_dir: Path) -> None:
    """In which the service was superuser, trusted at the socket, and all that it made was the superuser's."""
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
    earlier = "ALTER TABLE kept OWNER TO postgres;\nALTER DATABASE postgres OWNER TO postgres;\n"
    server._run("postgres", "--single", "-D", str(data_dir / "postgres" / "data"), "postgres", told=earlier)
    (data_dir / "postgres" / "data" / "pg_hba.conf").write_text("local all all trust\n")
    (data_dir / "postgres" / "password").unlink()
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)
            connection.execute("ALTER TABLE kept ADD COLUMN m int")
