"""The jobs of a plan: commands that can be run by hand, in an order in which needs come first.

    render -> tokenizers -> judge -> generators -> scores

Each reads its resolved config from ``OUT/configs``, which is named like the folder that it fills.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vidcomp.jobs import Job
from vidcomp.report.reading import SCORES
from vidcomp.runs import GeneratorRun, TokenizerRun, finished
from vidcomp.study.config import Cell
from vidcomp.study.plan import Plan, PlannedRun, PlannedWorld
from vidcomp.study.scoring import scoring_is_done

_TOOLS = Path(__file__).parents[2] / "tools"
_STEP_S = 0.25
"""Of a training step that nobody has measured."""


def jobs_of(plan: Plan, out: Path) -> list[Job]:
    """The jobs; `write_configs` writes what they read."""
    jobs: list[Job] = []
    for world in plan.worlds:
        jobs += _of_world(world, [run for run in plan.runs if run.world is world], out)
    for run in plan.runs:
        jobs += _of_run(run, plan, out)
    needed = {name for job in jobs for name in job.needs}
    renders = [job for job in jobs if job.name.startswith("render")]
    for render in renders:  # done once nobody needs it: it checks the dataset each time
        render.done = _all_done([job for job in jobs if render.name in job.needs])
    assert needed <= {job.name for job in jobs}
    return jobs


def write_configs(plan: Plan, out: Path) -> None:
    """The resolved config of everything that a plan makes."""
    (out / "configs").mkdir(parents=True, exist_ok=True)
    for world in plan.worlds:
        for tokenizer in world.tokenizers.values():
            tokenizer.run.save(_config_of(tokenizer.folder, out))
        if world.judge is not None:
            world.judge.fit.save(_config_of(world.judge.folder, out))
    for run in plan.runs:
        run.run.save(_config_of(run.folder, out))
    for cell in plan.cells:
        plan.asked_of(cell).save(_asked_of(cell, out))


def _of_world(world: PlannedWorld, runs: list[PlannedRun], out: Path) -> list[Job]:
    """Clips, tokenizers and judge. All runs of a world share its judge, which must know the look of
    every tokenizer."""
    expected = world.config.expected_s
    jobs: list[Job] = []
    if world.data.render is not None:
        line = command("render.py", world.config.data)
        name = f"render {world.name}"
        jobs.append(Job(name, line, (), lambda: False, expected.get("render", 15.0)))
    rendered = tuple(job.name for job in jobs)
    for called, planned in world.tokenizers.items():
        expected_s = expected.get(called, planned.run.train.steps * _STEP_S)
        jobs.append(
            _training(
                f"{world.name} {called}", planned.run, planned.folder, rendered, expected_s, out
            )
        )
    if world.judge is None:
        return jobs
    folder = world.judge.folder
    looks = tuple(job.name for job in jobs if job.name not in rendered)
    line = command("probe.py", "fit", str(_config_of(folder, out)), f"out={folder}")
    expected_s = expected.get("probe", 60.0)
    judge = f"{world.name} judge"
    jobs.append(Job(judge, line, looks, lambda: (folder / "config.yaml").is_file(), expected_s))
    return jobs


def _of_run(run: PlannedRun, plan: Plan, out: Path) -> list[Job]:
    expected = run.world.config.expected_s
    step_s = expected.get(run.cell.name, run.run.train.steps * expected.get("step", _STEP_S))
    probe, asked = run.world.probe, plan.asked_of(run.cell)
    made = ["judge"] if run.world.judge is not None else list(run.world.tokenizers)
    needs = tuple(f"{run.world.name} {name}" for name in made)
    training = _training(run.name, run.run, run.folder, needs, step_s, out)
    scoring = command(
        "study.py",
        "score",
        str(run.folder),
        f"probe={probe}",
        f"trials={_asked_of(run.cell, out)}",
    )

    def scored() -> bool:
        return scoring_is_done(run.folder, probe, run.run.sampling, asked)

    score_s = expected.get("score", 30.0)
    return [training, Job(f"score {run.name}", scoring, (run.name,), scored, score_s)]


def _training(
    name: str,
    run: TokenizerRun | GeneratorRun,
    folder: Path,
    needs: tuple[str, ...],
    expected_s: float,
    out: Path,
) -> Job:
    """Trains one run. One that is scored is trained, though its weights may be elsewhere."""

    def done() -> bool:
        return finished(run, folder) or (folder / SCORES).is_file()

    def progress() -> float:
        return steps_done(folder) / max(run.train.steps, 1)

    line = command("train.py", str(_config_of(folder, out)), f"out={folder}")
    return Job(name, line, needs, done, expected_s, progress)


def command(tool: str, *words: str) -> list[str]:
    """A tool's command line, as it would be typed in the project's root."""
    tools = os.path.relpath(_TOOLS)
    return [os.path.relpath(sys.executable), f"{tools}/{tool}", *words]


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


def _config_of(folder: Path, out: Path) -> Path:
    return out / "configs" / f"{folder.name}.yaml"


def _asked_of(cell: Cell, out: Path) -> Path:
    return out / "configs" / f"score-{cell.name}.yaml"


def _all_done(jobs: list[Job]) -> Callable[[], bool]:
    return lambda: all(job.done() for job in jobs)
