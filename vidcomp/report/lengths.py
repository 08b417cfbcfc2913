"""What a report says of worlds of many objects (arXiv:2509.16447): recall at each number of them,
how local the networks are, and whether the two go together.

Drawn from the scores of the probes `counting` and `locality`; nothing is shown where they were not
asked. The second paper gives pictures and no such numbers: all of this is the project's own.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vidcomp.report.collect import Group, ScoredRun, World
from vidcomp.report.correlation import Correlation, rank_correlation
from vidcomp.report.figures import INK, ROW_IN, SETTINGS, WIDTH_IN, Picture, level_colour, svg
from vidcomp.report.reading import trial_records
from vidcomp.report.records import REAL, SAMPLES, ScoreRecord, TrialRecord

COUNTING, LOCALITY = "counting", "locality"
AREA = f"{SAMPLES}/n/area"
SOURCES = {"network": "-", "untrained": ":", "wiener": "--"}
_HOW_MANY = {"clips_per_level", "batch_size", "seed"}
"""Settings of sampling that change how many clips are drawn, or which, but not how."""

Scores = Mapping[str, ScoreRecord]


class Point(NamedTuple):
    """A checkpoint of a run; `small` if it is not the last."""

    leakage: float
    recall: float
    small: bool


@dataclass(frozen=True)
class Together:
    """Leakage and generalisation over so many `runs` and, with older ones, `checkpoints`; `last`:
    over the runs' last ones alone, where training is equally long."""

    correlation: Correlation
    last: Correlation
    runs: int
    checkpoints: int
    picture: Picture


def recalls(world: World) -> list[Picture]:
    """Recall at the places that were asked for, over their number, for each configuration."""
    groups = [group for group in world.groups if any(_by_count(_counting(r)) for r in group.runs)]
    return [_recall(group, world) for group in groups]


def leakages(world: World) -> list[Picture]:
    """The share of what objects do that lies outside their windows, over the level, for each
    configuration; beside it the null models."""
    groups = [
        group for group in world.groups if any(_leakage(run, "network") for run in group.runs)
    ]
    return [_leakage_picture(group) for group in groups]


def together(world: World) -> Together | None:
    """Leakage where little of a clip is shown yet, against the mean recall above the trained
    counts: a point for each run, and a small one for each older checkpoint that has both."""
    of_groups = {group.label: [_points(run) for run in group.runs] for group in world.groups}
    runs = [points for of_group in of_groups.values() for points in of_group if points]
    count = sum(len(points) for points in runs)
    if count < 2:
        return None
    every = rank_correlation([[(p.leakage, p.recall) for p in points] for points in runs])
    last = [[(p.leakage, p.recall) for p in points if not p.small] for points in runs]
    said = f"Leakage against recall above the trained counts, {len(runs)} runs"
    title = f"each point is a run, {len(runs)} in all"
    if count > len(runs):
        said += f", {count} checkpoints"
        title += f"; small ones are older checkpoints: {count} points"
    picture = Picture(title, _scatter(of_groups), f"{said}.")
    return Together(every, rank_correlation(last), len(runs), count, picture)


def _points(run: ScoredRun) -> list[Point]:
    """Of those checkpoints of a run that have both numbers."""
    areas = {"": _counting(run).get(AREA)}
    for trial in trial_records(run.beside).values():
        if trial.checkpoint is not None and _is_drawn_alike(trial):
            areas[f"step-{trial.checkpoint}/"] = trial.scores.get(AREA)
    found: list[Point] = []
    for prefix, area in areas.items():
        leak = _leakage(run, f"{prefix}network")
        if leak and area is not None and area.value is not None:
            found.append(Point(leak[0][1], area.value, bool(prefix)))
    return found


def _is_drawn_alike(trial: TrialRecord) -> bool:
    return trial.weights == "averaged" and trial.settings.keys() <= _HOW_MANY


def _scatter(of_groups: Mapping[str, Sequence[list[Point]]]) -> str:
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(2 * WIDTH_IN, 1.5 * ROW_IN), layout="constrained")
        axes = figure.subplots()
        markers = "osD^v<>PX*hd"
        colours = matplotlib.colormaps["tab20"]
        shown = {label: runs for label, runs in of_groups.items() if any(runs)}
        for k, (label, runs) in enumerate(shown.items()):
            marker, colour = markers[k % len(markers)], to_hex(colours(k % 20))
            # The small ones first and without a label, so that the legend's marker is a large one.
            for small, size, name in ((True, 6, None), (False, 22, label)):
                every = itertools.chain.from_iterable(runs)
                of_size = [(p.leakage, p.recall) for p in every if p.small == small]
                axes.scatter(*_columns(of_size), s=size, label=name, marker=marker, color=colour)
        axes.set_xlabel("leakage at the lowest level")
        axes.set_ylabel("recall above the trained counts")
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)


