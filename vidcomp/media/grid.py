"""Many clips as one: a grid with labels on top, to look at samples.

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
GAP_PX = 10
SCALE = 3


@dataclass(frozen=True)
class Cell:
    """One clip of a grid."""

    frames: UInt8[Tensor, "t h w 3"]


def grid(
    rows: Sequence[Sequence[Cell | None]], *, column_labels: Sequence[str] = (), scale: int = SCALE
) -> UInt8[Tensor, "t H W 3"]:
    """The clips of `rows`, `None` for an empty place, enlarged `scale` times, with labels on top,
    long ones wrapped."""
    cells = [cell for row in rows for cell in row if cell is not None]
    sizes = {tuple(cell.frames.shape[1:]) for cell in cells}
    if len(sizes) != 1:
        raise UserError(
            f"a grid takes one or more clips of one size, got {sorted(sizes) or 'none'}"
        )
    height, width = (int(side) * scale for side in cells[0].frames.shape[1:3])
    pitch_y, pitch_x = height + GAP_PX, width + GAP_PX
    font = ImageFont.load_default(FONT_PX)
    headings = [_wrap(label, width, font) for label in column_labels]
    top = GAP_PX + LINE_PX * max((len(lines) for lines in headings), default=0)

    # The text is the same in every frame: one page, onto which the clips are pasted.
    num_columns = max(len(row) for row in rows)
    size = (_even(GAP_PX + num_columns * pitch_x), _even(top + len(rows) * pitch_y))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for c, lines in enumerate(headings):
        for k, line in enumerate(lines):
            at = (GAP_PX + c * pitch_x, GAP_PX // 2 + k * LINE_PX)
            draw.text(at, line, fill=INK, font=font)

    num_frames = max(len(cell.frames) for cell in cells)
    video = torch.from_numpy(np.array(page)).repeat(num_frames, 1, 1, 1)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if cell is None:
                continue
            x, y = GAP_PX + c * pitch_x, top + r * pitch_y
            held = torch.arange(num_frames).clamp_max(len(cell.frames) - 1)
            large = cell.frames.cpu()[held].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            video[:, y : y + height, x : x + width] = large
    return video


def written(text: str, width: int) -> UInt8[Tensor, "1 H width 3"]:
    """A strip of paper with a text on it, of an even height."""
    font = ImageFont.load_default(FONT_PX)
    lines = _wrap(text, width - 2 * GAP_PX, font)
    page = Image.new("RGB", (width, _even(GAP_PX + LINE_PX * len(lines))), PAPER)
    for k, line in enumerate(lines):
        ImageDraw.Draw(page).text((GAP_PX, k * LINE_PX), line, fill=INK, font=font)
    return torch.from_numpy(np.array(page))[None]


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


def _even(size: int) -> int:
    return size + size % 2
