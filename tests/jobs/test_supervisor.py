"""The supervisor: results come back, ill-behaved children are named and ended, and nothing of them stays."""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from app.domain.conversion import Stage
from app.jobs.confinement import Limits
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.supervisor import FilesGone, Supervisor, TaskFailed

pytestmark = pytest.mark.anyio

LIMITS = Limits(timeout=60)


async def silent(_: Progress | TemplateWanted) -> None:
    return None


@pytest.fixture
def run(supervisor: Supervisor, tmp_path: Path) -> Callable[..., Any]:
    async def run(task: str, arguments: Any = None, limits: Limits = LIMITS, answer: Any = silent) -> Any:
        return await supervisor.run(
            f"tests.jobs.tasks:{task}", arguments, limits=limits, work_dir=tmp_path, answer=answer
        )

    return run


async def failure_of(running: Any) -> str:
    with pytest.raises(TaskFailed) as failed:
        await running
    return failed.value.problem.code


async def started_by(run: Callable[..., Any], work_dir: Path) -> tuple[asyncio.Task[Any], list[int]]:
    """A task that sleeps, and the pids of its process and of the process that this one started."""
    told = asyncio.Event()

    async def answer(_: Progress | TemplateWanted) -> None:
        told.set()

    running = asyncio.create_task(run("sleep", answer=answer))
    await told.wait()
    return running, printing_to(work_dir)


