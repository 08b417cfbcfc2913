"""What run folders say.

Everything is read from disk, so a report can be written again at any time, by anyone who has the
folders. A run that failed, or is not finished, is a `MissingRun` with the reason and never an
exception: a report on nine of ten runs is worth having.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidcomp.config import explain, first_line
from vidcomp.pipeline import ClipFormat
from vidcomp.report.reading import (
    BESIDE,
    FAILED,
    SCORES,
    Metrics,
    plain_name,
    read_json,
    read_metrics,
    series,
    trial_records,
)
from vidcomp.report.records import (
    REAL,
    RECONSTRUCTION,
    SAMPLES,
    CeilingRecord,
    LevelRecord,
    RunRecord,
    ScoreRecord,
)
from vidcomp.runs import (
    GeneratorRun,
    SamplingConfig,
    TokenizerRun,
    checkpoints,
    finished,
    load_run,
)
from vidcomp.world.splits import Split

Scores = dict[str, ScoreRecord]


@dataclass(frozen=True)
class MissingRun:
    """A run without scores. `reason` is one line."""

    name: str
    reason: str

    def record(self) -> RunRecord:
        return RunRecord(name=self.name, reason=self.reason)


@dataclass(frozen=True)
class ScoredRun:
    """A generator's run with its scores, by judge and path such as ``samples/level-1/joint``.

    `sampling` is how the scored samples were drawn, which need not be what the config says;
    `beside`: what a study measured beside the scores, the content of `BESIDE`; `features`: the
    feature space of the scores that need one, empty if none do; `failure`: why the last attempt to
    go on ended, if it did.
    """

    folder: Path
    run: GeneratorRun
    environment: dict[str, Any]
    metrics: Metrics
    state: dict[str, Any]
    judge: str
    scores: dict[str, Scores]
    sample_s: float
    sampling: SamplingConfig
    beside: dict[str, Any]
    features: dict[str, Any]
    failure: str
    clips: ClipFormat
    split: Split

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def tokenizer(self) -> str:
        return plain_name(Path(self.environment["tokenizer"]["folder"]))

    @cached_property
    def levels(self) -> dict[str, LevelRecord]:
        """How the samples were judged."""
        return {level: self._level(level) for level in self._scored_levels(SAMPLES)}

    @cached_property
    def ceilings(self) -> dict[str, dict[str, CeilingRecord]]:
        """What the same judge says of clips that no generator made."""
        judged = self.scores[self.judge]
        return {
            source: {
                level: CeilingRecord(joint=judged[f"{source}/{level}/joint"])
                for level in self._scored_levels(source)
            }
            for source in (REAL, RECONSTRUCTION)
        }

    @cached_property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Steps and joint accuracy while training, by level."""
        of_level = {k: series(self.metrics, f"eval/{k}/joint") for k in self.split.level_names}
        return {k: list(zip(x, y, strict=True)) for k, (x, y) in of_level.items() if x}

    def record(self) -> RunRecord:
        generator = self.run.generator
        return RunRecord(
            name=self.name,
            curves=self.curves,
            best={level: max(curve, key=lambda p: p[1]) for level, curve in self.curves.items()},
            fallback=self.beside.get("fallback", {}),
            trials=trial_records(self.beside),
            config_hash=self.environment["config_hash"],
            split_hash=self.environment["split_hash"],
            seed=self.run.seed,
            objective=generator.objective.name,
            tokenizer=self.tokenizer,
            jepa=generator.jepa is not None,
            steps=self.state["step"],
            parameters=self.environment["parameters"],
            train_s=self.state["train_s"],
            sample_s=self.sample_s,
            scores=self.levels,
            ceilings=self.ceilings,
        )

    def _scored_levels(self, source: str) -> list[str]:
        judged = self.scores[self.judge]
        return [name for name in self.split.level_names if f"{source}/{name}/joint" in judged]

    def _level(self, level: str) -> LevelRecord:
        judged, at = self.scores[self.judge], f"{SAMPLES}/{level}"
        # A rollout has more frames than the clips that were trained on.
        frames = takewhile(judged.__contains__, (f"{at}/frame/{k}" for k in count()))
        return LevelRecord(
            joint=judged[f"{at}/joint"],
            per_factor={name: judged[f"{at}/factor/{name}"] for name in self.clips.factors.names},
            per_frame=[judged[frame].value for frame in frames],
            unreadable=judged.get(f"{at}/unreadable"),
        )


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but their seed."""

    label: str
    runs: tuple[ScoredRun, ...]


@dataclass(frozen=True)
class World:
    """The runs on one kind of clip and one split: what may stand in one table."""

    clips: ClipFormat
    split: Split
    groups: tuple[Group, ...]

    @property
    def runs(self) -> list[ScoredRun]:
        return [run for group in self.groups for run in group.runs]


@dataclass(frozen=True)
class TrainedTokenizer:
    """What a tokenizer's run folder says; `run` is None if it cannot be read: see `reason`."""

    folder: Path
    run: TokenizerRun | None = None
    parameters: int | None = None
    metrics: Metrics = field(default_factory=Metrics)
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    reason: str = ""

    @property
    def name(self) -> str:
        return self.folder.name


