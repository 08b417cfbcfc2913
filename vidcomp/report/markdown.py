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
from vidcomp.report.tables import Cell


def markdown(record: ReportRecord) -> str:
    """All tables."""
    parts = [accuracies(record, world) for world in _worlds(record)]
    return "\n".join([*parts, claims(record)] if record.claims else parts)


def accuracies(record: ReportRecord, world: str) -> str:
    """Joint accuracy in one world by cell and level, as `Cell` has it, and the share of frames in
    which nothing could be read; above them the ceilings, which all runs on a tokenizer share."""
    runs = [run for run in record.runs if run.world == world and run.scores]
    levels = list(dict.fromkeys(level for run in runs for level in run.scores))
    first_of = {run.tokenizer: run for run in reversed(runs)}
    rows = [["joint accuracy", *levels, f"unreadable, {levels[-1]}" if levels else ""]]
    rows.append(["ceiling: real clips", *_row(runs[:1], levels, _ceiling(REAL)), ""])
    for run in runs:
        if first_of[run.tokenizer] is run:
            found = _row([run], levels, _ceiling(RECONSTRUCTION))
            rows.append([f"ceiling: reconstructed by {run.tokenizer}", *found, ""])
    for cell in dict.fromkeys(run.cell for run in runs):
        of_cell = [run for run in runs if run.cell == cell]
        unread = _row(of_cell, levels[-1:], _unreadable)
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


def _unreadable(run: RunRecord, level: str) -> ScoreRecord | None:
    return run.scores[level].unreadable if level in run.scores else None


def _row(runs: Sequence[RunRecord], levels: Sequence[str], look: Look) -> list[str]:
    found = [[score for run in runs if (score := look(run, level))] for level in levels]
    return [_share(Cell(tuple(scores))) for scores in found]


def _share(cell: Cell) -> str:
    if cell.value is None:
        return "–"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.0%}"
    return f"{cell.value:.0%} [{cell.low:.0%}, {cell.high:.0%}]"


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
