"""Worker processes: tasks are handed out one at a time, with progress and a clean end.

Why not a pool of the standard library: `multiprocessing.Pool` waits for ever when a worker dies,
and `ProcessPoolExecutor` leaves its workers behind when it is killed itself. Here each worker has a
pipe of its own, and whoever is at its other end learns of a death by its closing: the parent at
once, a worker when it next reports.

Processes are spawned, never forked: torch has threads by then.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from vidcomp.config import UserError

Work = Callable[[Iterable[int]], Iterable[int]]
"""Does the tasks that it is given, and yields how much it has done since it yielded last."""

_PATIENCE_S = 5.0
"""How long a worker has to tidy up before it is killed."""


def num_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(work: Work, tasks: Sequence[int], *, workers: int) -> Generator[int]:
    """Yield what `work` yields in any of `workers` processes, until all `tasks` are done.

    UserError and OSError of a worker are raised here. However this ends, no worker is left.
    """
    todo = iter(tasks)
    with _started(work, min(workers, len(tasks))) as running:
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                task = None
                try:
                    message = pipe.recv()
                    if message is None:  # it asks for a task
                        task = next(todo, None)
                        pipe.send(task)
                except (EOFError, ConnectionError):
                    running[pipe].join()
                    raise UserError(_obituary(running[pipe].exitcode)) from None
                if isinstance(message, BaseException):
                    raise message
                if message is not None:
                    yield message
                elif task is None:
                    running.pop(pipe).join()


@contextlib.contextmanager
def _started(work: Work, workers: int) -> Generator[dict[Connection, BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, BaseProcess] = {}
    # Ctrl-C goes to all processes of a terminal. The workers inherit that it is blocked, and end
    # when their parent says so: none of them prints a traceback. Starting the tracker of resources,
    # which the first spawn would do, unblocks it.
    resource_tracker.ensure_running()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()  # so that the pipe closes when the worker dies
            running[ours] = process
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        yield running
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(_PATIENCE_S)
            process.kill()
            process.join()


def _serve(work: Work, pipe: Connection) -> None:
    """The life of a worker."""
    # As an exception, so that a file that is half written is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def asked() -> Generator[int]:
        pipe.send(None)
        while (task := pipe.recv()) is not None:
            yield task
            pipe.send(None)

    try:
        for done in work(asked()):
            pipe.send(done)
    except (EOFError, ConnectionError):
        sys.exit(1)  # the parent was killed
    except (UserError, OSError) as error:
        pipe.send(error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to tidy up


def _obituary(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        cause = "killed, perhaps for want of memory: fewer need less, as with workers=1"
    elif exitcode is not None and exitcode < 0:
        cause = signal.Signals(-exitcode).name
    else:
        cause = f"exit status {exitcode}, its own words are above"
    return f"a worker died ({cause}); the same command goes on"
