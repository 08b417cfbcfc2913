"""CLEVRER: 20 000 videos of colliding objects (Yi and others 2020, arXiv:1910.01442).

    video_train/video_00000-01000/video_00000.mp4                   0-9999 train, 10000-14999
    annotation_train/annotation_00000-01000/annotation_00000.json   validation, 15000-19999 test
    derender_proposals/proposal_00000.json                          optional

128 frames of 320 x 480. Many copies are re-rooted (``videos/train/...``), so files are found by
name, anywhere in the folder. The test videos have no annotations and are left out.

Factors: `count`, the objects that are inside the camera's view at any time of the clip, and
`collision`, whether two objects collide in it.

Unusual: annotations hold world coordinates only. Where an object is in the picture is known from
the proposals, masks that a detector found, which are matched to objects by colour, material and
shape: no two objects of a video share all three. Without a match a position is NaN, and if any
video lacks proposals, none are used.
"""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media import MediaError
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.masks import mask_from_rle
from vidcomp.media.notes import found, parsed, remembered
from vidcomp.media.resize import cover_labels
from vidcomp.world.annotations import (
    Collision,
    contacts,
    counted,
    happens,
    labelled,
    truth_of_each,
)
from vidcomp.world.truth import Truth

LAYOUT = (
    "video_00000.mp4 and annotation_00000.json anywhere in the folder, as in video_train.zip and "
    "annotation_train.zip of http://clevrer.csail.mit.edu"
)
ANNOTATION = (
    "a CLEVRER annotation: video_filename, object_property [{object_id, color, material, shape}], "
    "motion_trajectory [{objects [{object_id, location, inside_camera_view}]}] and collision "
    "[{object_ids, frame_id}]"
)
PROPOSALS = "CLEVRER proposals: frames [{frame_index, objects [{mask, color, material, shape}]}]"


class Config(base.Config, Reading):
    """`path`: the folder with the videos and the annotations, however deep. With `on_error=skip`
    annotations without a video are left out."""

    path: Path

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """The annotated videos, in the order of their numbers."""

    def __init__(self, config: Config) -> None:
        self._proposals = found(config.path, "proposal_*.json", expected=LAYOUT)
        annotations, notes = _pair(config)
        self.files = ClipFiles(config.path, list(annotations), config)
        self._annotations = [annotations[path] for path in self.files.paths]
        self._notes = [notes[path] for path in self._annotations]
        self._most_objects = max(len(note["in_view"]) for note in self._notes)
        self._has_masks = all(_proposal(path) in self._proposals for path in self._annotations)
        everything = range(len(self.files))
        counts = [sum(self._seen(i)) for i in everything]
        collides = [bool(self._contacts(i).any()) for i in everything]
        super().__init__(
            self.files, *labelled(counted("count", counts), happens("collision", collides))
        )

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        self.check_indices(indices)
        return truth_of_each(self._truth, indices, num_objects=self._most_objects)

    def _seen(self, i: int) -> list[bool]:
        """Of each object, whether it is inside the camera's view at any time of clip `i`."""
        file, frames = int(self.files.file_of[i]), self.files.frames_of(i)
        in_view: list[str] = self._notes[file]["in_view"]
        if any(len(line) <= frames[-1] for line in in_view):
            path = self.files.root / self._annotations[file]
            raise MediaError(f"{path} has fewer frames than its video; expected {ANNOTATION}")
        return [any(line[f] == "1" for f in frames) for line in in_view]

    def _contacts(self, i: int) -> Tensor:
        note = self._notes[self.files.file_of[i]]
        collisions = [Collision(*c) for c in note["collisions"]]
        return contacts(collisions, len(note["in_view"]), self.files.frames_of(i))

    def _truth(self, i: int) -> Truth:
        file, frames, seen = int(self.files.file_of[i]), self.files.frames_of(i), self._seen(i)
        path = self.files.root / self._annotations[file]
        objects, positions = parsed(path, _motion, expected=ANNOTATION)
        truth = Truth(
            present=torch.tensor([seen]),
            positions_px=torch.full((1, len(frames), len(seen), 2), torch.nan),
            positions=positions[None, frames],
            contacts=self._contacts(i)[None],
        )
        if not self._has_masks:
            return truth
        visible = [x if there else None for x, there in zip(objects, seen, strict=True)]
        read = functools.partial(_shown, frames=frames, objects=visible)
        proposals = self.files.root / self._proposals[_proposal(self._annotations[file])]
        shown = parsed(proposals, read, expected=PROPOSALS)
        return replace(
            truth,
            positions_px=self.files.points_to_clip(shown.positions_px, torch.tensor([i])),
            segments=cover_labels(shown.segments, height=self.height, width=self.width)[None],
        )