def collect_run(folder: Path) -> ScoredRun | MissingRun:
    """What a generator's run folder holds."""
    try:
        return _scored_run(folder)
    except ValidationError as error:
        reason = explain(error)
    except KeyError as error:
        reason = f"its records lack {error}"
    except (OSError, ValueError) as error:  # UserError and broken JSON among them
        reason = first_line(error)
    return MissingRun(folder.name, reason)


def collect_tokenizer(folder: Path) -> TrainedTokenizer:
    """What a tokenizer's run folder holds."""
    try:
        run, _ = load_run(folder / "config.yaml")
        if not isinstance(run, TokenizerRun):
            return TrainedTokenizer(folder, reason="the folder is not a tokenizer's")
        parameters = read_json(folder / "environment.json").get("parameters")
        return TrainedTokenizer(folder, run, parameters, read_metrics(folder), _state(folder))
    except (OSError, ValueError) as error:
        return TrainedTokenizer(folder, reason=first_line(error))


def worlds(runs: Iterable[ScoredRun]) -> list[World]:
    """Runs by what they were trained on, and there by configuration; in the order given."""
    by_world: dict[str, dict[str, list[ScoredRun]]] = {}
    for run in runs:
        world = json.dumps([run.split.digest, run.clips.to_json()], sort_keys=True)
        config = run.run.model_dump(mode="json", exclude={"name", "seed"})
        alike = by_world.setdefault(world, {}).setdefault(json.dumps(config, sort_keys=True), [])
        alike.append(run)
    found: list[World] = []
    for configs in by_world.values():
        groups = tuple(Group(_label(alike), tuple(alike)) for alike in configs.values())
        first = groups[0].runs[0]
        found.append(World(first.clips, first.split, groups))
    return found


def _scored_run(folder: Path) -> ScoredRun | MissingRun:
    if not folder.exists():
        return MissingRun(folder.name, "not started")
    failure = _failure(folder)
    if failure and not (folder / SCORES).is_file():
        return MissingRun(folder.name, failure)
    run, _ = load_run(folder / "config.yaml")
    if not isinstance(run, GeneratorRun):
        return MissingRun(folder.name, "a tokenizer's run, which makes no samples")
    if not (folder / SCORES).is_file():
        return MissingRun(folder.name, _why_unscored(run, folder))
    environment = read_json(folder / "environment.json")
    scored = read_json(folder / SCORES)
    clips = ClipFormat.from_json(environment["clips"])
    result = ScoredRun(
        folder=folder,
        run=run,
        environment=environment,
        metrics=read_metrics(folder),
        state=_state(folder),
        judge=scored["judge"],
        scores={
            judge: {path: ScoreRecord.model_validate(score) for path, score in paths.items()}
            for judge, paths in scored["scores"].items()
        },
        sample_s=scored["sample_s"],
        sampling=SamplingConfig.model_validate(scored["sampling"]),
        features=scored.get("features", {}),
        beside=read_json(folder / BESIDE) if (folder / BESIDE).is_file() else {},
        failure=failure,
        clips=clips,
        split=run.data.split.build(clips.factors),
    )
    if result.split.digest != environment["split_hash"]:
        trained, now = environment["split_hash"], result.split.digest
        return MissingRun(folder.name, f"trained on split {trained}, its config gives {now}")
    result.record()  # what is missing is found here, not half-way through a page
    return result


def _failure(folder: Path) -> str:
    """The first line of what `FAILED` says; empty if there is no such file."""
    if not (folder / FAILED).is_file():
        return ""
    return (folder / FAILED).read_text().strip().partition("\n")[0] or "it failed"


def _why_unscored(run: GeneratorRun, folder: Path) -> str:
    if finished(run, folder):
        return f"trained, but not scored (no {SCORES})"
    step = _state(folder).get("step", 0)
    return f"stopped at step {step:,} of {run.train.steps:,}"


def _state(folder: Path) -> dict[str, Any]:
    saved = checkpoints(folder)
    return read_json(saved[-1] / "state.json") if saved else {}


def _label(alike: Sequence[ScoredRun]) -> str:
    """The name without its seed: ``flow`` of ``flow-s0``."""
    return re.sub(r"[-_]s(eed)?[-_]?\d+$", "", alike[0].name)
