"""How the page shows claims: a row for each claim and world, with a strip of its intervals; and
what the compared runs have in common, and have not."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vidcomp.report.records import ClaimRecord, ComparisonRecord, RunRecord, TrialRecord, Verdict

_SPAN = 1.0
"""Differences of shares lie between minus and plus this."""


@dataclass(frozen=True)
class Strip:
    """One comparison: positions on the strip are in percent of its width."""

    comparison: ComparisonRecord
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    effect: float


@dataclass(frozen=True)
class ClaimRow:
    """`colour` is the name of a CSS class."""

    claim: ClaimRecord
    strips: tuple[Strip, ...]

    @property
    def kind(self) -> str:
        kinds: dict[Verdict, str] = {
            "reproduced": "yes",
            "not reproduced": "no",
            "not decided": "open",
        }
        return kinds[self.claim.verdict]


def claim_rows(claims: Sequence[ClaimRecord]) -> list[ClaimRow]:
    """In the order given."""
    return [
        ClaimRow(claim, tuple(_strip(c, claim.min_effect) for c in claim.comparisons))
        for claim in claims
    ]


@dataclass(frozen=True)
class Compared:
    """A cell in one world, means over seeds. `last` and `best` are of the curve of the hardest
    `level`, `averaged` and `raw` of its samples, by which weights drew them."""

    world: str
    cell: str
    num_seeds: int
    steps: int | None
    modules: Mapping[str, int]
    level: str
    last: float | None
    best: float | None
    averaged: float | None
    raw: float | None


def compared(runs: Iterable[RunRecord]) -> list[Compared]:
    """A row for each cell that has been scored; none outside studies."""
    cells: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        if run.world is not None and run.cell is not None and run.scores:
            cells.setdefault((run.world, run.cell), []).append(run)
    rows: list[Compared] = []
    for (world, cell), alike in cells.items():
        level = list(alike[0].scores)[-1]
        curves = [run.curves[level] for run in alike if run.curves.get(level)]
        raw = [t.joint[level].value for run in alike for t in _raw(run) if level in t.joint]
        rows.append(
            Compared(
                world=world,
                cell=cell,
                num_seeds=len(alike),
                steps=alike[0].steps,
                modules=alike[0].modules,
                level=level,
                last=_mean(curve[-1][1] for curve in curves),
                best=_mean(max(value for _, value in curve) for curve in curves),
                averaged=_mean(run.scores[level].joint.value for run in alike),
                raw=_mean(raw),
            )
        )
    return rows


def _raw(run: RunRecord) -> list[TrialRecord]:
    return [t for t in run.trials.values() if t.weights == "raw" and t.checkpoint is None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _strip(comparison: ComparisonRecord, effect: float) -> Strip:
    low, high = comparison.low, comparison.high
    return Strip(
        comparison,
        None if low is None else _place(low),
        None if high is None else _place(high),
        tuple(_place(d) for d in comparison.differences),
        _place(effect),
    )


def _place(difference: float) -> float:
    return 50 + 50 * min(1.0, max(-1.0, difference / _SPAN))
