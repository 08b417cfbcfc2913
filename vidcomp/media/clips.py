"""Clips out of files: which frames of which file each clip is, read and resized when asked for.

All datasets that lie in files are made of this, so that windows, strides, crops, decoders and
broken files are the same everywhere. Each file is checked once (`vidcomp.media.index`). A clip is a
window of a file; an image is a file of one frame.

Frames are read in the process that asks, one clip after the other: more at a time is what
``train.num_workers`` is for.
"""

import functools
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import get_worker_info

from vidcomp.config import UserError
from vidcomp.media.decode import has_decord, read_video
from vidcomp.media.index import index_files
from vidcomp.media.resize import Size, cover_points, covering_size, resized
from vidcomp.seeding import Rng
from vidcomp.types import Frames

MAX_LISTED = 20
"""Files that are named when some are left out; all are counted."""

APART = (
    "give images, and clips of each length, a folder of their own and read them as one: "
    "dataset: {name: mixture, parts: [{dataset: {name: folder, path: IMAGES}}, "
    "{dataset: {name: folder, path: CLIPS}}]}"
)
"""What else can be done about files that differ in length."""


class Reading(Size):
    """How clips are cut from files.

    `num_frames`: None takes all of each file, if all files agree. `temporal_stride`: every k-th
    frame. `windows`: only the first clip of each file, or as many as fit one after the other.
    `height`, `width`: None keeps the files' own; otherwise clips are resized with anti-aliasing
    until they cover the frame, and cropped: at the centre, or in training at random. `decoder`:
    auto takes the faster of those that are right. `on_error`: whether a file that is broken or too
    short stops the run or is left out. Up to `cache_gb` of decoded clips stay in memory, shared out
    among the workers of a DataLoader.
    """

    num_frames: int | None = Field(default=None, ge=1)
    temporal_stride: int = Field(default=1, ge=1)
    windows: Literal["first", "all"] = "first"
    crop: Literal["centre", "random"] = "centre"
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    on_error: Literal["raise", "skip"] = "raise"
    cache_gb: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> "Reading":
        if self.crop == "random" and self.height is None:
            raise ValueError("crop=random needs height and width: without them nothing is cropped")
        if self.windows == "all" and self.num_frames is None:
            raise ValueError("windows=all needs num_frames, the length of a window")
        return self


