"""Pictures of what `vidcomp.probes.locality` found: mean maps around a probe and around an object.

``locality.png`` has a column for each level, ``locality.mp4`` is the same as a film over them, from
noise to clean. Each map is brightest at its largest share; brightness is the root of shares, so
that tails are seen. Maps of clips are summed over frames. The square is the window.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vidcomp.media import write_png, write_video

_INCHES = 1.5  # of a map
_LEVELS_PER_S = 2.0
_KINDS = ("pixels", "objects")


def draw_maps(tables: Mapping[str, Tensor], folder: Path, *, window: int) -> tuple[Path, Path]:
    """The picture and the film, from tables with keys like ``network/0.5/maps/pixels``."""
    found = [key.split("/") for key in tables if "/maps/" in key]
    sources, levels = (list(dict.fromkeys(parts[k] for parts in found)) for k in (0, 1))
    levels.sort(key=float)
    rows = [(source, kind) for kind in _KINDS for source in sources]
    shown = [row for row in rows if any(_has(tables, *row, level) for level in levels)]
    picture, film = folder / "locality.png", folder / "locality.mp4"
    write_png(picture, _drawn(tables, shown, levels, window=window))
    pages = [_drawn(tables, shown, [level], window=window) for level in levels]
    write_video(film, torch.stack(pages), fps=_LEVELS_PER_S, codec="h264")
    return picture, film


def _has(tables: Mapping[str, Tensor], source: str, kind: str, level: str) -> bool:
    found = tables.get(f"{source}/{level}/maps/{kind}")
    return found is not None and bool(found.any())


def _drawn(
    tables: Mapping[str, Tensor],
    rows: Sequence[tuple[str, str]],
    levels: Sequence[str],
    *,
    window: int,
) -> UInt8[Tensor, "h w 3"]:
    size = ((len(levels) + 1) * _INCHES, (len(rows) + 0.4) * _INCHES)
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), len(levels), squeeze=False)
    for r, (source, kind) in enumerate(rows):
        for c, level in enumerate(levels):
            panel = panels[r, c]
            panel.set_xticks([])
            panel.set_yticks([])
            if r == 0:
                panel.set_title(f"level {level}", fontsize=8)
            if c == 0:
                panel.set_ylabel(f"{source}\n{kind}", fontsize=8)
            if _has(tables, source, kind, level):
                shares = tables[f"{source}/{level}/maps/{kind}"].sum(0).numpy()
                half = [side / 2 for side in shares.shape]
                extent = (-half[1], half[1], half[0], -half[0])
                panel.imshow(shares, norm=PowerNorm(0.5, vmin=0), cmap="magma", extent=extent)
                corner = (-window / 2, -window / 2)
                square = Rectangle(corner, window, window, fill=False, edgecolor="white", lw=0.6)
                panel.add_patch(square)
    canvas.draw()
    image = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3].copy())
    height, width = (side // 2 * 2 for side in image.shape[:2])  # as players' codecs want
    return image[:height, :width].contiguous()
