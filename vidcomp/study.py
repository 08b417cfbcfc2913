"""A study: many runs from one YAML, as a graph of jobs, each one a command that can be run by hand.

    render -> tokenizers -> judge -> generators -> scores -> report

Jobs are processes of their own: on a CPU, two of one thread do more than one of two. What is
finished is skipped, so the same command goes on after an interruption; a job that fails is a row of
the report that says why.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import DataRoot
from vidcomp.evaluation import ProbeFit, judge_digest
from vidcomp.jobs import Job, execute, log_of
from vidcomp.report.collect import FAILED
from vidcomp.report.page import write_report
from vidcomp.runs import (
    GeneratorRun,
    TokenizerRun,
    checkpoints,
    finished,
    load_run,
    weights_digest,
    write_json,
)

_TOOLS = Path(__file__).parents[1] / "tools"


class StudyConfig(RootSettings):
    """The root of a study's YAML: the YAMLs of its runs, which must all share `data`, one more.

    `evaluate_every`: steps between the points of the curves by level; None draws none.
    `expected_s`: seconds of each job when it was last measured; for the ETA only.
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


def run_study(config: StudyConfig, out: Path | None = None) -> Path:
    """Run what is not finished and write ``report.html``; raises UserError if a job failed."""
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
    parts = Parts.read(config)
    failed = [job for job in jobs if job.state == "failed"]
    note_failures(failed, parts, config, out)
    report = write_report(
        out,
        study=config.name,
        runs=[out / run_name(r, s) for r in parts.generators.values() for s in config.seeds],
        tokenizers=[out / run.name for run in parts.tokenizers.values()],
        probe=out / "probe" if (out / "probe" / "probe.json").exists() else None,
        commands=[shlex.join(job.command) for job in jobs],
        wall_s=spent + time.monotonic() - began,
    )
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(jobs)} jobs failed, first {first.name}: {first.why} "
            f"(log: {log_of(out, first)}); the rest is in {report}; the same command goes on"
        )
    return report


@dataclass(frozen=True)
class Parts:
    """The configs that a study names, read and checked against each other."""

    renders: bool
    tokenizers: dict[str, TokenizerRun]  # by YAML
    generators: dict[str, GeneratorRun]  # by YAML

    @classmethod
    def read(cls, config: StudyConfig) -> "Parts":
        """Raises UserError if a YAML is of the wrong kind, or if they do not go together."""
        root = DataRoot.load(config.data)
        data = {config.data: root.data, config.probe: ProbeFit.load(config.probe).data}
        tokenizers: dict[str, TokenizerRun] = {}
        generators: dict[str, GeneratorRun] = {}
        for path in config.tokenizers:
            run, _ = load_run(path)
            if not isinstance(run, TokenizerRun):
                raise UserError(f"{path} belongs into the study's generators, not its tokenizers")
            tokenizers[path] = run
        for path in config.generators:
            run, _ = load_run(path)
            if not isinstance(run, GeneratorRun):
                raise UserError(f"{path} belongs into the study's tokenizers, not its generators")
            generators[path] = run
        data |= {path: run.data for path, run in (*tokenizers.items(), *generators.items())}
        for path, run in generators.items():
            if run.tokenizer not in tokenizers:
                raise UserError(
                    f"{path} needs the tokenizer {run.tokenizer}, which is not among the study's: "
                    f"{', '.join(tokenizers)}"
                )
        for path, of_run in data.items():
            if of_run != root.data:
                raise UserError(f"{path} has other 'data' than {config.data}; a study has one")
        return cls(root.data.render is not None, tokenizers, generators)


