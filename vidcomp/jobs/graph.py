"""A graph of commands, run side by side, with a bar for each and an ETA for the whole.

Nothing here knows what the commands do: a job is a command line, the jobs that it needs, and how to
tell that it is done. A job that fails takes down only what needs it. A slice of time may be given:
when it is over, what runs is ended and waits for the next one, in which the same commands go on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vidcomp.jobs.executors import Executor, Started

_POLL_S = 0.5
_LOUD_LIMIT = 40
"""Of more jobs than this, a line for each that ends is enough."""


@dataclass
class Job:
    """One command. `progress`: which share of it is done while it runs, 0 if it cannot tell."""

    name: str
    command: list[str]
    needs: tuple[str, ...]
    done: Callable[[], bool]
    expected_s: float
    progress: Callable[[], float] = lambda: 0.0
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    why: str = ""
    started: Started | None = field(default=None, repr=False)


def log_of(out: Path, job: Job) -> Path:
    """Where a job's output goes."""
    return out / "logs" / f"{job.name.replace(' ', '-')}.log"


def execute(
    jobs: Sequence[Job],
    out: Path,
    *,
    executor: Executor,
    console: Console,
    time_limit_s: float | None = None,
) -> None:
    """Run what is not done, as many jobs at a time as the executor has workers.

    On a terminal with bars, elsewhere with a line when a job starts and when it ends.
    """
    for job in jobs:
        if job.state == "waiting" and job.done():
            job.state = "done"
    clock = Eta(jobs, executor.workers)

    def over() -> bool:
        return time_limit_s is not None and clock.elapsed_s() > time_limit_s

    columns = (
        TextColumn("{task.description:24s}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as display:
        whole = display.add_task("all", total=1.0, note="")
        bars: dict[str, TaskID] = {}
        try:
            while not over() and any(job.state in ("waiting", "running") for job in jobs):
                for job in jobs:
                    if over():
                        break
                    if job.state == "waiting" and _start(job, jobs, out, executor):
                        bars[job.name] = display.add_task(job.name, total=1.0, note="")
                        if len(jobs) <= _LOUD_LIMIT:
                            console.print(f"start  {job.name}   (log: {log_of(out, job)})")
                    if job.state == "running":
                        _collect(job, out)
                        display.update(bars[job.name], completed=clock.share(job))
                        if job.state != "running":
                            display.remove_task(bars[job.name])
                            console.print(_ended(job, clock), markup=False)
                display.update(whole, completed=clock.done_share(), note=clock.left())
                if any(job.state == "running" for job in jobs):
                    time.sleep(_POLL_S)
        finally:
            for job in jobs:
                if job.state == "running":
                    if job.started is not None:
                        job.started.stop()
                    job.state = "waiting"


def _start(job: Job, jobs: Sequence[Job], out: Path, executor: Executor) -> bool:
    """Start a job if its needs are met and a worker is free; fail it if its needs have failed."""
    needed = {other.name: other.state for other in jobs if other.name in job.needs}
    failed = [name for name, state in needed.items() if state == "failed"]
    if failed:
        job.state, job.why = "failed", f"needs {failed[0]}, which failed"
        return False
    busy = sum(other.state == "running" for other in jobs) >= executor.workers
    if busy or any(state != "done" for state in needed.values()):
        return False
    job.state, job.began = "running", time.monotonic()
    job.started = executor.start(job.command, log_of(out, job))
    return True


def _collect(job: Job, out: Path) -> None:
    """See whether a running job has ended, and how."""
    assert job.started is not None
    status = job.started.poll()
    job.seconds = time.monotonic() - job.began
    if status is None:
        return
    job.state = "done" if status == 0 else "failed"
    if status != 0:
        lines = log_of(out, job).read_text(errors="replace").strip().splitlines()
        job.why = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"


def _ended(job: Job, clock: "Eta") -> str:
    parts = [f"{job.state:6s} {job.name}", f"{job.seconds:.0f} s", job.why, clock.left()]
    return "   ".join(part for part in parts if part)


class Eta:
    """The time left: the expected seconds of what is undone, at the pace seen so far."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs = jobs
        self.workers = workers
        self.began = time.monotonic()
        self.total_s = sum(job.expected_s for job in jobs)
        self.skipped_s = sum(job.expected_s for job in jobs if job.state == "done")

    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def share(self, job: Job) -> float:
        """How much of a running job is done: what it says itself, else by its time."""
        by_time = job.seconds / max(job.expected_s, job.seconds + 1)
        return min(0.99, job.progress() or by_time)

    def done_s(self) -> float:
        """The expected seconds of what is done."""
        shares = {"waiting": 0.0, "done": 1.0, "failed": 1.0}
        return sum(
            job.expected_s * (self.share(job) if job.state == "running" else shares[job.state])
            for job in self.jobs
        )

    def done_share(self) -> float:
        return self.done_s() / self.total_s if self.total_s else 1.0

    def left(self) -> str:
        """``12 of 75 jobs, about 3 min left``, "" when nothing is."""
        done_here, left_s = self.done_s() - self.skipped_s, self.total_s - self.done_s()
        if left_s <= 0:
            return ""
        # Too little is done at first to tell the pace; then all workers are taken to be busy.
        known = done_here > 0.05 * self.total_s
        pace = self.elapsed_s() / done_here if known else 1 / self.workers
        ended = sum(job.state in ("done", "failed") for job in self.jobs)
        return f"{ended} of {len(self.jobs)} jobs, about {left_s * pace / 60:.1f} min left"
