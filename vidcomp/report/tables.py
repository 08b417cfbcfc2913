"""The tables of a report: which numbers stand in which cell; the template says how they look.

A cell holds one score for each seed. With one seed it has that seed's 95 % interval; with several
it has their mean and its 95 % t-interval, since the spread of seeds is what a reader has to weigh.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vidcomp.report.collect import ScoredRun, TrainedTokenizer, World, series
from vidcomp.report.records import REAL, RECONSTRUCTION, LevelRecord, ScoreRecord
from vidcomp.report.rule import t_interval


@dataclass(frozen=True)
class Cell:
    """One number of one configuration; `scores` has an entry for each seed that was scored."""

    scores: tuple[ScoreRecord, ...]

    @property
    def values(self) -> list[float]:
        return [s.value for s in self.scores if s.value is not None]

    @property
    def value(self) -> float | None:
        """The mean over seeds."""
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def low(self) -> float | None:
        return self.scores[0].low if len(self.scores) == 1 else self._of_seeds("low")

    @property
    def high(self) -> float | None:
        return self.scores[0].high if len(self.scores) == 1 else self._of_seeds("high")

    def _of_seeds(self, end: Literal["low", "high"]) -> float | None:
        """Cut at 0 and 1: what several seeds have in a report are shares."""
        if len(self.values) < 2:
            return None
        return min(1.0, max(0.0, getattr(t_interval(self.values), end)))

    @property
    def n(self) -> int | None:
        return self.scores[0].n if self.scores else None

    @property
    def chance(self) -> float | None:
        return self.scores[0].chance if self.scores else None


@dataclass(frozen=True)
class TableRow:
    """A label and its cells. `note` stands small beside the label, `warnings` below it."""

    label: str
    cells: tuple[Cell, ...]
    note: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    name: str
    parameters: int | None
    steps: int | None
    train_s: float | None
    wait_share: float | None
    skipped_steps: int | None
    sample_s: float | None

    @property
    def steps_per_s(self) -> float | None:
        return self.steps / self.train_s if self.steps and self.train_s else None


@dataclass(frozen=True)
class Drawing:
    """How the samples of a run were drawn, and in what its config says otherwise."""

    name: str
    guidance_scale: float
    temperature: float
    sampler: str
    num_steps: int | None
    clips_per_level: int
    seed: int
    unlike_config: tuple[str, ...]


@dataclass(frozen=True)
class TokenizerRow:
    """Fidelity by level and measure, and how each of its codebooks is used."""

    tokenizer: TrainedTokenizer
    fidelity: Mapping[str, tuple[Cell, ...]]
    code_usage: tuple[float, ...]
    code_perplexity: tuple[float, ...]


def joint(world: World) -> list[TableRow]:
    """Joint accuracy of the samples: a row for each configuration, a cell for each level."""
    return [
        TableRow(
            group.label,
            _cells(world, [run.levels for run in group.runs]),
            _seeds(group.runs),
            tuple(
                f"{run.name}: the last attempt failed: {run.failure}"
                for run in group.runs
                if run.failure
            ),
        )
        for group in world.groups
    ]


def ceilings(world: World) -> list[TableRow]:
    """Joint accuracy of real clips, and of the reconstructions of each tokenizer."""
    first_of = {run.tokenizer: run for run in reversed(world.runs)}
    wanted = [("real clips", world.runs[0], REAL)]
    wanted += [
        (f"reconstructions by {run.tokenizer}", run, RECONSTRUCTION)
        for run in world.runs
        if first_of[run.tokenizer] is run
    ]
    rows: list[TableRow] = []
    for label, run, source in wanted:
        found = run.ceilings[source]
        cells = [
            Cell((found[level].joint,) if level in found else ())
            for level in world.split.level_names
        ]
        rows.append(TableRow(label, tuple(cells)))
    return rows


def per_factor(world: World) -> list[TableRow]:
    """Accuracy of each factor, all frames of a clip together; cells by level, then by factor."""
    rows: list[TableRow] = []
    for group in world.groups:
        cells: list[Cell] = []
        for level, name in itertools.product(world.split.level_names, world.clips.factors.names):
            scored = [run.levels[level] for run in group.runs if level in run.levels]
            cells.append(Cell(tuple(record.per_factor[name] for record in scored)))
        rows.append(TableRow(group.label, tuple(cells)))
    return rows


def costs(runs: Sequence[ScoredRun], tokenizers: Sequence[TrainedTokenizer]) -> list[Cost]:
    """Tokenizers first, as they are trained first."""
    rows = [(t.name, t.parameters, t.state, None) for t in tokenizers]
    rows += [(run.name, run.environment["parameters"], run.state, run.sample_s) for run in runs]
    return [
        Cost(
            name=name,
            parameters=parameters,
            steps=state.get("step"),
            train_s=state.get("train_s"),
            wait_share=state["wait_s"] / state["train_s"] if state.get("train_s") else None,
            skipped_steps=state.get("skipped_steps"),
            sample_s=sample_s,
        )
        for name, parameters, state, sample_s in rows
    ]


def drawings(runs: Sequence[ScoredRun]) -> list[Drawing]:
    """The settings behind every score of samples."""
    rows: list[Drawing] = []
    for run in runs:
        used, said = run.sampling, run.run.sampling.model_dump(mode="json")
        unlike = [
            f"{key}: {json.dumps(said[key])}"
            for key, value in used.model_dump(mode="json").items()
            if value != said[key] and key != "batch_size"  # which changes no sample
        ]
        rows.append(
            Drawing(
                name=run.name,
                guidance_scale=used.guidance_scale,
                temperature=used.temperature,
                sampler=used.sampler.name if used.sampler else "the objective's default",
                num_steps=used.sampler.num_steps if used.sampler else None,
                clips_per_level=used.clips_per_level,
                seed=used.seed,
                unlike_config=tuple(unlike),
            )
        )
    return rows


def tokenizer_rows(world: World, tokenizers: Sequence[TrainedTokenizer]) -> list[TokenizerRow]:
    """What each tokenizer keeps of a clip, by level; measured with the first run that uses it."""
    rows: list[TokenizerRow] = []
    for tokenizer in tokenizers:
        users = [run for run in world.runs if run.tokenizer == tokenizer.name]
        found = users[0].scores.get("fidelity", {}) if users else {}
        fidelity: dict[str, tuple[Cell, ...]] = {}
        for measure in ("psnr_db", "ssim", "flicker"):
            paths = [f"{RECONSTRUCTION}/{level}/{measure}" for level in world.split.level_names]
            fidelity[measure] = tuple(Cell((found[p],) if p in found else ()) for p in paths)
        usage = _last_of_codebooks(tokenizer, "code_usage")
        perplexity = _last_of_codebooks(tokenizer, "code_perplexity")
        rows.append(TokenizerRow(tokenizer, fidelity, usage, perplexity))
    return rows


def _last_of_codebooks(tokenizer: TrainedTokenizer, key: str) -> tuple[float, ...]:
    """The last ``eval/<key>_0``, ``eval/<key>_1``, ... that a training logged."""
    found = (series(tokenizer.metrics, f"eval/{key}_{q}")[1] for q in itertools.count())
    return tuple(values[-1] for values in itertools.takewhile(bool, found))


def _cells(world: World, by_seed: Sequence[Mapping[str, LevelRecord]]) -> tuple[Cell, ...]:
    return tuple(
        Cell(tuple(levels[level].joint for levels in by_seed if level in levels))
        for level in world.split.level_names
    )


def _seeds(runs: Sequence[ScoredRun]) -> str:
    seeds = ", ".join(str(run.run.seed) for run in runs)
    return f"seed {seeds}" if len(runs) == 1 else f"mean of seeds {seeds}"
