"""A look at a dataset: some clips of each combination, labelled with it and its level in the split.

What a renderer draws is drawn anew, so nothing has to be stored first. Each clip has a border in
the colour of its level (`vidcomp.world.splits.LEVEL_COLOURS`). A PNG does not move: there, each
clip is shown as moments from its first frame to its last, downwards.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import DataConfig, Dataset
from vidcomp.media import Cell, grid, write_gif, write_png, write_video
from vidcomp.media.grid import written
from vidcomp.report.boxes import LEGEND, draw_boxes, rgb
from vidcomp.world.factors import Factors
from vidcomp.world.splits import LEVEL_COLOURS, Split, level_name

SUFFIXES = (".gif", ".mp4", ".png")
MOMENTS = 5  # of a clip, where the picture does not move

_CLIP_PX = 128  # clips are enlarged to about this size
_PAGE_PX = 1240  # what one row of combinations may take
_MAX_COLUMNS = 8
_BORDER_PX = 3
_HOLD_S = 0.75  # the last frame stands still before the loop begins again

Picture = UInt8[Tensor, "t h w 3"]


class Preview(RootSettings):
    """The YAMLs of ``configs/data``, and what to show of them.

    `combinations`: the most that are shown, levels taking turns. `clips`: how many stand below each
    other; where combinations are few, each has several columns. `truth`: whether boxes are drawn
    around what is seen of each object (`vidcomp.report.boxes`).
    """

    data: DataConfig
    out: Path = Path("preview.gif")
    combinations: int = Field(default=32, ge=1)
    clips: int = Field(default=2, ge=1)
    truth: bool = False

    @field_validator("out")
    @classmethod
    def _is_a_picture(cls, out: Path) -> Path:
        if out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{str(out)!r} is no picture; legal suffixes: {', '.join(SUFFIXES)}")
        return out


@dataclass(frozen=True)
class Shown:
    """A combination at a level, and clips that show it: indices of the dataset."""

    label: str
    level: int
    rows: tuple[int, ...]


def write_preview(settings: Preview) -> str:
    """Write the picture, and say in a line what is on it."""
    config = settings.data
    dataset = (config.render or config.dataset).build()
    split = config.split.build(dataset.factors)
    shown = choose(dataset, split, combinations=settings.combinations, clips=settings.clips)
    still = settings.out.suffix.lower() == ".png"
    picture = draw(dataset, shown, truth=settings.truth, still=still)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(settings.out, picture, fps=dataset.fps)
    num_clips = sum(len(column.rows) for column in shown)
    num_shown = len({(column.label, column.level) for column in shown})
    num_all = len(_combinations_and_levels(dataset, split).unique(dim=0))
    of_all = f" of the {num_all}" if num_shown < num_all else ""
    return f"{num_clips} clips of {num_shown}{of_all} combinations and levels: {settings.out}"


def _combinations_and_levels(dataset: Dataset, split: Split) -> Int64[Tensor, "n 2"]:
    """The level, then the combination, of each clip."""
    classes = dataset.classes()
    levels = split.levels(classes, dataset.values())
    return torch.stack([levels, dataset.factors.combination_ids(classes)], dim=1)


def choose(dataset: Dataset, split: Split, *, combinations: int, clips: int) -> list[Shown]:
    """The first `clips` of each combination and level that the dataset has; of clips of several
    lengths, these take turns. Few combinations have several columns, each of other clips."""
    classes, keys = dataset.classes(), _combinations_and_levels(dataset, split)
    found, group = keys.unique(dim=0, return_inverse=True)  # sorted by level
    lengths = _lengths(dataset)
    some = _some_of_every(found[:, 0], combinations)
    copies = max(1, _MAX_COLUMNS // len(some))
    shown: list[Shown] = []
    for k in some.tolist():
        rows = (group == k).nonzero()[:, 0]
        rows = rows[_in_turns(lengths[rows])][: clips * copies].tolist()
        level, label = int(found[k, 0]), _said(dataset.factors, classes[rows[0]])
        for part in range(math.ceil(len(rows) / clips)):
            shown.append(Shown(label, level, tuple(rows[part * clips :][:clips])))
    return shown


def draw(dataset: Dataset, shown: list[Shown], *, truth: bool, still: bool) -> Picture:
    """A column for each of `shown`, in as many rows as it takes."""
    tiles = dict(_tiles(dataset, [row for column in shown for row in column.rows], truth=truth))
    columns: list[list[Picture]] = []
    for column in shown:
        bordered = [_bordered(tiles[row], rgb(_level_colour(column.level))) for row in column.rows]
        columns.append(
            [part for tile in bordered for part in (_moments(tile) if still else [tile])]
        )
    most = max(1, _PAGE_PX // columns[0][0].shape[2])
    across = math.ceil(len(shown) / math.ceil(len(shown) / min(most, _MAX_COLUMNS)))
    pages: list[Picture] = []
    for start in range(0, len(shown), across):
        cells = [[Cell(tile) for tile in column] for column in columns[start : start + across]]
        labels = [f"{level_name(s.level)}\n{s.label}" for s in shown[start : start + across]]
        rows = list(itertools.zip_longest(*cells))
        pages.append(grid(rows, column_labels=labels, scale=1))
    num_frames, width = max(len(page) for page in pages), max(page.shape[2] for page in pages)
    if truth and _says_who_is_told_of(dataset):
        pages.append(written(LEGEND, width))
    whole = torch.cat([_padded(page, num_frames, width) for page in pages], dim=1)
    num_held = math.ceil(_HOLD_S * dataset.fps) * min(num_frames - 1, 1)  # none of a still
    return torch.cat([whole, whole[-1:].expand(num_held, -1, -1, -1)])


def write_picture(path: Path, picture: Picture, *, fps: float) -> None:
    """By the suffix; of a PNG's frames the first."""
    match path.suffix.lower():
        case ".gif":
            write_gif(path, picture, fps=fps)
        case ".mp4":
            write_video(path, picture, fps=fps, codec="h264")
        case _:
            write_png(path, picture[0])


