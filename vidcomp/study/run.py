"""Running a study: its jobs, then its report. The same command goes on where it stopped.

``runs/STUDY`` holds the report, logs, resolved configs, and links to the runs in the store by
readable names. A job that fails is a row of the report that says why.
"""

import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vidcomp.config import UserError
from vidcomp.jobs import Job, execute, log_of, make_executor
from vidcomp.models.generator import Generator
from vidcomp.report.collect import collect_run
from vidcomp.report.page import write_report
from vidcomp.report.questions import Place, Questions
from vidcomp.report.reading import FAILED
from vidcomp.report.records import TuningRecord
from vidcomp.runs import write_json
from vidcomp.study import tuning
from vidcomp.study.config import StudyConfig
from vidcomp.study.plan import Plan, make_plan
from vidcomp.study.work import jobs_of, write_configs
from vidcomp.types import num_parameters


def run_study(config: StudyConfig, out: Path | None = None) -> Path:
    """Run what is not finished and write the report; raises UserError if a job failed."""
    plan, out = make_plan(config), out or default_out(config)
    jobs = jobs_of(plan, out)
    write_configs(plan, out)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    config.save(out / "config.yaml")
    clock = out / "study.json"
    spent = json.loads(clock.read_text())["wall_s"] if clock.exists() else 0.0
    began = time.monotonic()
    executor = make_executor(
        config.executor, workers=config.workers, folder=out / "cluster", options=config.cluster
    )
    console = Console()
    try:
        execute(jobs, out, executor=executor, console=console, time_limit_s=config.time_limit_s)
    finally:
        write_json(clock, {"wall_s": spent + time.monotonic() - began})
    note_failures(jobs, plan)
    report = report_on(plan, out, jobs, wall_s=spent + time.monotonic() - began)
    if failed := [job for job in jobs if job.state == "failed"]:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(jobs)} jobs failed, first {first.name}: {first.why} "
            f"(log: {log_of(out, first)}); the rest is in {report}; the same command goes on"
        )
    if waiting := [job for job in jobs if job.state != "done"]:
        console.print(
            f"the time of this slice is over; {len(waiting)} of {len(jobs)} jobs are left, the "
            "same command goes on"
        )
    return report


def report_study(config: StudyConfig, out: Path | None = None) -> Path:
    """Write the report of what there is in the store, and run nothing."""
    plan, out = make_plan(config), out or default_out(config)
    clock = out / "study.json"
    spent = json.loads(clock.read_text())["wall_s"] if clock.exists() else 0.0
    return report_on(plan, out, jobs_of(plan, out), wall_s=spent)


def listing(config: StudyConfig, out: Path | None = None) -> list[str]:
    """Every job of a study: whether it is finished, how long it should take, and where it goes."""
    plan, out = make_plan(config), out or default_out(config)
    jobs = jobs_of(plan, out)
    folders = {run.name: run.folder.name for run in plan.runs}
    lines = [f"left out: {line}" for line in plan.left_out]
    left_s = 0.0
    for job in jobs:
        done = job.done()
        left_s += 0.0 if done else job.expected_s
        state = "finished" if done else f"{job.expected_s:5.0f} s "
        lines.append(f"{state}  {job.name:36s} {folders.get(job.name, '')}".rstrip())
    workers = 1 if config.executor == "here" else config.workers
    return [
        *lines,
        f"{len(plan.runs)} runs, {len(jobs)} jobs, {left_s / 60:.0f} min of work left: about "
        f"{left_s / workers / 60:.0f} min on {workers} workers",
    ]


def default_out(config: StudyConfig) -> Path:
    return Path("runs") / config.name


def report_on(plan: Plan, out: Path, jobs: Sequence[Job], *, wall_s: float) -> Path:
    """Write the report, with links to the runs that it is about."""
    runs = [linked(out / run.name, run.folder) for run in plan.runs]
    tokenizers = [
        linked(out / planned.run.name, planned.folder)
        for world in plan.worlds
        for planned in world.tokenizers.values()
    ]
    several = len(plan.worlds) > 1
    judges = [
        linked(out / (f"probe-{world.name}" if several else "probe"), world.judge.folder)
        for world in plan.worlds
        if world.judge is not None
    ]
    places: dict[str, Place] = {}
    modules: dict[tuple[str, str], dict[str, int]] = {}
    for run in plan.runs:
        place = (run.world.name, run.cell.name)
        if place not in modules:
            modules[place] = modules_of(run.build())
        places[run.name] = Place(*place, run.run.seed, modules[place])
    return write_report(
        out,
        study=plan.config.name,
        runs=runs,
        tokenizers=tokenizers,
        probes=judges,
        commands=[shlex.join(job.command) for job in jobs],
        wall_s=wall_s,
        questions=Questions(
            places, plan.config.claims, plan.asked, tuned_rows(plan, out, runs), plan.left_out
        ),
    )


def tuned_rows(plan: Plan, out: Path, runs: Sequence[Path]) -> list[TuningRecord]:
    """What this study tuned, also written to ``OUT/tuned.yaml``, or what it was tuned with."""
    tune = plan.config.tune
    if tune is None:
        if plan.tuned is None:
            return []
        values = {cell.values[plan.tuned.by]: None for cell in plan.cells}
        return plan.tuned.records([world.name for world in plan.worlds], list(values))
    questions = Questions({r.name: Place(r.world.name, r.cell.name, r.run.seed) for r in plan.runs})
    records = [questions.record(collect_run(folder)) for folder in runs]
    rows = tuning.choose(tuning.candidates(plan.config, plan.cells), records)
    tuning.save(tune.by, rows, out / "tuned.yaml")
    return rows


def modules_of(generator: Generator) -> dict[str, int]:
    """Parameters of the trunk, which compared runs share; of its ends; and of what training alone
    needs."""
    network = generator.network
    return {
        "trunk": num_parameters(network.backbone),
        "ends": num_parameters(network) - num_parameters(network.backbone),
        "training_only": num_parameters(generator) - num_parameters(network),
    }


def note_failures(jobs: Sequence[Job], plan: Plan) -> None:
    """Leave the reason in the folder of each generator's run that failed, for the report; and
    remove it where the run has come through since."""
    ended = {job.name: job for job in jobs}
    for run in plan.runs:
        of_run = [ended[run.name], ended[f"score {run.name}"]]
        failed = [job for job in of_run if job.state == "failed"]
        if failed:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / FAILED).write_text(failed[0].why)
        elif all(job.state == "done" for job in of_run):
            (run.folder / FAILED).unlink(missing_ok=True)


def linked(link: Path, folder: Path) -> Path:
    """`link`, which leads to `folder`; raises UserError if something else is in its place."""
    target = folder.resolve()
    if link.is_symlink():
        if link.resolve() == target:
            return link
        link.unlink()
    elif link.exists():
        raise UserError(
            f"{link} is in the way: it is no link into the store; remove it, or give another out="
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent.resolve()), target_is_directory=True)
    return link