def plan(config: StudyConfig, out: Path) -> list[Job]:
    """The jobs of a study, in an order in which each one's needs come before it."""
    parts = Parts.read(config)
    expected = config.expected_s
    jobs: list[Job] = []
    if parts.renders:
        # Never taken for done: it is quick then, and checks that the dataset is whole.
        line = command("render.py", config.data)
        jobs.append(Job("render", line, (), lambda: False, expected.get("render", 15.0)))
    rendered = tuple(job.name for job in jobs)
    for path, run in parts.tokenizers.items():
        jobs.append(training_job(run.name, path, [], run, out / run.name, rendered, expected))
    jobs.append(judge_job(config, parts, out))
    for path, run in parts.generators.items():
        for seed in config.seeds:
            name = run_name(run, seed)
            tokenizer = parts.tokenizers[run.tokenizer].name
            overrides = [f"seed={seed}", f"tokenizer={out / tokenizer}"]
            if config.evaluate_every:
                every = f"evaluate.every={config.evaluate_every}"
                overrides += [every, f"evaluate.probe={out / 'probe'}"]
            needs = (tokenizer, "probe")
            jobs.append(training_job(name, path, overrides, run, out / name, needs, expected))
            jobs.append(scoring_job(name, out / name, out / "probe", expected))
    return jobs


def note_failures(failed: Sequence[Job], parts: Parts, config: StudyConfig, out: Path) -> None:
    """Leave the reason in the folder of each generator's run that failed, for the report; and
    remove it where the run has come through since."""
    why: dict[str, str] = {}
    for job in failed:  # a run's training comes before its scoring, which fails with it
        why.setdefault(job.name.removeprefix("score "), job.why)
    for run in parts.generators.values():
        for folder in (out / run_name(run, seed) for seed in config.seeds):
            if folder.name in why:
                folder.mkdir(exist_ok=True)
                (folder / FAILED).write_text(why[folder.name])
            else:
                (folder / FAILED).unlink(missing_ok=True)


def run_name(run: GeneratorRun, seed: int) -> str:
    """The folder of a generator's run: one for each YAML and seed."""
    return f"{run.name}-s{seed}"


def judge_job(config: StudyConfig, parts: Parts, out: Path) -> Job:
    """Fits the judge on the reconstructions of every tokenizer of the study."""
    names = tuple(run.name for run in parts.tokenizers.values())
    folders = ",".join(str(out / name) for name in names)
    words = ("fit", config.probe, f"out={out / 'probe'}", f"tokenizers=[{folders}]")

    # Never taken for done: its tool keeps a finished judge, and refuses one of another config.
    line = command("probe.py", *words)
    return Job("probe", line, names, lambda: False, config.expected_s.get("probe", 60.0))


def training_job(
    name: str,
    config: str,
    overrides: Sequence[str],
    run: TokenizerRun | GeneratorRun,
    folder: Path,
    needs: tuple[str, ...],
    expected: dict[str, float],
) -> Job:
    """Trains one run. Without a measured time, a quarter of a second a step is guessed."""

    def done() -> bool:
        return same_config(config, overrides, folder) and finished(run, folder)

    def progress() -> float:
        return steps_done(folder) / run.train.steps

    expected_s = expected.get(run.name, run.train.steps * 0.25)
    line = command("train.py", config, *overrides, f"out={folder}")
    return Job(name, line, needs, done, expected_s, progress)


def scoring_job(name: str, folder: Path, probe: Path, expected: dict[str, float]) -> Job:
    """Samples and scores one run; done if its scores are of these weights by this judge."""

    def done() -> bool:
        scores = folder / "scores.json"
        if not (scores.exists() and checkpoints(folder) and (probe / "config.yaml").exists()):
            return False
        made = json.loads(scores.read_text())
        of = (made.get("weights"), made.get("judge_weights"))
        return of == (weights_digest(folder), judge_digest(probe))

    line = command("probe.py", str(folder), f"probe={probe}")
    return Job(f"score {name}", line, (name,), done, expected.get("score", 30.0))


def command(tool: str, *words: str) -> list[str]:
    """A tool's command line, as it would be typed in the project's root."""
    tools = os.path.relpath(_TOOLS)
    return [os.path.relpath(sys.executable), f"{tools}/{tool}", *words]


def same_config(config: str, overrides: Sequence[str], folder: Path) -> bool:
    """Whether the run in `folder` has this config; if not, its tool says what differs."""
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
        lines = [
            line
            for line in file.read().splitlines()
            if line.startswith(b"{") and line.endswith(b"}")
        ]
    return int(json.loads(lines[-1])["step"]) if lines else 0
