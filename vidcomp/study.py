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
from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import DataRoot
from vidcomp.evaluation import ProbeFit
from vidcomp.jobs import Job, execute, log_of
from vidcomp.report.page import write_report
from vidcomp.runs import GeneratorRun, TokenizerRun, checkpoints, finished, load_run, write_json

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
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(jobs)} jobs failed, first {first.name}: {first.why} "
            f"(log: {log_of(out, first)}); the rest is in {report}; the same command goes on"
        )
    return report


def generator_names(config: StudyConfig) -> list[str]:
    """The folder names of the generators' runs: one for each YAML and seed."""
    return [
        f"{load_run(path)[0].name}-s{seed}" for path in config.generators for seed in config.seeds
    ]


def plan(config: StudyConfig, out: Path) -> list[Job]:
    """The jobs of a study, in an order in which each one's needs come before it."""
    tokenizers: dict[str, tuple[str, TokenizerRun]] = {}
    for path in config.tokenizers:
        run, _ = load_run(path)
        if not isinstance(run, TokenizerRun):
            raise UserError(f"study.tokenizers: {path} is a generator's config")
        tokenizers[path] = (path, run)
    probe = ProbeFit.load(config.probe)
    data = {path: run.data.digest for path, run in tokenizers.values()} | {
        config.probe: probe.data.digest
    }
    data[config.data] = DataRoot.load(config.data).data.digest

    expected = config.expected_s
    jobs = [
        Job(
            "render",
            command("render.py", config.data),
            (),
            lambda: (
                False
            ),  # quick when there is nothing to do, and it checks that the dataset is whole
            expected.get("render", 15),
        )
    ]
    for path, run in tokenizers.values():
        jobs.append(training_job(run.name, path, [], run, out / run.name, ("render",), expected))
    folders = [str(out / run.name) for _, run in tokenizers.values()]
    jobs.append(
        Job(
            "probe",
            command(
                "probe.py",
                "fit",
                config.probe,
                f"out={out / 'probe'}",
                f"tokenizers=[{','.join(folders)}]",
            ),
            tuple(run.name for _, run in tokenizers.values()),
            lambda: (out / "probe" / "config.yaml").exists(),
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
                overrides += [
                    f"evaluate.every={config.evaluate_every}",
                    f"evaluate.probe={out / 'probe'}",
                ]
            folder = out / name
            jobs.append(
                training_job(name, path, overrides, run, folder, (tokenizer, "probe"), expected)
            )
            jobs.append(scoring_job(name, folder, out / "probe", expected))
    if len(set(data.values())) > 1:
        raise UserError(
            f"the runs of a study must share one 'data', these differ: {', '.join(data)}"
        )
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
        return (
            bool(saved) and scores.exists() and scores.stat().st_mtime > saved[-1].stat().st_mtime
        )

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
