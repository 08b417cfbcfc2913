"""Cosine matrices of mean shifts as a picture, and all that was measured as JSON.

Ours and other people's models are drawn alike: a heat map for each place, blue below 0 and red
above it whatever the place, lines between factors, grey where there was no direction to compare.
"""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from vidcomp.media import write_bytes
from vidcomp.probes.base_directions import Concepts, Measured
from vidcomp.runs import write_json

_MOST_COLUMNS = 6
_PANEL_IN, _LABELS_IN, _CELL_IN = 1.9, 1.1, 0.13


def write_directions(
    out: Path, measured: Mapping[str, Measured], about: Mapping[str, Any]
) -> list[Path]:
    """``directions.json``, and ``directions-<source>.png`` for each source."""
    out.mkdir(parents=True, exist_ok=True)
    record = {"about": dict(about), **{source: plain(found) for source, found in measured.items()}}
    write_json(out / "directions.json", record)
    paths = [out / "directions.json"]
    for source, found in measured.items():
        paths.append(out / f"directions-{source}.png")
        write_bytes(paths[-1], draw(found))
    return paths


def plain(measured: Measured) -> dict[str, Any]:
    """With null where a concept has no direction."""
    return {
        "concepts": list(measured.concepts.names),
        "factors": list(measured.concepts.factors),
        "scores": {key: score._asdict() for key, score in measured.scores.items()},
        "cosines": {place: _rows(table) for place, table in measured.cosines.items()},
        "regions": {place: _rows(table) for place, table in measured.regions.items()},
    }


def draw(measured: Measured) -> bytes:
    """A PNG; places that begin alike (one level) stand in a row."""
    places = list(measured.cosines)
    start = places[0].rpartition("/")[0]
    alike = sum(place.rpartition("/")[0] == start for place in places)
    num_columns = min(_MOST_COLUMNS, alike)
    num_rows = math.ceil(len(places) / num_columns)
    panel = max(_PANEL_IN, _CELL_IN * len(measured.concepts))
    size = (num_columns * panel + _LABELS_IN + 0.8, num_rows * (panel + 0.5) + _LABELS_IN)
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(num_rows, num_columns, squeeze=False)
        scale = Normalize(-1, 1)
        for axes in panels.flat[len(places) :]:
            axes.set_axis_off()
        for number, (axes, place) in enumerate(zip(panels.flat, places, strict=False)):
            axes.imshow(measured.cosines[place].numpy(), cmap="RdBu_r", norm=scale)
            axes.set_facecolor("0.8")
            axes.set_title(f"{place}\n{_summary(measured, place)}", fontsize=7)
            is_last = number + num_columns >= len(places)
            _frame(axes, measured.concepts, left=number % num_columns == 0, below=is_last)
        figure.colorbar(
            ScalarMappable(scale, "RdBu_r"), ax=panels, shrink=0.6, label="cosine of mean shifts"
        )
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _summary(measured: Measured, place: str) -> str:
    shown = {"gap": "gap", "auc": "AUC", "minimum": "min"}
    found = {word: measured.scores.get(f"{place}/{key}") for key, word in shown.items()}
    words = [f"{word} {score.value:.2f}" for word, score in found.items() if score is not None]
    return ", ".join(words) or "no directions"


def _frame(axes: Axes, concepts: Concepts, *, left: bool, below: bool) -> None:
    """Names of concepts at the edges of the picture, lines between factors in every panel."""
    ticks = range(len(concepts))
    axes.set_yticks(ticks, concepts.names if left else [])
    axes.set_xticks(ticks, concepts.names if below else [], rotation=90)
    axes.tick_params(length=0)
    for i in range(1, len(concepts)):
        if concepts.factors[i] != concepts.factors[i - 1]:
            axes.axhline(i - 0.5, color="black", linewidth=0.8)
            axes.axvline(i - 0.5, color="black", linewidth=0.8)


def _rows(table: Float[Tensor, "n n"]) -> list[list[float | None]]:
    missing = torch.isnan(table).tolist()
    return [
        [None if gone else round(value, 6) for value, gone in zip(row, of_row, strict=True)]
        for row, of_row in zip(table.tolist(), missing, strict=True)
    ]
