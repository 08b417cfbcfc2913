"""What judges say of each other: where two agree, and where their difference is more than chance.

A fitted judge is calibrated on real clips and on reconstructions. Samples may look like neither, so
there a second judge of another kind is the only check, and a reader must be told where it objects.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from vidcomp.report.collect import World
from vidcomp.report.records import REAL, RECONSTRUCTION, SAMPLES, ScoreRecord
from vidcomp.report.tables import Cell, TableRow

SOURCES = (REAL, RECONSTRUCTION, SAMPLES)


@dataclass(frozen=True)
class Disagreement:
    """A level on which the second judge's joint accuracy lies outside the first one's interval."""

    run: str
    level: str
    judge: str
    score: ScoreRecord
    second_judge: str
    second_value: float


def agreement(world: World) -> list[TableRow]:
    """For each run that two judges saw: the share of frames that they read alike; cells by source,
    then by level."""
    rows: list[TableRow] = []
    for run in world.runs:
        agreed = run.scores.get("agreement", {})
        paths = [f"{s}/{level}" for s, level in itertools.product(SOURCES, world.split.level_names)]
        if any(path in agreed for path in paths):
            cells = tuple(Cell((agreed[path],) if path in agreed else ()) for path in paths)
            rows.append(TableRow(run.name, cells))
    return rows


def second_opinion(world: World) -> list[TableRow]:
    """Joint accuracy by level, as each judge sees it."""
    rows: list[TableRow] = []
    levels = world.split.level_names
    for run in world.runs:
        for judge, scores in run.scores.items():
            found = [_joint(scores, level) for level in levels]
            if any(found):
                cells = tuple(Cell((score,) if score else ()) for score in found)
                rows.append(TableRow(run.name, cells, judge))
    return rows


def disagreements(world: World) -> list[Disagreement]:
    """Where the judges of the samples cannot both be right, by run and level."""
    found: list[Disagreement] = []
    for run, level in itertools.product(world.runs, world.split.level_names):
        first = _joint(run.scores[run.judge], level)
        if first is None or first.low is None or first.high is None:
            continue
        for judge, scores in run.scores.items():
            second = _joint(scores, level)
            if second is None or second.value is None or first.low <= second.value <= first.high:
                continue
            found.append(Disagreement(run.name, level, run.judge, first, judge, second.value))
    return found


def _joint(scores: Mapping[str, ScoreRecord], level: str) -> ScoreRecord | None:
    return scores.get(f"{SAMPLES}/{level}/joint")
