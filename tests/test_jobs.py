"""Jobs: order, failure and interruption, with real processes."""

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from vidcomp.jobs import Eta, Job, execute, log_of


def job(name: str, code: str, *needs: str, done: bool = False) -> Job:
    return Job(name, [sys.executable, "-c", code], needs, lambda: done, expected_s=1.0)


def run(jobs: list[Job], out: Path, workers: int = 2) -> str:
    (out / "logs").mkdir(exist_ok=True)
    console = Console(file=io.StringIO(), width=200)
    execute(jobs, out, workers=workers, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_job_runs_after_what_it_needs(tmp_path: Path) -> None:
    made = tmp_path / "made"
    jobs = [
        job("reads", f"print(open({str(made)!r}).read())", "writes"),
        job("writes", f"import time; time.sleep(0.5); open({str(made)!r}, 'w').write('hello')"),
    ]
    run(jobs, tmp_path)
    assert [j.state for j in jobs] == ["done", "done"]
    assert log_of(tmp_path, jobs[0]).read_text().strip() == "hello"


def test_a_failure_takes_down_only_what_needs_it_and_says_why(tmp_path: Path) -> None:
    jobs = [
        job("breaks", "import sys; print('some output'); sys.exit('error: no such thing')"),
        job("needs it", "pass", "breaks"),
        job("needs that", "pass", "needs it"),
        job("other", "pass"),
    ]
    shown = run(jobs, tmp_path)
    assert [j.state for j in jobs] == ["failed", "failed", "failed", "done"]
    assert jobs[0].why == "no such thing"
    assert "breaks" in jobs[1].why and "no such thing" in shown


def test_what_is_done_is_not_run(tmp_path: Path) -> None:
    jobs = [
        job("done already", "raise SystemExit(1)", done=True),
        job("next", "pass", "done already"),
    ]
    assert "done already" not in run(jobs, tmp_path)
    assert [j.state for j in jobs] == ["done", "done"]


@pytest.mark.parametrize("workers", [1, 2])
def test_never_more_at_once_than_workers(tmp_path: Path, workers: int) -> None:
    code = (
        "import pathlib, time, uuid\n"
        f"here = pathlib.Path({str(tmp_path)!r}) / f'running-{{uuid.uuid4()}}'\n"
        "here.touch(); time.sleep(0.6)\n"
        "print(len(list(here.parent.glob('running-*')))); here.unlink()"
    )
    jobs = [job(f"job {k}", code) for k in range(4)]
    run(jobs, tmp_path, workers)
    at_once = [int(log_of(tmp_path, j).read_text()) for j in jobs]
    assert max(at_once) <= workers


def test_an_interruption_ends_the_processes(tmp_path: Path) -> None:
    started = tmp_path / "started"
    jobs = [job("long", f"open({str(started)!r}, 'w'); import time; time.sleep(60)")]

    def interrupt() -> float:
        if started.exists():
            raise KeyboardInterrupt
        return 0.0

    jobs[0].progress = interrupt
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(jobs, tmp_path)
    assert jobs[0].process is not None and jobs[0].process.poll() is not None
    assert time.monotonic() - began < 30


def test_the_time_left_is_the_undone_share_at_the_pace_seen() -> None:
    jobs = [job("a", ""), job("b", ""), job("c", "")]
    jobs[0].expected_s, jobs[1].expected_s, jobs[2].expected_s = 60.0, 120.0, 60.0
    jobs[2].state = "done"  # from an earlier call: it says nothing of the pace
    clock = Eta(jobs, workers=2)
    assert clock.left() == "about 1.5 min left"  # 180 s on two workers
    jobs[0].state = "done"
    clock.began = time.monotonic() - 30  # 60 expected seconds took 30
    assert clock.left() == "about 1.0 min left"
    assert clock.done_share() == pytest.approx(0.5)
    jobs[1].state = "done"
    assert clock.left() == ""
