"""Grids of clips as video: what was asked for, what is true, what models drew, how it was judged.

Rows are truth, reconstruction and models; columns are combinations. Below each clip stands the
judge's verdict in words, and a strip with a segment for each frame: tall and green where all
factors are read as asked for, short and red where not, and dark for the frame that is shown. So one
sees *when* a clip fails while it plays.

Unusual: everything is drawn at twice the size at which a page shows it, so that text stays sharp.
The last frame is held for a moment before the loop begins again; that is also what makes an image
(t = 1) a video like any other.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vidcomp.report.collect import ScoredRun, World
from vidcomp.report.records import REAL, RECONSTRUCTION, SAMPLES
from vidcomp.world.factors import Factors
from vidcomp.world.splits import level_name

MAX_COLUMNS = 8
PIXELS_PER_PAGE_PIXEL = 2

_CLIP_PX = 192
_GAP_PX = 24
_ROW_GAP_PX = 30
_STRIP_PX = 12
_LINE_PX = 28
_LABEL_PX = 270
_HOLD_S = 0.75

_PAPER = (255, 255, 255)
_INK = (34, 38, 46)
_QUIET = (108, 114, 124)
_GREEN, _LIGHT_GREEN = (26, 127, 55), (172, 221, 184)
_RED, _LIGHT_RED = (200, 40, 40), (244, 186, 182)

Word = tuple[str, tuple[int, int, int]]
"""A word and its colour."""


@dataclass(frozen=True)
class Row:
    """A source's clips, one for each column, and what the judge read in them."""

    label: str
    frames: UInt8[Tensor, "n t h w 3"]
    verdicts: Int64[Tensor, "n t f"]


@dataclass(frozen=True)
class LevelGrid:
    """A grid of one level. `classes` are what each column asks for."""

    level: str
    video: UInt8[Tensor, "t H W 3"]
    fps: float
    classes: Int64[Tensor, "n f"]
    row_labels: tuple[str, ...]
    num_shown: int
    num_combinations: int


