"""The picture of a split: a cell for each combination of the two largest factors, in the first
paper's colours, and a facet for each combination of the others.

A cell that holds several levels is divided by their shares, an empty one is left blank: so the same
picture serves splits on classes, predicates on a clip's own numbers, and datasets with gaps.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from vidcomp.media import write_bytes
from vidcomp.report.figures import SETTINGS, Picture, svg
from vidcomp.world.coverage import Coverage
from vidcomp.world.factors import Factor
from vidcomp.world.splits import LEVEL_COLOURS, level_name

_MOST_FACETS = 24  # more factors than fit are summed over
_MOST_NAMES = 40  # classes that are named along an axis
_WIDTH_IN = 11
_CELL_IN = (0.18, 0.62)  # least, most
_LETTER_IN = 0.075  # of the numbers in cells
_GAP = 0.06  # between cells, as a share of one
_DARK, _LIGHT = "#1d2128", "#ffffff"


def coverage_figure(coverage: Coverage) -> Figure:
    """The picture, in matplotlib's current settings."""
    rows, columns, facets = _layout(coverage.split.factors.sizes)
    items = coverage.split.factors.items
    shape = [math.prod(len(items[f].classes) for f in part) for part in (rows, columns, facets)]
    table = coverage.by((*rows, *columns, *facets)).reshape(*shape, -1)
    num_rows, num_columns, num_facets = shape

    least, most = _CELL_IN
    cell_in = min(most, max(least, _WIDTH_IN / (num_columns + 3) / min(num_facets, 3)))
    across = max(1, min(num_facets, int(_WIDTH_IN / (cell_in * (num_columns + 2)))))
    down = math.ceil(num_facets / across)
    height = cell_in * num_rows + _LETTER_IN * max(
        (len(name) for f in columns for name in items[f].class_names), default=0
    )
    size = (across * cell_in * num_columns + 1.6, down * (height + 0.6) + 0.7)
    figure = Figure(figsize=(max(size[0], 4.5), size[1]), layout="compressed")
    grid = figure.subplots(down, across, squeeze=False)
    combinations = [""]
    for f in facets:
        combinations = [
            ", ".join(filter(None, (before, f"{items[f].name} {name}")))
            for before in combinations
            for name in items[f].class_names
        ]
    for k, axes in enumerate(grid.flat):
        if k >= num_facets:
            axes.remove()
            continue
        _draw_cells(axes, table[:, :, k], cell_in if coverage.unit == "clips" else 0.0)
        axes.set_title(combinations[k], fontsize="medium")
        for f in columns:
            _name(axes.xaxis, items[f])
            longest = max(map(len, items[f].class_names)) * _LETTER_IN
            axes.tick_params("x", rotation=60 if longest > cell_in else 0)
        for f in rows if k % across == 0 else ():
            _name(axes.yaxis, items[f])
    totals = coverage.counts.sum(0).tolist()
    keys = [
        Patch(color=_colour(level), label=f"{level_name(level)} {total}")
        for level, total in enumerate(totals)
    ]
    title = f"{coverage.unit}, split {coverage.split.digest}"
    legend = figure.legend(handles=keys, loc="outside upper left", ncols=len(keys), frameon=False)
    legend.set_title(title)
    legend.set_alignment("left")
    return figure


def write_coverage(path: Path, coverage: Coverage) -> None:
    """The picture as PNG, complete or absent."""
    content = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9}):
        coverage_figure(coverage).savefig(content, format="png", dpi=150)
    write_bytes(path, content.getvalue())


def coverage_picture(coverage: Coverage) -> Picture:
    """The picture for a page."""
    with matplotlib.rc_context(SETTINGS):
        source = svg(coverage_figure(coverage))
    return Picture("", source, f"Coverage of {coverage.total}.")


def _layout(sizes: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """The factors of rows, of columns and of facets: the two largest, and all others that fit."""
    by_size = sorted(range(len(sizes)), key=lambda f: -sizes[f])
    columns, rows, others = by_size[:1], by_size[1:2], by_size[2:]
    facets: list[int] = []
    for f in reversed(others):
        if math.prod(sizes[k] for k in (*facets, f)) <= _MOST_FACETS:
            facets.append(f)
    return rows, columns, sorted(facets)


def _draw_cells(axes: Axes, table: Int64[Tensor, "rows columns levels"], cell_in: float) -> None:
    """Cells with their counts, where these fit into cells of `cell_in` inches."""
    num_rows, num_columns, _ = table.shape
    counts = table.double()
    ends = counts.cumsum(-1) / counts.sum(-1, keepdim=True).clamp_min(1) * (1 - _GAP)
    starts = torch.cat([torch.zeros_like(ends[..., :1]), ends[..., :-1]], dim=-1)
    quads: list[list[tuple[float, float]]] = []
    colours: list[str] = []
    for i, j, level in table.nonzero().tolist():
        left, right = (float(edge[i, j, level]) + j - 0.5 for edge in (starts, ends))
        top, bottom = i - 0.5, i + 0.5 - _GAP
        quads.append([(left, top), (right, top), (right, bottom), (left, bottom)])
        colours.append(_colour(level))
        text = str(int(table[i, j, level]))
        if len(text) * _LETTER_IN < (right - left) * cell_in:
            axes.text(
                (left + right) / 2,
                (top + bottom) / 2,
                text,
                ha="center",
                va="center",
                fontsize="x-small",
                color=_text_colour(_colour(level)),
            )
    axes.add_collection(PolyCollection(quads, facecolors=colours, linewidths=0))
    axes.set(xlim=(-0.5, num_columns - 0.5), ylim=(num_rows - 0.5, -0.5), aspect="equal")
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name(axis: Axis, factor: Factor) -> None:
    """A factor's name and its classes along an axis."""
    names = factor.class_names
    if len(names) > _MOST_NAMES:
        axis.set_label_text(f"{factor.name} ({len(names)} classes)")
    else:
        axis.set_label_text(factor.name)
        axis.set_ticks(range(len(names)), names)


def _colour(level: int) -> str:
    return LEVEL_COLOURS[min(level, len(LEVEL_COLOURS) - 1)]


def _text_colour(background: str) -> str:
    """Dark on light colours: the luminance is that of ITU-R BT.601."""
    r, g, b = to_rgb(background)
    return _DARK if 0.299 * r + 0.587 * g + 0.114 * b > 0.5 else _LIGHT
