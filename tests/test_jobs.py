"""Jobs: order, failure, interruption and slices of time; and the executors, with real processes."""

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from vidcomp.config import UserError
from vidcomp.jobs import Eta, Executor, Job, execute, log_of, make_executor
from vidcomp.jobs.executors import Here, Processes


def job(name: str, code: str, *needs: str, done: bool = False) -> Job:
    return Job(name, [sys.executable, "-c", code], needs, lambda: done, expected_s=1.0)


def run(
    jobs: list[Job],
    out: Path,
    workers: int = 2,
    *,
    executor: Executor | None = None,
    time_limit_s: float | None = None,
) -> str:
    (out / "logs").mkdir(exist_ok=True)
    console = Console(file=io.StringIO(), width=200)
    executor = executor or Processes(workers)
    execute(jobs, out, executor=executor, console=console, time_limit_s=time_limit_s)
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
    assert jobs[0].started is not None and jobs[0].started.poll() is not None
    assert jobs[0].state == "waiting", "it goes on when the same command is given again"
    assert time.monotonic() - began < 30


def test_the_time_left_is_the_undone_share_at_the_pace_seen() -> None:
    jobs = [job("a", ""), job("b", ""), job("c", "")]
    jobs[0].expected_s, jobs[1].expected_s, jobs[2].expected_s = 60.0, 120.0, 60.0
    jobs[2].state = "done"  # from an earlier call: it says nothing of the pace
    clock = Eta(jobs, workers=2)
    assert clock.left() == "1 of 3 jobs, about 1.5 min left"  # 180 s on two workers
    jobs[0].state = "done"
    clock.began = time.monotonic() - 30  # 60 expected seconds took 30
    assert clock.left() == "2 of 3 jobs, about 1.0 min left"
    assert clock.done_share() == pytest.approx(0.5)
    jobs[1].state = "done"
    assert clock.left() == ""


def test_a_slice_of_time_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    jobs = [job("quick", "pass"), job("long", "import time; time.sleep(60)"), job("next", "pass")]
    jobs[2].needs = ("long",)
    began = time.monotonic()
    run(jobs, tmp_path, time_limit_s=2.0)
    assert time.monotonic() - began < 30
    assert [j.state for j in jobs] == ["done", "waiting", "waiting"]
    assert jobs[1].started is not None and jobs[1].started.poll() is not None


def tool(folder: Path, name: str, code: str) -> Job:
    """A job that runs a file, as the tools are."""
    path = folder / f"{name}.py"
    path.write_text(code)
    return Job(name, [sys.executable, str(path), "word"], (), lambda: False, expected_s=1.0)


class TestHere:
    """One after the other in this process."""

    def test_tools_get_their_words_and_failures_stay_theirs(self, tmp_path: Path) -> None:
        jobs = [
            tool(tmp_path, "says", "import sys; print(sys.argv[1:])"),
            tool(tmp_path, "refuses", "import sys; print('error: no'); sys.exit(2)"),
            tool(tmp_path, "breaks", "{}['key']"),
            tool(tmp_path, "ends", "raise SystemExit"),
        ]
        words = list(sys.argv)
        run(jobs, tmp_path, executor=Here())
        assert [j.state for j in jobs] == ["done", "failed", "failed", "done"]
        assert log_of(tmp_path, jobs[0]).read_text().strip() == "['word']"
        assert [j.why for j in jobs] == ["", "no", "KeyError: 'key'", ""]
        assert sys.argv == words

    @pytest.mark.parametrize("code", ["raise KeyboardInterrupt", "raise SystemExit(130)"])
    def test_an_interruption_is_not_taken_for_a_failure(self, tmp_path: Path, code: str) -> None:
        jobs = [tool(tmp_path, "stops", code), tool(tmp_path, "next", "pass")]
        with pytest.raises(KeyboardInterrupt):
            run(jobs, tmp_path, executor=Here())
        assert [j.state for j in jobs] == ["waiting", "waiting"]

    def test_a_slice_starts_nothing_once_it_is_over(self, tmp_path: Path) -> None:
        jobs = [tool(tmp_path, f"job {k}", "import time; time.sleep(0.3)") for k in range(4)]
        run(jobs, tmp_path, executor=Here(), time_limit_s=0.4)
        states = [j.state for j in jobs]
        assert states[0] == "done" and states[-1] == "waiting"


class TestCluster:
    """submitit's own executor of local processes in place of SLURM."""

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Executor:
        pytest.importorskip("submitit")
        options = {"cluster": "local", "timeout_min": 1}
        return make_executor("cluster", workers=2, folder=tmp_path / "cluster", options=options)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_jobs_run_and_fail_with_their_reason(self, cluster: Executor, tmp_path: Path) -> None:
        jobs = [
            job("writes", f"open({str(tmp_path / 'made')!r}, 'w').write('x'); print('hello')"),
            job("reads", f"print(open({str(tmp_path / 'made')!r}).read())", "writes"),
            job("breaks", "import sys; sys.exit('error: no such thing')"),
        ]
        run(jobs, tmp_path, executor=cluster)
        assert [j.state for j in jobs] == ["done", "done", "failed"]
        assert jobs[2].why == "no such thing"
        assert "hello" in log_of(tmp_path, jobs[0]).read_text()

    def test_an_option_that_submitit_does_not_know(self, tmp_path: Path) -> None:
        pytest.importorskip("submitit")
        options = {"cluster": "local", "tiemout_min": 1}
        executor = make_executor("cluster", workers=1, folder=tmp_path, options=options)
        with pytest.raises(UserError, match="tiemout_min"):
            executor.start(["true"], tmp_path / "log")

    def test_without_submitit_it_says_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "submitit", None)
        executor = make_executor("cluster", workers=1, folder=tmp_path)
        with pytest.raises(UserError, match="pip install 'vidcomp"):
            executor.start(["true"], tmp_path / "log")
