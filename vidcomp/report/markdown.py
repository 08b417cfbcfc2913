"""The tables of a report as Markdown, for a README: ``report.md``.

They are made of a ``report.json`` alone, so that a table in a README can be held against the file
that it came from.
"""

from collections.abc import Callable, Sequence

from vidcomp.report.records import (
    REAL,
    RECONSTRUCTION,
    ClaimRecord,
    ComparisonRecord,
    ReportRecord,
    RunRecord,
    ScoreRecord,
)
from vidcomp.report.rule import t_interval


def markdown(record: ReportRecord) -> str:
    """All tables."""
    parts = [accuracies(record, world) for world in _worlds(record)]
    return "\n".join([*parts, claims(record)] if record.claims else parts)


def accuracies(record: ReportRecord, world: str) -> str:
    """Joint accuracy in one world by cell and level: the mean over seeds with its 95 % t-interval,
    and the share of frames in which nothing could be read; above them the ceilings."""
    runs = [run for run in record.runs if run.world == world and run.scores]
    levels = list(dict.fromkeys(level for run in runs for level in run.scores))
    rows = [["joint accuracy", *levels, f"unreadable, {levels[-1]}" if levels else ""]]
    for source, said in ((REAL, "ceiling: real clips"), (RECONSTRUCTION, "ceiling: reconstructed")):
        rows.append([said, *_row(runs, levels, _ceiling(source)), ""])
    for cell in dict.fromkeys(run.cell for run in runs):
        of_cell = [run for run in runs if run.cell == cell]
        unread = [_share(of_cell, _unreadable(levels[-1]))]
        rows.append([f"{cell} ({len(of_cell)})", *_row(of_cell, levels, _joint), *unread])
    return _table(rows)


def claims(record: ReportRecord) -> str:
    """Each claim in each world: the paper's numbers, ours, and the verdict."""
    rows = [["claim", "paper", "world", "ours: difference, 95 % interval", "verdict"]]
    for found in record.claims:
        paper = "(a control)" if found.own else found.paper
        said = "<br>".join(_comparison(c) for c in found.comparisons)
        rows.append([_claim(found), paper, found.world, said, f"**{found.verdict}**"])
    return _table(rows)


Look = Callable[[RunRecord, str], ScoreRecord | None]


def _joint(run: RunRecord, level: str) -> ScoreRecord | None:
    return run.scores[level].joint if level in run.scores else None


def _ceiling(source: str) -> Look:
    def look(run: RunRecord, level: str) -> ScoreRecord | None:
        found = run.ceilings[source].get(level)
        return found and found.joint

    return look


def _unreadable(level: str) -> Callable[[RunRecord], ScoreRecord | None]:
    return lambda run: run.scores[level].unreadable if level in run.scores else None


def _row(runs: Sequence[RunRecord], levels: Sequence[str], look: Look) -> list[str]:
    return [_share(runs, lambda run, level=level: look(run, level)) for level in levels]


def _share(runs: Sequence[RunRecord], look: Callable[[RunRecord], ScoreRecord | None]) -> str:
    scores = [score for run in runs if (score := look(run)) is not None]
    values = [score.value for score in scores if score.value is not None]
    if not values:
        return "–"
    mean, low, high = t_interval(values)
    if low != low:
        return f"{mean:.0%}"
    return f"{mean:.0%} [{max(low, 0):.0%}, {min(high, 1):.0%}]"


def _claim(found: ClaimRecord) -> str:
    return f"{found.id}. {found.text}: {found.measure}"


def _comparison(found: ComparisonRecord) -> str:
    against = f" − {found.lower}" if found.lower else ""
    notes = f" ({'; '.join(found.notes)})" if found.notes else ""
    if found.mean is None:
        return f"{found.higher}{against}: –{notes}"
    interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.higher}{against}: {found.mean:+.2f}{interval}{notes}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body, ""])


def _worlds(record: ReportRecord) -> list[str]:
    return list(dict.fromkeys(run.world for run in record.runs if run.world))
