"""A study: many runs from one YAML, as a graph of jobs, each one a command that can be run by hand.

    render -> tokenizers -> judge -> generators -> scores -> report

Jobs run as processes of their own, `workers` at a time, with the machine's cores shared out among them: on
a CPU two processes of one thread do more than one of two. What is finished is skipped, so the same command
goes on after an interruption; a job that fails is a row of the report that says why, and takes down only
what needs it.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import DataRoot
from vidcomp.evaluation import ProbeFit
from vidcomp.report import write_report
from vidcomp.runs import GeneratorRun, TokenizerRun, checkpoints, finished, load_run, write_json

_POLL_S = 0.5
_TOOLS = Path(__file__).parents[1] / "tools"


class StudyConfig(RootSettings):
    """The root of a study's YAML: the YAMLs of its runs, which must all share the `data` of one more.

    `evaluate_every`: steps between the points of the curves by level; None draws none.
    `expected_s`: seconds of each job when it was last measured, alone on one core; for the ETA only.
    """

    name: str
    data: str
    tokenizers: tuple[str, ...]
    probe: str
    generators: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    evaluate_every: PositiveInt | None = None
    workers: PositiveInt = 2
    expected_s: dict[str, float] = {}


@dataclass
class Job:
    """One command. `steps` (done, of) is read from disk while it runs; `result` is its folder."""

    name: str
    command: list[str]
    needs: tuple[str, ...]
    done: Callable[[], bool]
    expected_s: float
    progress: Callable[[], float] = lambda: 0.0
    state: str = "waiting"
    seconds: float = 0.0
    why: str = ""
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)


def run_study(config: StudyConfig, out: Path | None = None) -> Path:
    """Run what is not finished and write the report; returns ``report.html``. Raises UserError if a job failed."""
    out = out or Path("runs") / config.name
    console = Console()
    jobs = plan(config, out)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    config.save(out / "config.yaml")
    clock = out / "study.json"
    spent = json.loads(clock.read_text())["wall_s"] if clock.exists() else 0.0
    began = time.monotonic()
    try:
        execute(jobs, out, workers=config.workers, console=console)
    finally:
        write_json(clock, {"wall_s": spent + time.monotonic() - began})
    runs = [out / name for name in generator_names(config)]
    report = write_report(
        out,
        study=config.name,
        runs=runs,
        tokenizers=[out / load_run(path)[0].name for path in config.tokenizers],
        probe=out / "probe" if (out / "probe" / "probe.json").exists() else None,
        commands=[shlex.join(job.command) for job in jobs],
        wall_s=spent + time.monotonic() - began,
    )
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} jobs failed, the first is {failed[0].name}: {failed[0].why} "
            f"(log: {log_of(out, failed[0])}); the rest is in {report}; mend it and run the same command again"
        )
    return report


def generator_names(config: StudyConfig) -> list[str]:
    """The folder names of the generators' runs: one for each YAML and seed."""
    return [f"{load_run(path)[0].name}-s{seed}" for path in config.generators for seed in config.seeds]


def plan(config: StudyConfig, out: Path) -> list[Job]:
    """The jobs of a study, in an order in which each one's needs come before it."""
    tokenizers: dict[str, tuple[str, TokenizerRun]] = {}
    for path in config.tokenizers:
        run, _ = load_run(path)
        if not isinstance(run, TokenizerRun):
            raise UserError(f"study.tokenizers: {path} is a generator's config")
        tokenizers[path] = (path, run)
    probe = ProbeFit.load(config.probe)
    data = {path: run.data.digest for path, run in tokenizers.values()} | {config.probe: probe.data.digest}
    data[config.data] = DataRoot.load(config.data).data.digest

    expected = config.expected_s
    jobs = [
        Job(
            "render",
            command("render.py", config.data),
            (),
            lambda: False,  # quick when there is nothing to do, and it checks that the dataset is whole
            expected.get("render", 15),
        )
    ]
    for path, run in tokenizers.values():
        jobs.append(training_job(run.name, path, [], run, out / run.name, ("render",), expected))
    folders = [str(out / run.name) for _, run in tokenizers.values()]
    jobs.append(
        Job(
            "probe",
            command("probe.py", "fit", config.probe, f"out={out / 'probe'}", f"tokenizers=[{','.join(folders)}]"),
            tuple(run.name for _, run in tokenizers.values()),
            lambda: (out / "probe" / "probe.json").exists(),
            expected.get("probe", 60),
        )
    )
    for path in config.generators:
        for seed in config.seeds:
            run, _ = load_run(path)
            if not isinstance(run, GeneratorRun):
                raise UserError(f"study.generators: {path} is a tokenizer's config")
            if run.tokenizer not in tokenizers:
                raise UserError(
                    f"{path} needs the tokenizer {run.tokenizer}, which is not among the study's: "
                    f"{', '.join(tokenizers)}"
                )
            data[path] = run.data.digest
            name, tokenizer = f"{run.name}-s{seed}", tokenizers[run.tokenizer][1].name
            overrides = [f"seed={seed}", f"tokenizer={out / tokenizer}"]
            if config.evaluate_every:
                overrides += [f"evaluate.every={config.evaluate_every}", f"evaluate.probe={out / 'probe'}"]
            folder = out / name
            jobs.append(training_job(name, path, overrides, run, folder, (tokenizer, "probe"), expected))
            jobs.append(scoring_job(name, folder, out / "probe", expected))
    if len(set(data.values())) > 1:
        raise UserError(f"the runs of a study must share one 'data', these differ: {', '.join(data)}")
    return jobs


