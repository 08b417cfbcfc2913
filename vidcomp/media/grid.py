"""Many clips as one: a grid with captions and coloured borders, for samples and reports.

Clips are enlarged by whole pixels, so that what a model drew is what a person sees. A clip shorter
than the longest holds its last frame. The result has an even height and width, as players' codecs
want.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vidcomp.config import UserError

Rgb = tuple[int, int, int]

PAPER: Rgb = (255, 255, 255)
INK: Rgb = (30, 30, 30)
FONT_PX = 11
LINE_PX = 14
GAP_PX = 6
BORDER_PX = 2


@dataclass(frozen=True)
class Cell:
    """One clip of a grid. `caption` stands below it, long lines wrapped."""

    frames: UInt8[Tensor, "t h w 3"]
    caption: str = ""
    border: Rgb = PAPER


def grid(
    rows: Sequence[Sequence[Cell | None]],
    *,
    scale: int = 3,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> UInt8[Tensor, "t H W 3"]:
    """The clips of `rows`, `None` for an empty place, with labels to the left and on top."""
    cells = [cell for row in rows for cell in row if cell is not None]
    sizes = {tuple(cell.frames.shape[1:]) for cell in cells}
    if len(sizes) != 1:
        raise UserError(
            f"a grid takes one or more clips of one size, got {sorted(sizes) or 'none'}"
        )
    height, width = (int(side) * scale for side in cells[0].frames.shape[1:3])
    num_columns = max(len(row) for row in rows)
    font = ImageFont.load_default(FONT_PX)
    pitch_x = width + 2 * BORDER_PX + GAP_PX
    left = GAP_PX + (
        int(max(font.getlength(label) for label in row_labels)) + GAP_PX if row_labels else 0
    )
    headings = [_wrap(label, pitch_x - GAP_PX, font) for label in column_labels]
    top = GAP_PX + LINE_PX * max((len(lines) for lines in headings), default=0)

    # Text and borders are the same in every frame: one page, onto which the clips are pasted.
    captions = [
        [_wrap(c.caption, pitch_x - GAP_PX, font) if c else [] for c in row] for row in rows
    ]
    heights = [
        LINE_PX * max(map(len, row), default=0) + height + 2 * BORDER_PX + GAP_PX
        for row in captions
    ]
    tops = [top + sum(heights[:r]) for r in range(len(rows))]
    page = Image.new("RGB", (_even(left + num_columns * pitch_x), _even(top + sum(heights))), PAPER)
    draw = ImageDraw.Draw(page)
    for r, label in enumerate(row_labels):
        draw.text((GAP_PX, tops[r] + height // 2 - LINE_PX // 2), label, fill=INK, font=font)
    for c, lines in enumerate(headings):
        _write(draw, (left + c * pitch_x, GAP_PX // 2), lines, font)

    num_frames = max(len(cell.frames) for cell in cells)
    places: list[tuple[int, int, Cell]] = []
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if cell is None:
                continue
            x, y = left + c * pitch_x, tops[r]
            box = (x, y, x + width + 2 * BORDER_PX - 1, y + height + 2 * BORDER_PX - 1)
            draw.rectangle(box, outline=cell.border, width=BORDER_PX)
            _write(draw, (x, y + height + 2 * BORDER_PX), captions[r][c], font)
            places.append((x + BORDER_PX, y + BORDER_PX, cell))
    video = torch.from_numpy(np.array(page)).repeat(num_frames, 1, 1, 1)
    for x, y, cell in places:
        held = torch.arange(num_frames).clamp_max(len(cell.frames) - 1)
        large = cell.frames.cpu()[held].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        video[:, y : y + height, x : x + width] = large
    return video


def _wrap(
    text: str, width_px: int, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont"
) -> list[str]:
    lines: list[str] = []
    for given in text.splitlines():
        line = ""
        for word in given.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width_px:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[str],
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> None:
    for k, line in enumerate(lines):
        draw.text((at[0], at[1] + k * LINE_PX), line, fill=INK, font=font)


def _even(size: int) -> int:
    return size + size % 2
