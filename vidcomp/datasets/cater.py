"""CATER: objects that slide, turn, jump and hide under cones (Girdhar and Ramanan 2020,
arXiv:1910.04744).

    all_actions/videos/CATER_new_000000.avi   all_actions/scenes/CATER_new_000000.json
    max2action/...

Motion-JPEG of frames 0 to 300, 320 x 240, 24 per second. The generator itself writes ``images/``
and ``CLEVR_new_``: a video belongs to the scene of its name whose folder lies beside its own.

Factors: `count`, the objects of the scene, and `containment`, whether a cone is put over an object
in the clip.

Unusual: ``pixel_coords`` are those of the first frame only, rounded. Later positions in the picture
are unknown (NaN), since the camera is not told and moves in half of the variants; positions in the
world, whose frames have strings for keys, are known throughout.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.notes import found, parsed, remembered
from vidcomp.world.annotations import counted, happens, labelled, truth_of_each
from vidcomp.world.truth import Truth

LAYOUT = "videos/CATER_new_000000.avi beside scenes/CATER_new_000000.json, as CATER is unpacked"
SCENE = (
    "a CATER scene: objects [{instance, shape, pixel_coords, locations {'0': [x, y, z], ...}}] and "
    "movements {instance: [[action, other, start, end], ...]}"
)


class Config(base.Config, Reading):
    """`path`: the folder with ``videos`` and ``scenes``, or one above it. With `on_error=skip`
    scenes without a video are left out."""

    path: Path

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """The videos that have a scene, in the order of their names."""

    def __init__(self, config: Config) -> None:
        scenes, notes = _pair(config)
        self.files = ClipFiles(config.path, list(scenes), config)
        self._scenes = [scenes[path] for path in self.files.paths]
        self._notes = [notes[path] for path in self._scenes]
        self._most_objects = max(note["count"] for note in self._notes)
        counts = [self._notes[file]["count"] for file in self.files.file_of.tolist()]
        contained = [self._contains(i) for i in range(len(self.files))]
        super().__init__(
            self.files, *labelled(counted("count", counts), happens("containment", contained))
        )

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        self.check_indices(indices)
        return truth_of_each(self._truth, indices, num_objects=self._most_objects)

    def _contains(self, i: int) -> bool:
        frames = self.files.frames_of(i)
        spans = self._notes[self.files.file_of[i]]["contains"]
        return any(start <= frames[-1] and frames[0] <= end for start, end in spans)

    def _truth(self, i: int) -> Truth:
        read = functools.partial(_placed, frames=self.files.frames_of(i))
        path = self.files.root / self._scenes[self.files.file_of[i]]
        placed = parsed(path, read, expected=SCENE)
        return Truth(
            present=torch.ones(1, placed.positions.shape[2], dtype=torch.bool),
            positions_px=self.files.points_to_clip(placed.positions_px, torch.tensor([i])),
            positions=placed.positions,
        )


class Placed(NamedTuple):
    """Where the objects are, in pixels of the file and in the world."""

    positions_px: Float[Tensor, "1 t n 2"]
    positions: Float[Tensor, "1 t n 3"]


def _placed(path: Path, frames: range) -> Placed:
    objects = json.loads(path.read_text())["objects"]
    positions_px = torch.full((1, len(frames), len(objects), 2), torch.nan)
    if frames[0] == 0:
        corners = torch.tensor([item["pixel_coords"][:2] for item in objects]) * 1.0
        positions_px[0, 0] = corners - 0.5  # rounded distances from the picture's corner
    places = [[item["locations"][str(f)] for item in objects] for f in frames]
    return Placed(positions_px, torch.tensor([places]) * 1.0)


def _pair(config: Config) -> tuple[dict[str, str], dict[str, Any]]:
    """The scene of each video that has one, and what is in it."""
    videos = found(config.path, "*_new_*.avi", expected=LAYOUT, key=_place)
    paths = found(config.path, "*_new_*.json", expected=LAYOUT, key=_place)
    pairs = {videos[key]: path for key, path in paths.items() if key in videos}
    lonely = [path for key, path in paths.items() if key not in videos]
    if lonely and (config.on_error == "raise" or not pairs):
        raise UserError(
            f"{config.path / lonely[0]} has no {Path(lonely[0]).stem}.avi in a folder beside its "
            f"own; expected {LAYOUT}, or set on_error=skip to leave out scenes without a video"
        )
    if not pairs:
        raise UserError(f"{config.path} holds {len(videos)} videos, no scenes; expected {LAYOUT}")
    notes = remembered(config.path, "cater-1", list(pairs.values()), _note, expected=SCENE)
    return pairs, notes


def _place(path: Path) -> str:
    """The same for a video and its scene: the folder above theirs, and their name."""
    return f"{path.parent.parent.as_posix()}/{path.stem}"


def _note(path: Path) -> dict[str, Any]:
    """What the factors are made of."""
    plain = json.loads(path.read_text())
    movements = [move for moves in plain["movements"].values() for move in moves]
    contains = [[start, end] for action, _, start, end in movements if action == "_contain"]
    return {"count": len(plain["objects"]), "contains": contains}
