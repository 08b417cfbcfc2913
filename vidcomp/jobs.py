"""A graph of commands, run as processes side by side, with a bar for each and an ETA for the whole.

Nothing here knows what the commands do: a job is a command line, the jobs that it needs, and how to
tell that it is done. A job that fails takes down only what needs it.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_POLL_S = 0.5


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
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)


def log_of(out: Path, job: Job) -> Path:
    """Where a job's output goes."""
    return out / "logs" / f"{job.name.replace(' ', '-')}.log"


def execute(jobs: Sequence[Job], out: Path, *, workers: int, console: Console) -> None:
    """Run what is not done, `workers` jobs at a time, the machine's cores shared out among them.

    On a terminal with bars, elsewhere with a line when a job starts and when it ends.
    """
    for job in jobs:
        if job.done():
            job.state = "done"
    clock = Eta(jobs, workers)
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
            while any(job.state in ("waiting", "running") for job in jobs):
                for job in jobs:
                    if job.state == "waiting" and _start(job, jobs, out, workers):
                        bars[job.name] = display.add_task(job.name, total=1.0, note="")
                        console.print(f"start  {job.name}   (log: {log_of(out, job)})")
                    elif job.state == "running":
                        _collect(job, out)
                        display.update(bars[job.name], completed=clock.share(job))
                        if job.state != "running":
                            display.remove_task(bars[job.name])
                            console.print(_ended(job, clock), markup=False)
                display.update(whole, completed=clock.done_share(), note=clock.left())
                time.sleep(_POLL_S)
        finally:
            for job in jobs:
                if job.process is not None and job.process.poll() is None:
                    job.process.terminate()
                    job.process.wait()


def _start(job: Job, jobs: Sequence[Job], out: Path, workers: int) -> bool:
    """Start a job if its needs are met and a worker is free; fail it if its needs have failed."""
    needed = {other.name: other.state for other in jobs if other.name in job.needs}
    failed = [name for name, state in needed.items() if state == "failed"]
    if failed:
        job.state, job.why = "failed", f"needs {failed[0]}, which failed"
        return False
    busy = sum(other.state == "running" for other in jobs) >= workers
    if busy or any(state != "done" for state in needed.values()):
        return False
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    with log_of(out, job).open("wb") as log:
        job.process = subprocess.Popen(
            job.command, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    job.state, job.began = "running", time.monotonic()
    return True


def _collect(job: Job, out: Path) -> None:
    """See whether a running job has ended, and how."""
    assert job.process is not None
    status = job.process.poll()
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
        return self.done_s() / self.total_s

    def left(self) -> str:
        """``about 3 min left``, "" when nothing is."""
        done_here, left_s = self.done_s() - self.skipped_s, self.total_s - self.done_s()
        if left_s <= 0:
            return ""
        elapsed = time.monotonic() - self.began
        # Too little is done at first to tell the pace; then all workers are taken to be busy.
        pace = elapsed / done_here if done_here > 0.05 * self.total_s else 1 / self.workers
        return f"about {left_s * pace / 60:.1f} min left"