def _recall(group: Group, world: World) -> Picture:
    lines = [_by_count(_counting(run)) for run in group.runs]
    trials = {
        name: [_by_count(trial_records(run.beside)[name].scores) for run in group.runs]
        for name, trial in trial_records(group.runs[0].beside).items()
        if trial.checkpoint is None and all(name in trial_records(r.beside) for r in group.runs)
    }
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, ROW_IN), layout="constrained")
        axes = figure.subplots()
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("objects asked for")
        axes.set_ylabel("recall")
        for name, of_trial in trials.items():
            _draw_mean(axes, of_trial, style="--", label=name)
        for line in lines:
            axes.plot(*_columns(line), color=INK, linewidth=0.7, alpha=0.5)
        _draw_mean(axes, lines, style="-", label="samples")
        _draw_chance(axes, _counting(group.runs[0]))
        _mark_levels(axes, lines, world)
        if any(any(of_trial) for of_trial in trials.values()):
            axes.legend(fontsize=7, frameon=False)
        source = svg(figure)
    mean = _mean(lines)
    ends = ", ".join(f"{value:.0%} of {n}" for n, value in mean[:: max(1, len(mean) // 4)])
    return Picture(group.label, source, f"Recall by number of objects of {group.label}: {ends}.")


def _draw_mean(
    axes: Axes, lines: Sequence[list[tuple[float, float]]], *, style: str, label: str
) -> None:
    if mean := _mean(lines):
        axes.plot(*_columns(mean), color=INK, linewidth=1.6, linestyle=style, label=label)


def _draw_chance(axes: Axes, scores: Scores) -> None:
    """What conditions of other clips with as many objects give."""
    of_count = [(n, score.chance) for n, score in _scores_by_count(scores)]
    known = [(n, chance) for n, chance in of_count if chance is not None]
    axes.plot(*_columns(known), color=INK, linewidth=0.8, linestyle=(0, (2, 3)))


def _mark_levels(axes: Axes, lines: Sequence[list[tuple[float, float]]], world: World) -> None:
    """Points of the mean in the colour of the level that a number of objects has."""
    level_of: dict[float, str] = {}
    for level in world.split.level_names:
        for combination in world.split.combinations_of(level):
            name = world.split.factors.items[0].class_names[int(combination[0])]
            level_of[float(name)] = level
    for n, value in _mean(lines):
        colour = level_colour(level_of[n]) if n in level_of else INK
        axes.plot([n], [value], marker="o", markersize=4, color=colour)


def _leakage_picture(group: Group) -> Picture:
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, ROW_IN), layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel("level, from nothing shown to all")
        axes.set_ylabel("leakage")
        for source, style in SOURCES.items():
            lines = [line for run in group.runs if (line := _leakage(run, source))]
            _draw_mean(axes, lines, style=style, label=source)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, frameon=False)
        source = svg(figure)
    mean = _mean([_leakage(run, "network") for run in group.runs])
    ends = ", ".join(f"{value:.2g} at level {level:g}" for level, value in mean)
    return Picture(group.label, source, f"Leakage of {group.label}: {ends}.")


def _counting(run: ScoredRun) -> Scores:
    return run.scores.get(COUNTING, {})


def _scores_by_count(scores: Scores, source: str = SAMPLES) -> list[tuple[float, ScoreRecord]]:
    found: list[tuple[float, ScoreRecord]] = []
    for path, score in scores.items():
        words = path.split("/")
        if len(words) == 4 and words[:2] == [source, "n"] and words[3] == "recall":
            found.append((float(words[2]), score))
    return sorted(found, key=lambda pair: pair[0])


def _by_count(scores: Scores, source: str = SAMPLES) -> list[tuple[float, float]]:
    found = _scores_by_count(scores, source)
    return [(n, score.value) for n, score in found if score.value is not None]


def ceiling(world: World) -> list[tuple[float, float]]:
    """Recall of the detector on real clips, by number of objects."""
    return _by_count(_counting(world.runs[0]), REAL) if world.runs else []


def _leakage(run: ScoredRun, source: str) -> list[tuple[float, float]]:
    """By level, from the lowest. `source`: in older checkpoints, as ``step-500/network``."""
    found: list[tuple[float, float]] = []
    for path, score in run.scores.get(LOCALITY, {}).items():
        words = path.split("/")
        of_source = "/".join(words[:-2]) == source and words[-1] == "leakage"
        if of_source and score.value is not None:
            found.append((float(words[-2]), score.value))
    return sorted(found)


def _mean(lines: Sequence[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    values: dict[float, list[float]] = {}
    for line in lines:
        for x, y in line:
            values.setdefault(x, []).append(y)
    return [(x, math.fsum(of_x) / len(of_x)) for x, of_x in sorted(values.items())]


def _columns(line: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in line], [y for _, y in line]
