"""Plots as SVG images that adapt to a light or a dark page.

One small figure for each configuration: a page puts several side by side, a phone one below the
other. Levels have the first paper's colours (`LEVEL_COLOURS`); seeds are thin lines, their mean is
a thick one.

Unusual: text and axes are drawn in marker colours, which become CSS variables of the SVG itself. So
the image follows the reader's colour scheme.
"""

import base64
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidcomp.report.collect import Group, TrainedTokenizer, series
from vidcomp.world.splits import LEVEL_COLOURS, level_name

INK, _RULE = "#010203", "#040506"
_THEME = """<style>
:root { --ink: #4a4f58; --rule: #dfe2e7; }
@media (prefers-color-scheme: dark) { :root { --ink: #b4bac4; --rule: #363c46; } }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
</style>"""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vidcomp",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
WIDTH_IN, ROW_IN = 3.6, 2.1

Line = tuple[Sequence[float], Sequence[float]]
"""x and y."""


@dataclass(frozen=True)
class Picture:
    """A figure for a page: the address of its data, and what it shows in words."""

    title: str
    source: str
    alt: str


def level_colour(level: str) -> str:
    """The colour of a level in hexadecimal digits. Levels beyond the last colour share it."""
    number = next(k for k in itertools.count() if level_name(k) == level)
    return to_hex(LEVEL_COLOURS[min(number, len(LEVEL_COLOURS) - 1)])


def training(group: Group, levels: Sequence[str]) -> Picture:
    """Joint accuracy by level, and below it the loss, over the steps of training."""
    curves = {
        level: [series(run.metrics, f"eval/{level}/joint") for run in group.runs]
        for level in levels
    }
    curves = {level: [line for line in lines if line[0]] for level, lines in curves.items()}
    losses = [line for run in group.runs if (line := series(run.metrics, "loss"))[0]]
    chance = [s.joint.chance for s in group.runs[0].levels.values()]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, 2 * ROW_IN), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        _accuracy_axis(above, chance[0] if chance else None)
        above.set_ylabel("joint accuracy")
        if not any(curves.values()):
            above.text(
                0.5, 0.5, "no evaluation while training", ha="center", transform=above.transAxes
            )
        _draw_levels(above, curves)
        for x, y in losses:
            below.plot(x, y, color=INK, linewidth=0.9)
        below.set_ylabel("loss")
        below.set_xlabel("step")
        source = svg(figure)
    ends = [f"{level} {_mean_of_last(lines):.0%}" for level, lines in curves.items() if lines]
    last = f"; the loss ends at {_mean_of_last(losses):.3g}" if losses else ""
    said = f"joint accuracy at the last evaluation: {', '.join(ends) or 'not measured'}{last}"
    return Picture(group.label, source, f"Training of {group.label}: {said}.")


def by_frame(group: Group, levels: Sequence[str]) -> Picture:
    """The share of clips in which all factors are right in frame k, over k."""
    curves: dict[str, list[Line]] = {}
    for level in levels:
        scored = [run.levels[level].per_frame for run in group.runs if level in run.levels]
        values = [[math.nan if v is None else v for v in frames] for frames in scored if frames]
        curves[level] = [([float(k) for k in range(len(frames))], frames) for frames in values]
    chance = [s.joint.chance for s in group.runs[0].levels.values()]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, ROW_IN), layout="constrained")
        axes = figure.subplots()
        _accuracy_axis(axes, chance[0] if chance else None)
        axes.set_xlabel("frame")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("all factors right")
        trained, longest = group.runs[0].clips.num_frames, _longest(curves)
        if longest > trained:  # a rollout
            axes.axvline(trained - 0.5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        _draw_levels(axes, curves)
        source = svg(figure)
    ends = [
        f"{level} from {lines[0][1][0]:.0%} in the first frame to {lines[0][1][-1]:.0%} in the last"
        for level, lines in curves.items()
        if lines
    ]
    rolled = f"; trained on {trained} frames" if longest > trained else ""
    said = f"Accuracy by frame of {group.label}: {'; '.join(ends)}{rolled}."
    return Picture(group.label, source, said)


def reconstruction(tokenizer: TrainedTokenizer) -> Picture | None:
    """PSNR over the steps of a tokenizer's training; None if it logged none."""
    x, y = series(tokenizer.metrics, "psnr_db")
    if not x:
        return None
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, ROW_IN), layout="constrained")
        axes = figure.subplots()
        axes.plot(x, y, color=INK, linewidth=0.9)
        axes.set_xlabel("step")
        axes.set_ylabel("training PSNR (dB)")
        source = svg(figure)
    said = (
        f"PSNR rises from {y[0]:.1f} to {y[-1]:.1f} dB" if y[-1] > y[0] else f"PSNR {y[-1]:.1f} dB"
    )
    return Picture(tokenizer.name, source, f"Training of {tokenizer.name}: {said}.")


def _accuracy_axis(axes: Axes, chance: float | None) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    if chance is not None:
        axes.axhline(chance, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))


def _draw_levels(axes: Axes, curves: Mapping[str, Sequence[Line]]) -> None:
    for level, lines in curves.items():
        colour = level_colour(level)
        for x, y in lines:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.5)
        if lines:
            x = min((line[0] for line in lines), key=len)
            mean = [sum(y[i] for _, y in lines) / len(lines) for i in range(len(x))]
            axes.plot(x, mean, color=colour, linewidth=1.8, marker="o", markersize=3)


def _longest(curves: Mapping[str, Sequence[Line]]) -> int:
    return max((len(x) for lines in curves.values() for x, _ in lines), default=0)


def _mean_of_last(lines: Sequence[Line]) -> float:
    return sum(y[-1] for _, y in lines) / len(lines)


def svg(figure: Figure) -> str:
    """The figure, drawn with `SETTINGS`, as a ``data:`` address."""
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = content.getvalue().replace(INK, "var(--ink)").replace(_RULE, "var(--rule)")
    text = text[text.index("<svg") :].replace("<defs>", f"{_THEME}<defs>", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