def training_job(
    name: str,
    config: str,
    overrides: Sequence[str],
    run: TokenizerRun | GeneratorRun,
    folder: Path,
    needs: tuple[str, ...],
    expected: dict[str, float],
) -> Job:
    def progress() -> float:
        return steps_done(folder) / run.train.steps

    # One thread's guess where nothing was measured: a quarter of a second a step.
    guess = expected.get(name, expected.get(name.rpartition("-s")[0], run.train.steps * 0.25))
    line = command("train.py", config, *overrides, f"out={folder}")
    done = lambda: same_config(config, overrides, folder) and finished(run, folder)  # noqa: E731
    return Job(name, line, needs, done, guess, progress)


def scoring_job(name: str, folder: Path, probe: Path, expected: dict[str, float]) -> Job:
    def done() -> bool:
        scores, saved = folder / "scores.json", checkpoints(folder)
        return bool(saved) and scores.exists() and scores.stat().st_mtime > saved[-1].stat().st_mtime

    return Job(
        f"score {name}",
        command("probe.py", str(folder), f"probe={probe}"),
        (name,),
        done,
        expected.get("score", 30),
    )


def command(tool: str, *words: str) -> list[str]:
    """A tool's command line, as it would be typed in the project's root."""
    tools = os.path.relpath(_TOOLS)
    return [os.path.relpath(sys.executable), f"{tools}/{tool}", *words]


def same_config(config: str, overrides: Sequence[str], folder: Path) -> bool:
    """Whether the run in `folder` was started from this config; if not, its tool refuses and says what differs."""
    if not (folder / "config.yaml").exists():
        return False
    return load_run(config, overrides)[0] == load_run(folder / "config.yaml")[0]


def steps_done(folder: Path) -> int:
    """The last step in a run's metrics, as far as they are written."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line for line in file.read().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def log_of(out: Path, job: Job) -> Path:
    """Where a job's output goes."""
    return out / "logs" / f"{job.name.replace(' ', '-')}.log"


def execute(jobs: Sequence[Job], out: Path, *, workers: int, console: Console) -> None:
    """Run the graph, `workers` jobs at a time, showing each running job and an ETA for the whole."""
    by_name = {job.name: job for job in jobs}
    for job in jobs:
        if job.done():
            job.state = "done"
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    columns = (
        TextColumn("{task.description:24s}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        whole = display.add_task("all", total=1.0, note="")
        rows: dict[str, TaskID] = {}
        clock = Eta(jobs, workers)
        try:
            while any(job.state in ("waiting", "running") for job in jobs):
                for job in jobs:
                    start_or_skip(job, jobs, by_name, out, environment, workers)
                    if job.process is not None and job.state == "running":
                        if job.name not in rows:
                            rows[job.name] = display.add_task(job.name, total=1.0, note="")
                            console.print(f"start  {job.name}   (log: {log_of(out, job)})")
                        collect(job, out)
                        display.update(rows[job.name], completed=clock.share(job))
                        if job.state != "running":
                            display.remove_task(rows[job.name])
                            console.print(
                                f"{job.state:6s} {job.name}   {job.seconds:.0f} s   {job.why}{clock.note()}"
                            )
                display.update(whole, completed=clock.done_share(), note=clock.note())
                time.sleep(_POLL_S)
        finally:
            for job in jobs:
                if job.process is not None and job.process.poll() is None:
                    job.process.terminate()
                    job.process.wait()


def start_or_skip(
    job: Job,
    jobs: Sequence[Job],
    by_name: dict[str, Job],
    out: Path,
    environment: dict[str, str],
    workers: int,
) -> None:
    """Start a job whose needs are met, if a worker is free; fail one whose needs have failed."""
    if job.state != "waiting":
        return
    broken = [name for name in job.needs if by_name[name].state == "failed"]
    if broken:
        job.state, job.why = "failed", f"needs {broken[0]}, which failed"
        return
    running = sum(other.state == "running" for other in jobs)
    if running < workers and all(by_name[name].state == "done" for name in job.needs):
        with log_of(out, job).open("wb") as log:
            job.process = subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        job.state, job.seconds = "running", -time.monotonic()


def collect(job: Job, out: Path) -> None:
    """See whether a running job has ended, and how."""
    assert job.process is not None
    status = job.process.poll()
    if status is None:
        return
    job.seconds += time.monotonic()
    job.state = "done" if status == 0 else "failed"
    if status != 0:
        lines = log_of(out, job).read_text(errors="replace").strip().splitlines()
        job.why = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"


class Eta:
    """Time left for the whole: expected seconds of what is undone, times how much slower this machine is."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs = jobs
        self.workers = workers
        self.began = time.monotonic()
        self.skipped = sum(job.expected_s for job in jobs if job.state == "done")

    def share(self, job: Job) -> float:
        """How much of a running job is done: from its steps if it tells them, else from its time."""
        steps = job.progress()
        running_s = time.monotonic() + job.seconds if job.seconds < 0 else job.seconds
        return min(0.99, steps or running_s / max(job.expected_s, running_s + 1))

    def done_s(self) -> float:
        total = 0.0
        for job in self.jobs:
            if job.state in ("done", "failed"):
                total += job.expected_s
            elif job.state == "running":
                total += job.expected_s * self.share(job)
        return total

    def done_share(self) -> float:
        return self.done_s() / sum(job.expected_s for job in self.jobs)

    def note(self) -> str:
        done, total = self.done_s() - self.skipped, sum(job.expected_s for job in self.jobs)
        elapsed = time.monotonic() - self.began
        left = total - self.skipped - done
        if left <= 0:
            return ""
        pace = elapsed / done if done > 10 else 1 / self.workers
        return f"   about {left * pace / 60:.1f} min left"