class ClipFiles:
    """The clips in some files. Clip `i` is cut from `paths[file_of[i]]`, from its frame `starts[i]`
    on. `skipped`: what is wrong with the files that are left out. `resized`: whether any file has
    another size than the clips. `are_new`: whether some were never read before."""

    def __init__(self, root: Path, paths: Sequence[str], reading: Reading) -> None:
        if reading.decoder == "decord" and not has_decord():
            raise UserError("decord is not installed here; set decoder=auto or decoder=pyav")
        self.root, self.reading = root, reading
        raise_problems = reading.on_error == "raise"
        self._index = index_files(root, paths, raise_problems=raise_problems)
        self.paths, self.are_new = self._index.paths, self._index.is_new
        problems = np.array(self._index.problems, np.object_)
        readable = np.flatnonzero(problems == "")
        if not raise_problems and reading.num_frames is not None:
            short = self._of(readable, "num_frames") < _span(reading.num_frames, reading)
            for i in readable[short].tolist():
                length = self._index.records["num_frames"][i]
                problems[i] = f"{self.paths[i]}: {length} frames are too few for a clip"
            readable = readable[~short]
        self.skipped: tuple[str, ...] = tuple(problems[problems != ""].tolist())
        self._say_what_is_skipped()
        if not len(readable):
            raise UserError(f"{root}: none of the {len(self.paths)} files can be read")
        self._set_sizes(readable)
        self._set_windows(readable)
        self._cache: dict[int, UInt8[Tensor, "t h w 3"]] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.file_of)

    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None = None) -> Frames:
        """The clips with these indices, cropped at random by `rng`, or at the centre."""
        out = torch.empty(
            len(indices), self.num_frames, self.height, self.width, 3, dtype=torch.uint8
        )
        draws = None if rng is None else rng.fold("crop").uniform(2).tolist()
        for row, i in enumerate(indices.tolist()):
            clip = self._covering(i)
            free = (clip.shape[1] - self.height, clip.shape[2] - self.width)
            if any(free):
                top, left = (side // 2 for side in free)
                if draws is not None:
                    v, u = draws[row]
                    top, left = int(v * (free[0] + 1)), int(u * (free[1] + 1))
                clip = clip[:, top : top + self.height, left : left + self.width]
            out[row] = clip
        return out

    def frames_of(self, i: int) -> range:
        """The frames of its file that clip `i` shows."""
        start, how = int(self.starts[i]), self.reading
        return range(start, start + _span(self.num_frames, how), how.temporal_stride)

    def points_to_clip(
        self, points_px: Float[Tensor, "b t n 2"], indices: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b t n 2"]:
        """Pixel coordinates (x, y) in the files to those in the clips, of which the centre is
        taken."""
        out = torch.empty_like(points_px)
        files = self.file_of[indices].numpy()
        heights, widths = self._of(files, "height").tolist(), self._of(files, "width").tolist()
        for row, size in enumerate(zip(heights, widths, strict=True)):
            out[row] = cover_points(points_px[row], of=size, height=self.height, width=self.width)
        return out

    @property
    def decoders(self) -> dict[str, int]:
        """How many clips are read by which decoder."""
        by_decord = int(self._by_decord.sum())
        counts = {"pyav": len(self) - by_decord, "decord": by_decord}
        return {decoder: count for decoder, count in counts.items() if count}

    @functools.cached_property
    def content_ids(self) -> Int64[Tensor, " n"]:
        """Of each clip's file: the same for the same content, whatever its name or place."""
        files, places = self.file_of.unique(return_inverse=True)
        digests: list[bytes] = self._of(files.numpy(), "digest").tolist()
        return torch.tensor([int(digest[:16], 16) >> 1 for digest in digests])[places]

    @functools.cached_property
    def fingerprint_parts(self) -> str:
        """What the pixels depend on: the content of the files that are read, and how. Not places or
        dates, and not the decoder: both give the same frames."""
        files = self.file_of.unique().numpy()
        seen = hashlib.sha256(self._of(files, "digest").tobytes())
        how = self.reading
        cut = [self.num_frames, how.temporal_stride, how.windows, self.height, self.width, how.crop]
        seen.update(str(cut).encode())
        return seen.hexdigest()

    def _covering(self, i: int) -> UInt8[Tensor, "t h w 3"]:
        """Clip `i`, resized but not yet cropped."""
        if i in self._cache:
            return self._cache[i]
        clip = read_video(
            self.root / self.paths[self.file_of[i]],
            frames=self.frames_of(i),
            decoder="decord" if self._by_decord[i] else "pyav",
        )
        size = covering_size(clip.shape[1], clip.shape[2], self.height, self.width)
        clip = resized(clip, size)
        workers = get_worker_info()  # of which each has a cache of its own
        room = self.reading.cache_gb * 1e9 / (workers.num_workers if workers else 1)
        if self._cached_bytes + clip.nbytes <= room:
            self._cache[i] = clip
            self._cached_bytes += clip.nbytes
        return clip

    def _of(self, files: NDArray[np.int64], field: str) -> NDArray[Any]:
        return self._index.records[field][files]

    def _say_what_is_skipped(self) -> None:
        if self.skipped:
            listed = [f"  {problem}" for problem in self.skipped[:MAX_LISTED]]
            if len(self.skipped) > MAX_LISTED:
                listed.append(f"  and {len(self.skipped) - MAX_LISTED} more")
            head = f"{self.root}: {len(self.skipped)} of {len(self.paths)} files are left out:"
            print(head, *listed, sep="\n", file=sys.stderr)

    def _set_sizes(self, readable: NDArray[np.int64]) -> None:
        """The clips' length, size and rate; raises UserError if the files disagree on one that is
        not set."""
        how = self.reading
        lengths = 1 + (self._of(readable, "num_frames") - 1) // how.temporal_stride
        self.num_frames = how.num_frames or int(lengths[0])
        wrong = lengths < self.num_frames if how.num_frames else lengths != self.num_frames
        if wrong.any():
            first = wrong.argmax()
            raise UserError(
                f"{self.root / self.paths[readable[first]]} has {lengths[first]} frames, not "
                f"{self.num_frames}; set num_frames to at most {lengths.min()}, every file then "
                "gives its first frames; or set num_frames and on_error=skip: shorter files are "
                f"left out; or {APART}"
            )
        sizes = np.stack([self._of(readable, "height"), self._of(readable, "width")], axis=1)
        self.height, self.width = how.height or int(sizes[0, 0]), how.width or int(sizes[0, 1])
        wrong = (sizes != (self.height, self.width)).any(1)
        self.resized = bool(wrong.any())
        if how.height is None and self.resized:
            first = wrong.argmax()
            raise UserError(
                f"{self.root / self.paths[readable[first]]} is {sizes[first, 0]}x{sizes[first, 1]},"
                f" not {self.height}x{self.width}; set height and width, and all are resized"
            )
        self.fps = float(np.median(self._of(readable, "fps"))) / how.temporal_stride

    def _set_windows(self, readable: NDArray[np.int64]) -> None:
        """Which file each clip is cut from, where it starts, and by what it is read."""
        step = self.num_frames * self.reading.temporal_stride
        counts = np.ones(len(readable), np.int64)
        if self.reading.windows == "all":
            span = _span(self.num_frames, self.reading)
            counts = 1 + (self._of(readable, "num_frames") - span) // step
        before = np.repeat(counts.cumsum() - counts, counts)  # clips of the files before
        starts = (np.arange(counts.sum()) - before) * step
        files = np.repeat(readable, counts)
        # decord is faster only where it can seek: from about the second key frame on.
        asked = self.reading.decoder
        can_seek = starts * self._of(files, "num_key_frames") >= self._of(files, "num_frames")
        allowed = asked != "pyav" and has_decord()
        is_faster = can_seek | (asked == "decord")
        self._by_decord = allowed & self._of(files, "decord_is_exact") & is_faster
        self.file_of: Int64[Tensor, " n"] = torch.from_numpy(files)
        self.starts: Int64[Tensor, " n"] = torch.from_numpy(starts)


def _span(num_frames: int, reading: Reading) -> int:
    """From the first frame of a clip to behind its last, in frames of the file."""
    return (num_frames - 1) * reading.temporal_stride + 1
