"""Clips from files: videos and images in any tree, with a table of factors beside them, or without.

    runs/data/motion/   factors.csv   clips/0000/000000.mp4   000000.truth.safetensors (optional)

``factors.csv`` may be ``factors.jsonl`` or ``factors.parquet``; files that it does not list are not
part of the dataset. Without a table, the folder that a clip lies in can be its one label, as in
ImageFolder and Kinetics, or clips have no factors at all: ``labels``.

What is in the files, how clips are cut from them and what is done with broken ones, see
`vidcomp.media.clips`. An image is a clip of one frame: nothing here asks.
"""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media import SUFFIXES
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.walk import files_below
from vidcomp.world.locations import Locations
from vidcomp.world.manifest import Manifest
from vidcomp.world.table import TABLE, Table, find_table
from vidcomp.world.truth import Truth, read_truth, truth_path


class Config(base.Config, Reading):
    """`labels`: from the table, from the names of the clips' folders, or none: an unconditional
    model. `temporal` names the factors of a table that no single frame shows; a rendered dataset
    says so itself.
    """

    path: Path
    labels: Literal["table", "folders", "none"] = "table"
    temporal: tuple[str, ...] = ()

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """Files, decoded when they are asked for."""

    def __init__(self, config: Config) -> None:
        listed = _table(config)
        files = ClipFiles(config.path, listed.paths, config)
        self.table = listed[files.file_of]
        super().__init__(files, listed.factors, self.table.classes, self.table.values)
        # Where clips are resized or skip frames, what was noted of the files is not true of them.
        as_noted = config.windows == "first" and config.temporal_stride == 1 and not files.resized
        self._has_truth = as_noted and _has_truth(config.path, self.table.paths)
        of_a_user = files.are_new and Manifest.load(config.path) is None
        if of_a_user and config.labels == "table":
            _say_what_is_not_listed(config.path, listed.paths)

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth | None:
        self.check_indices(indices)
        if not self._has_truth:
            return None
        noted = [self._noted(i) for i in indices.tolist() or [0]]
        return Truth.cat(noted).first_frames(self.num_frames)[: len(indices)]

    def locations(self, indices: Int64[Tensor, " b"]) -> Locations | None:
        truth = self.truth(indices) if self._says_who_is_told_of else None
        if truth is None:
            return None
        return Locations.of_truth(truth, height=self.height, width=self.width)

    @functools.cached_property
    def _says_who_is_told_of(self) -> bool:
        """As the first truth does, so does every other; where none does, clips are read without."""
        return self._has_truth and self._noted(0).labelled is not None

    def _noted(self, i: int) -> Truth:
        return read_truth(truth_path(self.files.root / self.table.paths[i]))


def _has_truth(folder: Path, paths: Sequence[str]) -> bool:
    """Whether the truth of each clip lies beside it; raises UserError if that of some does."""
    ending = truth_path(Path("x")).name[1:]
    # Folders are listed and paths are split as text: of 100 000, pathlib would take seconds.
    split = [path.rpartition("/") for path in paths]
    noted = {
        place: {
            name[: -len(ending)] for name in os.listdir(folder / place) if name.endswith(ending)
        }
        for place in {place + slash for place, slash, _ in split}
    }
    if not any(noted.values()):
        return False
    absent = [
        path
        for path, (place, slash, name) in zip(paths, split, strict=True)
        if os.path.splitext(name)[0] not in noted[place + slash]
    ]
    if 0 < len(absent) < len(paths):
        raise UserError(
            f"{len(absent)} of {len(paths)} clips in {folder} lack their truth, such as "
            f"{truth_path(folder / absent[0])}; restore it, or remove all *{ending} there"
        )
    return not absent


def _say_what_is_not_listed(folder: Path, listed: Sequence[str]) -> None:
    known = {os.path.normpath(path) for path in listed}
    others = [path for path in clips_in(folder) if path not in known]
    if others:
        print(
            f"{folder}: {len(others)} clips are not in its table and are left out, such as "
            f"{others[0]}",
            file=sys.stderr,
        )


def _table(config: Config) -> Table:
    """What the clips are and show, or the reason why that is not known and what to do."""
    folder = config.path
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}; put your own clips there with a {TABLE}, or render some: "
            f"python tools/render.py configs/data/motion.yaml out={folder}"
        )
    manifest = Manifest.load(folder)
    found = find_table(folder)
    if found is None and manifest is not None:
        done = sum(1 for _ in (folder / "clips").rglob("*.mp4"))
        raise UserError(
            f"{folder} holds {done} of {manifest.num_clips} clips, its render was interrupted; "
            f"go on with the same command, such as: python tools/render.py CONFIG out={folder}"
        )
    if config.labels == "table" and found is not None:
        return Table.load(folder, factors=manifest and manifest.factors, temporal=config.temporal)
    if config.temporal:
        raise UserError("temporal names factors of a table; these clips have none")
    paths = clips_in(folder)
    if not paths:
        raise UserError(f"{folder} has no clips ({', '.join(SUFFIXES)}) and no {TABLE}")
    if config.labels == "folders":
        return Table.of_folders(folder, paths)
    if config.labels == "none":
        return Table.unlabelled(paths)
    raise UserError(
        f"{folder} has {len(paths)} clips but no {TABLE}; write one, with a first line such as "
        f"'path,shape,colour' and for each clip a line such as '{paths[0]},circle,red'; or set "
        "labels=folders (a clip's folder is its label) or labels=none (no factors)"
    )


def clips_in(folder: Path) -> list[str]:
    """The clips of a tree by their suffix, in the order of the alphabet, hidden ones left out."""
    return sorted(path for path in files_below(folder) if path.lower().endswith(SUFFIXES))
