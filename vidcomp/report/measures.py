"""What a report says beside the accuracies: how they came about, and what other instruments see.

* `courses`: when a level emerged in training, and how much of its best was lost again;
* `products`: the joint accuracy beside the product of the factors' own;
* `compositions`: each combination with its ceilings;
* `in_space`: the probes of a feature space (`retrieval`, `frechet`, `memory`), if they were asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidcomp.report.claims import emerged_at
from vidcomp.report.collect import ScoredRun, World
from vidcomp.report.records import REAL, RECONSTRUCTION, SAMPLES, ScoreRecord
from vidcomp.report.tables import Cell, TableRow

PROTOTYPE = "prototype"

MEASURES: Mapping[str, tuple[str, str, bool]] = {  # probe/score: label, said of it, is a share
    "retrieval/first": ("nearest real clip", "shows what was asked for", True),
    "retrieval/vote": ("most of the nearest", "show what was asked for", True),
    "frechet/frechet": ("Frechet distance", "to real clips, biased upwards by few clips", False),
    "frechet/kernel": ("kernel distance", "to real clips, unbiased", False),
    "memory/copies": ("copies", "nearer to a training clip than new clips are", True),
    "memory/ratio": ("distance to training", "over that of new clips", False),
    "memory/training_clips": ("distinct training clips", "of its combination", False),
}


@dataclass(frozen=True)
class Course:
    """Of joint accuracy on a level in training: the step after which it stayed above 50 %, None if
    it did not; and its best minus its last, None where nothing was measured."""

    emerged_at: float | None
    lost: float | None


@dataclass(frozen=True)
class RunRow:
    """A run and what its levels did."""

    label: str
    courses: tuple[Course, ...]


@dataclass(frozen=True)
class FeatureSpace:
    """What must be known of a space to compare its numbers; `reference`: a hash of the points of
    real clips."""

    runs: tuple[str, ...]
    clips: str
    extractor: str
    extractor_weights: str
    dimensions: int
    reference: str


@dataclass(frozen=True)
class SpaceRow:
    """A measure of one source of one run; cells by level."""

    run: str
    source: str
    measure: str
    said: str
    is_share: bool
    cells: tuple[Cell, ...]


def courses(world: World) -> list[RunRow]:
    """A row for each run that was judged while it trained."""
    return [
        RunRow(run.name, tuple(_course(run.curves.get(k, [])) for k in world.split.level_names))
        for run in world.runs
        if run.curves
    ]


def products(world: World) -> list[TableRow]:
    """Joint accuracy of the samples, the product of the factors' accuracies, and the share of
    frames in which the judge could read nothing; by level."""
    rows: list[TableRow] = []
    for group in world.groups:
        paths = [f"{SAMPLES}/{k}/{kind}" for k in world.split.level_names for kind in _FAILURES]
        rows.append(TableRow(group.label, tuple(_judged(group.runs, path) for path in paths)))
    return rows if any(cell.scores for row in rows for cell in row.cells) else []


_FAILURES = ("joint", "product", "unreadable")


def compositions(world: World) -> list[TableRow]:
    """Each combination at each level it can have: real clips, their reconstructions, real clips of
    the prototypes; then the samples of each configuration. Empty where there are too many."""
    rows: list[TableRow] = []
    split = world.split
    for level in split.level_names:
        for combination in split.combinations_of(level):
            name = split.factors.describe(combination)
            ceilings = [
                _judged(world.runs[:1], f"{source}/{level}/combination/{name}")
                for source in (REAL, RECONSTRUCTION, PROTOTYPE)
            ]
            path = f"{SAMPLES}/{level}/combination/{name}"
            cells = [*ceilings, *(_judged(group.runs, path) for group in world.groups)]
            if any(cell.scores for cell in cells):
                rows.append(TableRow(name, tuple(cells), level))
    return rows


def in_space(world: World) -> list[SpaceRow]:
    """What was measured in a feature space: the samples of each run, and the ceilings of the
    first."""
    return [
        row
        for k, run in enumerate(world.runs)
        for source in ((REAL, RECONSTRUCTION, SAMPLES) if k == 0 else (SAMPLES,))
        for row in _space_rows(run, source, world.split.level_names)
    ]


def spaces(world: World) -> list[FeatureSpace]:
    """Which runs were looked at in which space."""
    runs_of: dict[str, list[ScoredRun]] = {}
    for run in world.runs:
        if run.features:
            runs_of.setdefault(run.features["extractor_weights"], []).append(run)
    return [
        FeatureSpace(
            runs=tuple(run.name for run in runs),
            clips=runs[0].features["clips"],
            extractor=runs[0].features["extractor"],
            extractor_weights=runs[0].features["extractor_weights"],
            dimensions=runs[0].features["dimensions"],
            reference=runs[0].features["references"]["real"]["digest"],
        )
        for runs in runs_of.values()
    ]


def _space_rows(run: ScoredRun, source: str, levels: Sequence[str]) -> Iterator[SpaceRow]:
    for key, (label, said, is_share) in MEASURES.items():
        probe, _, kind = key.partition("/")
        found = run.scores.get(probe, {})
        cells = tuple(_cell([found.get(f"{source}/{level}/{kind}")]) for level in levels)
        if any(cell.scores for cell in cells):
            yield SpaceRow(run.name, source, label, said, is_share, cells)


def _course(curve: Sequence[tuple[float, float]]) -> Course:
    if not curve:
        return Course(None, None)
    return Course(emerged_at(curve), max(value for _, value in curve) - curve[-1][1])


def _judged(runs: Sequence[ScoredRun], path: str) -> Cell:
    return _cell([run.scores[run.judge].get(path) for run in runs])


def _cell(scores: Sequence[ScoreRecord | None]) -> Cell:
    return Cell(tuple(score for score in scores if score is not None))
