"""Clips from files: videos and images in any tree, with a factor table beside them.

    runs/data/motion/   factors.csv   clips/000000.mp4   clips/000000.truth.safetensors (optional)
    ...

Each file is checked once, when it is first seen: every frame is decoded, and decord's random access
is compared with PyAV's frames (`vidcomp.media.verify`). What was found is kept in ``.index.json``
and forgotten when a file's size or date changes. Files that decord gets wrong are read through
PyAV.

Files in the tree that the table does not list are not part of the dataset. An image is a clip of
one frame: nothing here asks.
"""

import hashlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base import Clips
from vidcomp.media import READERS, SUFFIXES, VideoInfo, has_decord, index_files, read_video
from vidcomp.types import Frames
from vidcomp.world.table import TABLE, Manifest, Table
from vidcomp.world.truth import Truth, read_truth, truth_path


class Config(base.Config):
    """`num_frames`: the first so many of each file; None takes all, if all files agree.

    `height`, `width`: None keeps the files' own; otherwise clips are resized with anti-aliasing
    until they cover the frame, and the centre is taken. `temporal` names the factors that no single
    frame shows; a rendered dataset says so itself. Up to `cache_gb` of decoded clips stay in
    memory.
    """

    path: Path
    num_frames: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    temporal: tuple[str, ...] = ()
    cache_gb: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _both_sides_or_none(self) -> "Config":
        if (self.height is None) != (self.width is None):
            raise ValueError("set both height and width, or neither")
        return self

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(base.Dataset):
    """Files, decoded when they are asked for."""

    def __init__(self, config: Config) -> None:
        if config.decoder == "decord" and not has_decord():
            raise UserError("decord is not installed here; set decoder=auto or decoder=pyav")
        self.config = config
        self.table = _load_table(config)
        self.factors = self.table.factors
        self.files = [config.path / path for path in self.table.paths]
        for path, file in zip(self.table.paths, self.files, strict=True):
            if not file.is_file():
                raise UserError(f"{config.path / TABLE} lists {path!r}, but there is no such file")
        self.index = index_files(config.path, self.table.paths)
        infos = [self.index[path].info for path in self.table.paths]
        self.num_frames = config.num_frames or infos[0].num_frames
        self.height = config.height or infos[0].height
        self.width = config.width or infos[0].width
        self.fps = statistics.median(info.fps for info in infos)
        self._native = config.height is None
        self._may_use_decord = config.decoder != "pyav" and has_decord()
        self._check_sizes(infos)

        clip_bytes = self.num_frames * self.height * self.width * 3
        num_cached = min(len(self), int(config.cache_gb * 1e9) // clip_bytes)
        self._cache = torch.empty(
            num_cached, self.num_frames, self.height, self.width, 3, dtype=torch.uint8
        )  # the system gives the memory when a clip is written to it
        self._cached = torch.zeros(len(self), dtype=torch.bool)
        # Positions and masks of resized clips would be wrong, so those have none.
        self._has_truth = self._native and all(truth_path(file).is_file() for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def classes(self) -> Int64[Tensor, "n f"]:
        return self.table.classes

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        self.check_indices(indices)
        return Clips(
            frames=self._frames(indices),
            classes=self.table.classes[indices],
            values=self.table.values[indices],
        )

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth | None:
        self.check_indices(indices)
        if not self._has_truth or not len(indices):
            return None
        truths = [read_truth(truth_path(self.files[i])) for i in indices.tolist()]
        return Truth.cat(truths).first_frames(self.num_frames)

    @property
    def fingerprint(self) -> str:
        """Of the table, the files' sizes in bytes, and how they are read; not of dates."""
        seen = hashlib.sha256((self.config.path / TABLE).read_bytes())
        seen.update(str([self.index[path].num_bytes for path in self.table.paths]).encode())
        seen.update(
            str([self.num_frames, self.height, self.width, self.factors.to_json()]).encode()
        )
        return seen.hexdigest()[:12]

    def _frames(self, indices: Int64[Tensor, " b"]) -> Frames:
        if self._cached[indices].all():
            return self._cache[indices]
        with ThreadPoolExecutor(READERS) as pool:
            return torch.stack(list(pool.map(self._read, indices.tolist())))

    def _read(self, i: int) -> UInt8[Tensor, "t h w 3"]:
        if self._cached[i]:
            return self._cache[i]
        exact = self.index[self.table.paths[i]].info.decord_is_exact
        decoder = "decord" if exact and self._may_use_decord else "pyav"
        frames = read_video(self.files[i], decoder=decoder, num_frames=self.num_frames)
        if not self._native:
            frames = cover(frames, height=self.height, width=self.width)
        if i < len(self._cache):
            self._cache[i] = frames
            self._cached[i] = True
        return frames

    def _check_sizes(self, infos: list[VideoInfo]) -> None:
        shortest = min(info.num_frames for info in infos)
        for file, info in zip(self.files, infos, strict=True):
            wrong_length = info.num_frames < self.num_frames or (
                self.config.num_frames is None and info.num_frames != self.num_frames
            )
            if wrong_length:
                raise UserError(
                    f"{file} has {info.num_frames} frames, not {self.num_frames}; set num_frames "
                    f"to {shortest} or fewer: every file then gives its first frames"
                )
            if self._native and (info.height, info.width) != (self.height, self.width):
                raise UserError(
                    f"{file} is {info.height}x{info.width}, not {self.height}x{self.width}; "
                    "set height and width, and all are resized"
                )


def cover(
    frames: UInt8[Tensor, "t h w 3"], *, height: int, width: int
) -> UInt8[Tensor, "t height width 3"]:
    """Resize with anti-aliasing until the frame is covered, then take the centre."""
    _, h, w, _ = frames.shape
    if (h, w) == (height, width):
        return frames
    scale = max(height / h, width / w)
    size = [max(height, round(h * scale)), max(width, round(w * scale))]
    resized = F.interpolate(
        rearrange(frames, "t h w c -> t c h w").float(), size=size, mode="bilinear", antialias=True
    )
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    centre = resized[:, :, top : top + height, left : left + width]
    return rearrange(
        centre.round().clamp(0, 255).to(torch.uint8), "t c h w -> t h w c"
    ).contiguous()


def _load_table(config: Config) -> Table:
    """The table, or the reason why there is none and what to do."""
    folder = config.path
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}; put your own clips there with a {TABLE}, or render some: "
            f"python tools/render.py configs/data/motion.yaml out={folder}"
        )
    manifest = Manifest.load(folder)
    if not (folder / TABLE).is_file():
        if manifest is not None:
            done = sum(1 for _ in (folder / "clips").glob("*.mp4"))
            raise UserError(
                f"{folder} holds {done} of {manifest.num_clips} clips, its render was interrupted; "
                f"go on with the same command, such as: python tools/render.py CONFIG out={folder}"
            )
        clips = sorted(
            p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES
        )
        if not clips:
            raise UserError(f"{folder} has no clips ({', '.join(SUFFIXES)}) and no {TABLE}")
        raise UserError(
            f"{folder} has {len(clips)} clips but no {TABLE}; write one, with a first line such as "
            "'path,shape,colour' and for each clip a line such as "
            f"'{clips[0].as_posix()},circle,red'"
        )
    return Table.load(folder, factors=manifest and manifest.factors, temporal=config.temporal)
