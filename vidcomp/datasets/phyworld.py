"""PhyWorld: balls that roll, fall or collide by exact laws (Kang and others, arXiv:2411.02385).

One HDF5 file, such as ``uniform_motion_30K.hdf5``, in parts named ``00000``, ``00001``, ...:

    video_streams/00000      (n,) of bytes, each a whole mp4: 32 frames of 256 x 256
    position_streams/00000   (n, 32, 2), or (n, 32, 2, 2) of two balls: x, y in a world 10 wide
    init_streams/00000       (n, 2) radius and speed, or (n, 4) both radii and both speeds

A part may also be one video alone, without the first axis. Rows of the stored pictures count down,
y counts up: as in the authors' evaluation, frames are flipped after decoding, so that a position is
that of its pixel. What falls then moves upwards.

The files name no factors. `ranges` makes them of initial quantities: ``radius: [0.7, 1.05, 1.4]``
has two classes, the ranges between these edges, and videos outside them are left out.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from pydantic import Field, field_validator
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.datasets import base
from vidcomp.datasets.base_files import Labelled
from vidcomp.media import READERS, read_video
from vidcomp.media.hdf5 import Hdf5
from vidcomp.media.resize import Size, cover, cover_points
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.annotations import truth_of_each
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.truth import Truth

WORLD_WIDTH = 10.0
FRAMES_PER_S = 10.0
"""A frame is ten steps of 0.01 s of the simulation."""

QUANTITIES = {1: ("radius", "speed"), 2: ("radius_1", "radius_2", "speed_1", "speed_2")}
"""The columns of ``init_streams`` by the number of balls."""

TOLERANCE = 1e-6
"""Quantities lie on a grid, whose points may be rounded to either side of an edge of `ranges`."""


class Config(base.Config, Size):
    """`path`: the file. `num_frames`: the first so many; None takes all."""

    path: Path
    num_frames: int | None = Field(default=None, ge=1)
    ranges: dict[str, tuple[float, ...]] = {}

    @field_validator("ranges")
    @classmethod
    def _rise(cls, ranges: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, edges in ranges.items():
            if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
                raise ValueError(f"{name}: two or more rising edges are needed, got {edges}")
        return ranges

    def build(self) -> "Dataset":
        return Dataset(self)


class _Row(NamedTuple):
    """Where a video is; `row` is None of a part that is one video alone."""

    part: str
    row: int | None


class Dataset(Labelled):
    """The videos of the file, part by part."""

    fps = FRAMES_PER_S

    def __init__(self, config: Config) -> None:
        self._file = Hdf5(
            config.path,
            expected="groups video_streams, position_streams and init_streams of PhyWorld",
            source="https://huggingface.co/datasets/magicr/phyworld",
        )
        rows, initial = self._videos()
        self._num_balls = self._positions(rows[0]).shape[1]
        factors, classes = _classes(config.ranges, initial, self._num_balls)
        chosen = (classes >= 0).all(1)
        if not chosen.any():
            raise UserError(f"{config.path} has no video in these ranges: {config.ranges}")
        self._rows = [rows[i] for i in chosen.nonzero()[:, 0].tolist()]
        self._initial = initial[chosen]
        columns = [QUANTITIES[self._num_balls].index(name) for name in config.ranges]
        values = self._initial[:, columns].float()[..., None][..., : factors.value_size]
        super().__init__(factors, classes[chosen], values)
        first = self._decoded(self._rows[0], self._stream(self._rows[0]), config.num_frames)
        self.num_frames, h, w, _ = first.shape
        self._native = (h, w)
        self.height, self.width = config.height or h, config.width or w

    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Frames:
        rows = [self._rows[i] for i in indices.tolist()]
        streams = [self._stream(row) for row in rows]
        size = (self.num_frames, self.height, self.width, 3)
        frames = torch.empty(len(rows), *size, dtype=torch.uint8)
        with ThreadPoolExecutor(READERS) as pool:
            for row, clip in enumerate(pool.map(self._clip, rows, streams)):
                frames[row] = clip
        return frames

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        self.check_indices(indices)
        return truth_of_each(self._truth, indices, num_objects=self._num_balls)

    @property
    def decoders(self) -> dict[str, int]:
        return {"pyav": len(self)}

    def content(self) -> str:
        """The file is known by its size in bytes and its videos' initial quantities."""
        num_bytes = self._file.path.stat().st_size
        read = [self.num_frames, self.height, self.width]
        return str([num_bytes, self._rows, self._initial.tolist(), read])

    def _truth(self, i: int) -> Truth:
        places = self._positions(self._rows[i])[None, : self.num_frames]
        h, w = self._native
        points = places / WORLD_WIDTH * torch.tensor([w - 1, h - 1])
        points = cover_points(points, of=self._native, height=self.height, width=self.width)
        present = torch.ones(1, self._num_balls, dtype=torch.bool)
        return Truth(present, points.float())

    def _videos(self) -> tuple[list[_Row], Float64[Tensor, "n q"]]:
        """All videos with their initial quantities."""
        rows: list[_Row] = []
        initial: list[np.ndarray] = []
        for part in sorted(self._file["video_streams"]):
            stream = self._file[f"video_streams/{part}"]
            of_part = np.atleast_2d(self._file.rows(f"init_streams/{part}"))
            alone = _is_one_video(stream)
            num_videos = 1 if alone else len(stream)
            num_places = 1 if alone else len(self._file[f"position_streams/{part}"])
            if not num_videos == num_places == len(of_part):
                raise self._file.damaged(
                    f"part {part} has {num_videos} videos, {num_places} rows of positions and "
                    f"{len(of_part)} of initial quantities"
                )
            rows += [_Row(part, None if alone else row) for row in range(num_videos)]
            initial.append(of_part)
        if not rows:
            raise self._file.damaged("it has no videos")
        return rows, torch.from_numpy(np.concatenate(initial)).double()

    def _stream(self, row: _Row) -> bytes:
        return self._at("video_streams", row).tobytes()

    def _positions(self, row: _Row) -> Float64[Tensor, "t n 2"]:
        places = np.asarray(self._at("position_streams", row), dtype=np.float64)
        return torch.from_numpy(places).reshape(len(places), -1, 2)

    def _at(self, key: str, row: _Row) -> Any:
        key = f"{key}/{row.part}"
        return self._file.rows(key) if row.row is None else self._file.rows(key, [row.row])[0]

    def _clip(self, row: _Row, stream: bytes) -> UInt8[Tensor, "t h w 3"]:
        frames = self._decoded(row, stream, self.num_frames)
        if frames.shape[1:3] != self._native:
            raise self._file.damaged(f"its videos differ in size, see {row}")
        return cover(frames, height=self.height, width=self.width)

    def _decoded(
        self, row: _Row, stream: bytes, num_frames: int | None
    ) -> UInt8[Tensor, "t h w 3"]:
        name = f"{self._file.path}, video {row.row or 0} of part {row.part}"
        frames = None if num_frames is None else range(num_frames)
        return read_video(stream, frames=frames, name=name).flip(1)