Attributes = tuple[str, str, str]
"""Colour, material and shape: they tell the objects of a video apart."""


def _attributes(item: dict[str, Any]) -> Attributes:
    return item["color"], item["material"], item["shape"]


def _proposal(annotation: str) -> str:
    return Path(annotation).stem.replace("annotation", "proposal")


def _pair(config: Config) -> tuple[dict[str, str], dict[str, Any]]:
    """The annotation of each video that has one, and what is in it."""
    videos = found(config.path, "video_*.mp4", expected=LAYOUT)
    paths = found(config.path, "annotation_*.json", expected=LAYOUT)
    notes = remembered(config.path, "clevrer-1", list(paths.values()), _note, expected=ANNOTATION)
    pairs: dict[str, str] = {}
    for path in paths.values():
        stem = Path(notes[path]["video"]).stem
        if stem in videos:
            pairs[videos[stem]] = path
        elif config.on_error == "raise":
            raise UserError(
                f"{config.path / path} is of {stem}.mp4, which is not in {config.path}; copy it "
                "there, or set on_error=skip to leave out annotations without a video"
            )
    if not pairs:
        raise UserError(
            f"{config.path} holds {len(videos)} videos and {len(paths)} annotations, but no pair "
            f"of them; expected {LAYOUT}"
        )
    return pairs, notes


def _note(path: Path) -> dict[str, Any]:
    """What the factors are made of: per object a digit for each frame, 1 if it is in view."""
    plain = json.loads(path.read_text())
    ids = [item["object_id"] for item in plain["object_property"]]
    in_view = [
        {item["object_id"]: item["inside_camera_view"] for item in frame["objects"]}
        for frame in plain["motion_trajectory"]
    ]
    return {
        "video": plain["video_filename"],
        "in_view": ["".join("01"[bool(frame.get(k))] for frame in in_view) for k in ids],
        "collisions": [
            [*(ids.index(k) for k in event["object_ids"]), event["frame_id"]]
            for event in plain["collision"]
        ],
    }


def _motion(path: Path) -> tuple[list[Attributes], Float[Tensor, "t n 3"]]:
    """The objects, and where they are in the world in each frame of the file."""
    plain = json.loads(path.read_text())
    ids = [item["object_id"] for item in plain["object_property"]]
    frames = [
        {item["object_id"]: item["location"] for item in frame["objects"]}
        for frame in plain["motion_trajectory"]
    ]
    unknown = [torch.nan] * 3
    positions = torch.tensor([[frame.get(k, unknown) for k in ids] for frame in frames])
    return [_attributes(item) for item in plain["object_property"]], positions


class Shown(NamedTuple):
    """Objects in the pictures of the file."""

    positions_px: Float[Tensor, "1 t n 2"]
    segments: UInt8[Tensor, "t h w"]


def _shown(path: Path, frames: range, objects: list[Attributes | None]) -> Shown:
    """What the proposals show of `objects`."""
    proposed = {f["frame_index"]: f["objects"] for f in json.loads(path.read_text())["frames"]}
    sizes = [item["mask"]["size"] for items in proposed.values() for item in items]
    segments = torch.zeros(len(frames), *(sizes[0] if sizes else (1, 1)), dtype=torch.uint8)
    positions_px = torch.full((1, len(frames), len(objects), 2), torch.nan)
    for t, frame in enumerate(frames):
        for item in sorted(proposed[frame], key=lambda item: item["score"]):  # the best comes last
            mask = mask_from_rle(item["mask"])
            if _attributes(item) in objects and mask.any():
                k = objects.index(_attributes(item))
                segments[t][mask] = 1 + k
                positions_px[0, t, k] = mask.nonzero().float().mean(0).flip(0)  # row, column: x, y
    return Shown(positions_px, segments)