def level_grid(world: World, level: str) -> LevelGrid | None:
    """The grid of a level; None if no run kept examples of all that it shows.

    A level of many combinations is shown by `MAX_COLUMNS` of them, evenly spread; one of few shows
    several clips of each. Of the seeds of one configuration the first is shown.
    """
    shown = [g.runs[0] for g in world.groups if (g.runs[0].folder / "examples.npz").is_file()]
    occurrences = world.split.occurrences
    of_level = [i for i, k in enumerate(occurrences.levels.tolist()) if level_name(k) == level]
    step = math.ceil(len(of_level) / MAX_COLUMNS)
    ids = of_level[::step]
    first_of = {run.tokenizer: run for run in reversed(shown)}
    wanted = [("truth", run, REAL) for run in shown[:1]]
    wanted += [
        (f"reconstruction by {name}", run, RECONSTRUCTION)
        for name, run in sorted(first_of.items(), key=lambda item: shown.index(item[1]))
    ]
    wanted += [(run.name, run, SAMPLES) for run in shown]
    found = [(label, *_examples(run, source)) for label, run, source in wanted]
    copies = min((frames.shape[1] for _, frames, _ in found), default=0)
    copies = min(copies, MAX_COLUMNS // len(ids))
    if not copies:
        return None
    rows = [
        Row(label, frames[ids, :copies].flatten(0, 1), verdicts[ids, :copies].flatten(0, 1))
        for label, frames, verdicts in found
    ]
    factors = world.clips.factors
    classes = occurrences.classes[ids].repeat_interleave(copies, 0)
    video = draw(rows, classes, factors, num_held=math.ceil(_HOLD_S * world.clips.fps))
    labels = tuple(row.label for row in rows)
    return LevelGrid(level, video, world.clips.fps, classes, labels, len(ids), len(of_level))


def draw(
    rows: Sequence[Row], classes: Int64[Tensor, "n f"], factors: Factors, *, num_held: int
) -> UInt8[Tensor, "t H W 3"]:
    """The clips of `rows` with labels and verdicts, and then the last frame `num_held` times."""
    _, num_frames, height, width, _ = rows[0].frames.shape
    scale = max(1, round(_CLIP_PX / max(height, width)))
    high, wide = height * scale, width * scale
    pitch = wide + _GAP_PX
    headings = [_wrap([(factors.describe(c), _INK)], wide, bold=True) for c in classes]
    captions = [
        [
            _wrap(verdict_words(v, c, factors), wide)
            for v, c in zip(row.verdicts, classes, strict=True)
        ]
        for row in rows
    ]
    tops, y = [], _GAP_PX + _LINE_PX * max(map(len, headings)) + 8
    for lines in captions:
        tops.append(y)
        y += high + 8 + _STRIP_PX + 6 + _LINE_PX * max(map(len, lines)) + _ROW_GAP_PX
    lefts = [_LABEL_PX + c * pitch for c in range(len(classes))]

    # Text is the same in every frame: one page, onto which clips and strips are pasted.
    page = Image.new("RGB", (_even(_LABEL_PX + len(classes) * pitch), _even(y)), _PAPER)
    ink = ImageDraw.Draw(page)
    for x, lines in zip(lefts, headings, strict=True):
        _write(ink, (x, _GAP_PX), lines, bold=True)
    for top, row, row_captions in zip(tops, rows, captions, strict=True):
        label = _wrap([(row.label, _INK)], _LABEL_PX - 2 * _GAP_PX, bold=True)
        _write(ink, (_GAP_PX, top + (high - _LINE_PX * len(label)) // 2), label, bold=True)
        for x, lines in zip(lefts, row_captions, strict=True):
            _write(ink, (x, top + high + 8 + _STRIP_PX + 6), lines)
    video = torch.from_numpy(np.array(page)).repeat(num_frames, 1, 1, 1)
    for top, row in zip(tops, rows, strict=True):
        right = (row.verdicts == classes[:, None]).all(-1)  # n t
        for n, x in enumerate(lefts):
            clip = row.frames[n].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            video[:, top : top + high, x : x + wide] = clip
            video[:, top + high + 8 :, x : x + wide][:, :_STRIP_PX] = _strip(
                right[n].tolist(), wide
            )
    return torch.cat([video, video[-1:].repeat(num_held, 1, 1, 1)])


def verdict_words(
    verdicts: Int64[Tensor, "t f"], asked: Int64[Tensor, " f"], factors: Factors
) -> list[Word]:
    """A green tick, or what was read; of a factor with a wrong frame, the commonest misreading."""
    words: list[Word] = []
    for f, factor in enumerate(factors.items):
        read = verdicts[:, f]
        wrong = read[read != asked[f]]
        if len(wrong):
            commonest = int(wrong.mode().values)
            words.append((f"{factor.class_names[commonest] if commonest >= 0 else ''}?", _RED))
        else:
            words.append((factor.class_names[int(asked[f])], _QUIET))
    return words if any(colour == _RED for _, colour in words) else [("✓", _GREEN)]


def _strip(right: Sequence[bool], width: int) -> UInt8[Tensor, "t s w 3"]:
    """The frames of a clip as segments, the current one dark."""
    strips = torch.tensor(_PAPER, dtype=torch.uint8).repeat(len(right), _STRIP_PX, width, 1)
    edges = [round(k * width / len(right)) for k in range(len(right) + 1)]
    for k, is_right in enumerate(right):
        start, stop = edges[k], max(edges[k] + 1, edges[k + 1] - 2)
        top = 0 if is_right else _STRIP_PX // 2
        light, dark = (_LIGHT_GREEN, _GREEN) if is_right else (_LIGHT_RED, _RED)
        strips[:, top:, start:stop] = torch.tensor(light, dtype=torch.uint8)
        strips[k, top:, start:stop] = torch.tensor(dark, dtype=torch.uint8)
    return strips


def _examples(
    run: ScoredRun, source: str
) -> tuple[UInt8[Tensor, "c k t h w 3"], Int64[Tensor, "c k t f"]]:
    with np.load(run.folder / "examples.npz") as stored:
        return torch.from_numpy(stored[source]), torch.from_numpy(stored[f"{source}_verdicts"])


@functools.cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """matplotlib's own font: it is on every machine, and has the tick and most alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), 22)


def _wrap(words: Sequence[Word], width: int, *, bold: bool = False) -> list[list[Word]]:
    """Words in lines of at most `width` pixels; a longer word has a line of its own."""
    lines: list[list[Word]] = [[]]
    pieces = [(piece, colour) for text, colour in words for piece in text.split()]
    for piece in pieces:
        longer = " ".join(text for text, _ in [*lines[-1], piece])
        if lines[-1] and _font(bold).getlength(longer) > width:
            lines.append([])
        lines[-1].append(piece)
    return lines


def _write(
    ink: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[Sequence[Word]],
    *,
    bold: bool = False,
) -> None:
    for k, line in enumerate(lines):
        x = float(at[0])
        for text, colour in line:
            ink.text((x, at[1] + k * _LINE_PX), text, fill=colour, font=_font(bold))
            x += _font(bold).getlength(f"{text} ")


def _even(size: int) -> int:
    return size + size % 2