def _lengths(dataset: Dataset) -> Int64[Tensor, " n"]:
    """The number of frames of each clip."""
    lengths = torch.empty(len(dataset), dtype=torch.int64)
    for portion in dataset.portions():
        lengths[portion.rows] = portion.num_frames
    return lengths


def _in_turns(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """An order in which the labels take turns; what has one label stays in its order."""
    kinds = labels.unique(return_inverse=True)[1]
    rank = F.one_hot(kinds).cumsum(0).gather(1, kinds[:, None])[:, 0]
    return rank.argsort(stable=True)


def _some_of_every(levels: Int64[Tensor, " n"], most: int) -> Int64[Tensor, " m"]:
    """At most `most` of things that are sorted by level: as many of each level, evenly spread."""
    counts = levels[_in_turns(levels)[:most]].bincount().tolist()
    of_level = [(levels == level).nonzero()[:, 0] for level in range(len(counts))]
    pairs = zip(of_level, counts, strict=True)
    return torch.cat([i[torch.linspace(0, len(i) - 1, n).round().long()] for i, n in pairs])


def _said(factors: Factors, classes: Int64[Tensor, " f"]) -> str:
    """``circle red``, and where a class is called by a number, its factor too: ``count 3``."""
    names = [f.class_names[int(k)] for f, k in zip(factors.items, classes, strict=True)]
    pairs = zip(factors.names, names, strict=True)
    return " ".join(name if name[:1].isalpha() else f"{factor} {name}" for factor, name in pairs)


def _tiles(dataset: Dataset, rows: list[int], *, truth: bool) -> Iterator[tuple[int, Picture]]:
    """The clips of these rows, enlarged by whole pixels, and the boxes of their objects."""
    scale = max(1, round(_CLIP_PX / max(dataset.height, dataset.width)))
    indices, lengths = torch.tensor(rows), _lengths(dataset)
    for length in lengths[indices].unique():  # only clips of one length go into a batch
        batch = indices[lengths[indices] == length]
        clips, facts = dataset.clips_and_truth(batch) if truth else (dataset.clips(batch), None)
        if truth and facts is None:
            raise UserError("nothing but labels is known of these clips; leave out truth=true")
        large = clips.frames.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        if facts is not None:
            draw_boxes(large, facts, scale=scale)
        yield from zip(batch.tolist(), large, strict=True)


def _says_who_is_told_of(dataset: Dataset) -> bool:
    truth = dataset.truth(torch.tensor([0]))
    return truth is not None and truth.labelled is not None


def _moments(tile: Picture) -> list[UInt8[Tensor, "1 h w 3"]]:
    """Frames from the first to the last, each a picture of its own."""
    at = torch.linspace(0, len(tile) - 1, min(len(tile), MOMENTS)).round().long()
    return list(tile[at].split(1))


def _bordered(tile: Picture, colour: UInt8[Tensor, " 3"]) -> UInt8[Tensor, "t H W 3"]:
    t, h, w, _ = tile.shape
    whole = colour.expand(t, h + 2 * _BORDER_PX, w + 2 * _BORDER_PX, 3).clone()
    whole[:, _BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = tile
    return whole


def _padded(page: Picture, num_frames: int, width: int) -> UInt8[Tensor, "T h W 3"]:
    """With its last frame held, and white to the right."""
    held = page[torch.arange(num_frames).clamp_max(len(page) - 1)]
    return F.pad(held, (0, 0, 0, width - page.shape[2]), value=255)


def _level_colour(level: int) -> str:
    return LEVEL_COLOURS[min(level, len(LEVEL_COLOURS) - 1)]
