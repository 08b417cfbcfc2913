"""Worker processes do every task once, and end with the first mistake, death, or parent."""

import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from vidcomp.config import UserError
from vidcomp.workers import in_processes, num_cpus


def note(folder: Path, tasks: Iterable[int]) -> Iterator[int]:
    """Leave a file for each task, with the number of the process in it."""
    for task in tasks:
        (folder / str(task)).write_text(str(os.getpid()))
        yield task


def fail(error: Exception, tasks: Iterable[int]) -> Iterator[int]:
    for task in tasks:
        if task == 1:
            raise error
        yield task


def die(status: int, tasks: Iterable[int]) -> Iterator[int]:
    for task in tasks:
        if task == 1:
            if status < 0:
                os.kill(os.getpid(), -status)
            os._exit(status)
        yield task


def linger(folder: Path, tasks: Iterable[int]) -> Iterator[int]:
    """Never done with a task; half a file is there meanwhile, which an exception removes."""
    for task in tasks:
        part = folder / f"{task} {os.getpid()}"
        try:
            part.write_text("half")
            while True:
                yield task
                time.sleep(0.02)
        finally:
            part.unlink()


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def pids_in(folder: Path) -> set[int]:
    return {int(path.name.split()[1]) for path in folder.iterdir()}


def test_every_task_is_done_once_by_somebody_else(tmp_path: Path) -> None:
    work = functools.partial(note, tmp_path)
    done = list(in_processes(work, range(40), workers=2))
    assert sorted(done) == list(range(40))
    doers = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert len(doers) <= 2 and os.getpid() not in doers
    assert not any(alive(pid) for pid in doers)
    assert list(in_processes(work, [], workers=2)) == []


@pytest.mark.parametrize(
    "error", [UserError("b.mp4 is broken"), OSError(errno.ENOSPC, "No space left", "x.mp4")]
)
def test_a_workers_mistake_is_raised_here(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        list(in_processes(functools.partial(fail, error), range(9), workers=2))
    assert str(raised.value) == str(error)
    assert getattr(raised.value, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize("status, words", [(-signal.SIGKILL, "workers=1"), (3, "exit status 3")])
def test_a_dead_worker_is_one_clear_line(status: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        list(in_processes(functools.partial(die, status), range(9), workers=2))
    assert "\n" not in str(raised.value)


def test_whoever_stops_listening_leaves_nobody_behind(tmp_path: Path) -> None:
    done = in_processes(functools.partial(linger, tmp_path), range(9), workers=2)
    while len(workers := pids_in(tmp_path)) < 2:
        next(done)
    assert all(alive(pid) for pid in workers)
    began = time.monotonic()
    done.close()
    assert time.monotonic() - began < 4
    assert not any(alive(pid) for pid in workers)
    assert list(tmp_path.iterdir()) == [], "a worker that is stopped tidies up"


PARENT = """
import functools, pathlib, signal, sys
from vidcomp.cli import command
from vidcomp.workers import in_processes
from test_workers import linger

# A shell's background job, as a test run may be, has Ctrl-C ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

def main(*_):
    work = functools.partial(linger, pathlib.Path(sys.argv[1]))
    for _ in in_processes(work, range(9), workers=2):
        pass

command("", main, positional=None, argv=[])
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path: Path, stop: signal.Signals) -> None:
    """Ctrl-C reaches all processes of a terminal, as here; other signals the parent alone."""
    paths = os.pathsep.join(path for path in sys.path if path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    if stop is signal.SIGINT:
        os.killpg(parent.pid, stop)
    else:
        parent.send_signal(stop)
    try:
        said = parent.communicate(timeout=30)[1]  # returns when no process has its stderr any more
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    if stop is signal.SIGINT:
        assert parent.returncode == 130 and said.startswith("error: interrupted")


def test_num_cpus_is_what_this_process_may_use() -> None:
    show = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    show += "from vidcomp.workers import num_cpus; print(num_cpus())"
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert int(shown.stdout) == 1 <= num_cpus()