def _is_one_video(stream: Any) -> bool:
    """Whether a part holds the bytes of one video, not videos that are bytes each."""
    return stream.dtype.kind != "O" or stream.ndim == 0


def _classes(
    ranges: dict[str, tuple[float, ...]], initial: Float64[Tensor, "n q"], num_balls: int
) -> tuple[Factors, Int64[Tensor, "n f"]]:
    """The factors, and the class ids of each video; -1 outside the ranges."""
    factors: list[Factor] = []
    ids = torch.zeros(len(initial), len(ranges), dtype=torch.int64)
    for f, (name, edges) in enumerate(ranges.items()):
        if name not in QUANTITIES[num_balls]:
            raise UserError(
                f"ranges: {num_balls} ball(s) have no {name!r}; "
                f"{nearest(name, QUANTITIES[num_balls])}"
            )
        classes = tuple(
            FactorClass(f"{low:g} to {high:g}", ((low + high) / 2,), ((high - low) / 2,))
            for low, high in pairwise(edges)
        )
        moves = name.startswith("speed")
        unit = "world unit per s" if moves else "world unit"
        factors.append(Factor(name, classes, unit, temporal=moves, kind="continuous"))
        values = initial[:, QUANTITIES[num_balls].index(name)].contiguous()
        inner = torch.tensor(edges[1:-1], dtype=torch.float64)
        inside = (values >= edges[0] - TOLERANCE) & (values <= edges[-1] + TOLERANCE)
        ids[:, f] = torch.where(inside, torch.bucketize(values + TOLERANCE, inner, right=True), -1)
    return Factors(tuple(factors)), ids