def printing_to(work_dir: Path) -> list[int]:
    """The processes that print to the log in that directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.readlink(f"/proc/{process.pid}/fd/1") == str(work_dir / "child.log"):
                found.append(process.pid)
    return found


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_task_gives_its_result(run: Any) -> None:
    assert await run("echo", {"a": [1, 2.5, None, "ü"]}) == {"a": [1, 2.5, None, "ü"]}


async def test_all_processes_are_gone_before_a_result_is_used(run: Any, tmp_path: Path) -> None:
    await run("linger")
    assert printing_to(tmp_path) == []


async def test_a_result_of_another_type_is_a_crash(supervisor: Supervisor, tmp_path: Path) -> None:
    running = supervisor.run(
        "tests.jobs.tasks:echo",
        {"a": 1},
        limits=LIMITS,
        work_dir=tmp_path,
        answer=silent,
        result=TypeAdapter(list[int]),
    )
    assert await failure_of(running) == "child_crashed"


async def test_a_process_that_says_too_much_has_crashed(run: Any) -> None:
    assert await failure_of(run("chatter")) == "child_crashed"
    assert await failure_of(run("echo", "x" * 2000, limits=Limits(timeout=60, message_bytes=1000))) == "child_crashed"


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
async def test_text_that_cannot_be_stored_is_replaced(run: Any, text: str) -> None:
    assert await run("echo_json", json.dumps([text, {text: text}])) == ["a\ufffdb", {"a\ufffdb": "a\ufffdb"}]


async def test_several_children_run_at_once(run: Any) -> None:
    results = await asyncio.gather(*(run("echo", number) for number in range(8)))
    assert results == list(range(8))


async def test_progress_arrives_in_order_from_another_process(run: Any) -> None:
    heard = []

    async def answer(message: Progress | TemplateWanted) -> None:
        heard.append(message)

    assert await run("report_progress", answer=answer) != os.getpid()
    assert heard == [Progress(stage=Stage.load, progress=0.25), Progress(stage=Stage.export, progress=0.5)]


async def test_a_designed_error_keeps_its_facts(run: Any) -> None:
    with pytest.raises(TaskFailed) as failed:
        await run("refuse")
    assert failed.value.problem.code == "key_mismatch"
    assert failed.value.problem.extra["missing_keys"] == ["a", "b", "c"]


async def test_an_unforeseen_error_is_named(run: Any) -> None:
    with pytest.raises(TaskFailed) as failed:
        await run("stumble")
    assert failed.value.problem.code == "conversion_failed"
    assert "KeyError" in failed.value.problem.detail


async def test_the_traceback_of_an_unforeseen_error_is_in_the_log(run: Any) -> None:
    with capture_logs() as logged, pytest.raises(TaskFailed):
        await run("stumble")
    assert any("Traceback" in entry.get("said", "") and "KeyError" in entry["said"] for entry in logged)


async def test_a_designed_error_needs_no_traceback(run: Any) -> None:
    with capture_logs() as logged, pytest.raises(TaskFailed):
        await run("refuse")
    assert not [entry for entry in logged if "said" in entry]


@pytest.mark.parametrize(("sent", "told"), [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGSYS"), ("SIGABRT", "SIGABRT")])
async def test_a_crash_names_its_signal_and_is_nobody_elses_doing(run: Any, sent: str, told: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await run("die", sent)
    assert failed.value.problem.code == "child_crashed"
    assert told in failed.value.problem.detail
    assert not failed.value.killed


async def test_an_exit_without_a_result_is_a_failure(run: Any) -> None:
    assert await failure_of(run("leave")) == "conversion_failed"


async def test_what_is_no_message_is_a_crash_and_the_child_is_gone(run: Any) -> None:
    assert await failure_of(run("say_nonsense")) == "child_crashed"


async def test_a_task_that_takes_too_long_is_ended(run: Any, tmp_path: Path) -> None:
    assert await failure_of(run("sleep", limits=Limits(timeout=1))) == "timed_out"
    assert printing_to(tmp_path) == []


async def test_cancelling_ends_the_child_and_all_it_started(run: Any, tmp_path: Path) -> None:
    running, pids = await started_by(run, tmp_path)
    assert len(pids) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(alive(pid) for pid in pids)


async def test_cancelling_at_any_moment_of_the_start_leaves_no_child(run: Any, tmp_path: Path) -> None:
    await run("echo")
    for delay in (0, 0.001, 0.005, 0.01, 0.02, 0.05):
        running = asyncio.create_task(run("sleep"))
        await asyncio.sleep(delay)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert printing_to(tmp_path) == []


async def test_more_memory_than_allowed_is_out_of_memory(run: Any) -> None:
    limits = Limits(timeout=60, memory=100 << 20)
    assert await run("eat_memory", 10 << 20, limits=limits) == 10 << 20
    assert await failure_of(run("eat_memory", 200 << 20, limits=limits)) == "out_of_memory"


async def test_a_larger_file_than_allowed_is_refused(run: Any, tmp_path: Path) -> None:
    limits = Limits(timeout=60, file_bytes=1 << 20)
    large = str(tmp_path / "results" / "large")
    assert await failure_of(run("write_large_file", large, limits=limits)) == "conversion_failed"


async def test_a_child_reaches_no_network(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await run("reach_network", port, limits=Limits(timeout=60, network=True)) == "connected"
        assert await failure_of(run("reach_network", port)) == "conversion_failed"


async def test_a_child_does_not_see_the_services_settings(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECAST_DATABASE_URL", "postgresql://secret")
    assert await run("read_environment") == []


async def test_a_dead_forkserver_is_replaced(run: Any, supervisor: Supervisor) -> None:
    await run("echo")
    forkserver = supervisor._forkserver._process
    assert forkserver
    forkserver.kill()
    assert await run("echo", "again") == "again"


async def test_what_ends_while_its_files_are_not_there_did_not_fail(supervisor: Supervisor, tmp_path: Path) -> None:
    async def read(path: Path) -> Any:
        told = dict(limits=LIMITS, work_dir=tmp_path / "work", answer=silent, readable=(path,))
        return await supervisor.run("tests.jobs.tasks:inspect", str(path), **told)

    (tmp_path / "work").mkdir()
    (tmp_path / "bad").write_bytes(b"bad")
    with pytest.raises(TaskFailed):
        await read(tmp_path / "bad")
    with pytest.raises(FilesGone):
        await read(tmp_path / "gone")
