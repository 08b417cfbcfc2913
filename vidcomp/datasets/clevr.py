"""CLEVR v1.0: pictures of 3 to 10 objects on a floor, as clips of one frame.

    images/train/CLEVR_train_000000.png     scenes/CLEVR_train_scenes.json

and the same for ``val`` (Johnson and others 2017, https://cs.stanford.edu/people/jcjohns/clevr).
The test images have no scenes. What https://github.com/facebookresearch/clevr-dataset-gen renders
is read alike if put so: ``part: new`` is ``images/new`` and ``scenes/CLEVR_new_scenes.json``.

The factor is the number of objects; the truth is where they are, on the floor and in the picture.
``pixel_coords`` are rounded distances from the top left corner of the picture as it was rendered,
480 x 320 in the release and 320 x 240 by the generator's default, so its size is read from the
file. The release's README and the generator disagree on the names of other keys (``relations`` or
``relationships``), none of which is used.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import repeat
from jaxtyping import Int64, Shaped
from pydantic import field_validator
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media import MediaError
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.notes import parsed
from vidcomp.world.annotations import counted, labelled
from vidcomp.world.truth import MAX_OBJECTS, Truth

ATTRIBUTES = {
    "shape": ("cube", "sphere", "cylinder"),
    "size": ("small", "large"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "material": ("rubber", "metal"),
}
"""Of each object, as the scenes name them."""

SCENES = (
    'scenes of CLEVR: {"scenes": [{"image_filename", "objects": [{"shape", "size", "color", '
    '"material", "3d_coords", "pixel_coords"}]}]}, as unpacked from '
    "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip"
)


class Config(base.Config, Reading):
    """`path`: the folder. `part`: train or val. `counts`: the least and the most objects; pictures
    of more or fewer are left out."""

    path: Path
    part: str = "train"
    counts: tuple[int, int] = (3, 10)

    @field_validator("part")
    @classmethod
    def _has_scenes(cls, part: str) -> str:
        if part == "test":
            raise ValueError("the test images of CLEVR have no scenes; legal: train, val")
        return part

    @field_validator("counts")
    @classmethod
    def _is_a_range(cls, counts: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= counts[0] <= counts[1] <= MAX_OBJECTS:
            raise ValueError(f"the least, then the most, of 0 to {MAX_OBJECTS}, got {counts}")
        return counts

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """The pictures of a part, in the order of their scenes."""

    def __init__(self, config: Config) -> None:
        least, most = config.counts
        path = config.path / "scenes" / f"CLEVR_{config.part}_scenes.json"
        images = config.path / "images" / config.part
        scenes = parsed(path, _read, expected=SCENES)
        _refuse_other_images(path, images, {scene.file for scene in scenes})
        chosen = {s.file: s.objects for s in scenes if least <= len(s.objects) <= most}
        if not chosen:
            raise UserError(f"{path} has no scene of {least} to {most} objects; set other counts")
        files = ClipFiles(images, list(chosen), config)
        # One row a file, padded to the most objects.
        in_order = [chosen[file] for file in files.paths]
        counts = torch.tensor([len(objects) for objects in in_order])
        self._present = torch.arange(most) < counts[:, None]
        things = [thing for objects in in_order for thing in objects]
        self._attributes = self._padded(
            [thing.attributes for thing in things], torch.full((len(ATTRIBUTES),), -1)
        )
        self._places = self._padded([thing.place for thing in things], torch.zeros(3))
        self._pixels = self._padded([thing.pixel for thing in things], torch.zeros(2))
        shown = counts[files.file_of].tolist()
        super().__init__(files, *labelled(counted("count", shown, range(least, most + 1))))

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        self.check_indices(indices)
        rows = self.files.file_of[indices]
        present = self._present[rows]
        pixels = repeat(self._pixels[rows], "b n xy -> b t n xy", t=self.num_frames)
        return Truth(
            present=present,
            positions_px=self.files.points_to_clip(pixels, indices) * present[:, None, :, None],
            positions=repeat(self._places[rows], "b n xyz -> b t n xyz", t=self.num_frames),
        )

    def attributes(self, indices: Int64[Tensor, " b"]) -> dict[str, Int64[Tensor, "b n"]]:
        """Of each object in the order of the truth, the numbers of its `ATTRIBUTES`; -1 for
        none."""
        self.check_indices(indices)
        ids = self._attributes[self.files.file_of[indices]]
        return {name: ids[..., k] for k, name in enumerate(ATTRIBUTES)}

    def _padded(self, rows: list[tuple[Any, ...]], empty: Shaped[Tensor, " k"]) -> Tensor:
        """``files n k``: the rows where an object is present, `empty` elsewhere."""
        out = empty.repeat(*self._present.shape, 1)
        out[self._present] = torch.tensor(rows, dtype=empty.dtype).reshape(-1, len(empty))
        return out


class _Object(NamedTuple):
    """Numbers of `ATTRIBUTES`, x, y, z in the world, column and row in the picture as rendered."""

    attributes: tuple[int, ...]
    place: tuple[float, ...]
    pixel: tuple[float, ...]


class _Scene(NamedTuple):
    """A picture and what is in it."""

    file: str
    objects: tuple[_Object, ...]


def _read(path: Path) -> list[_Scene]:
    scenes: list[_Scene] = []
    for scene in json.loads(path.read_text())["scenes"]:
        objects = tuple(_object(thing, path) for thing in scene["objects"])
        scenes.append(_Scene(scene["image_filename"], objects))
    return scenes


def _object(thing: dict[str, Any], path: Path) -> _Object:
    numbers: list[int] = []
    for name, legal in ATTRIBUTES.items():
        if thing[name] not in legal:
            raise MediaError(
                f"{path} has an object of {name} {thing[name]!r}; {nearest(thing[name], legal)}"
            )
        numbers.append(legal.index(thing[name]))
    x, y, z = thing["3d_coords"]
    column, row, _depth = thing["pixel_coords"]
    return _Object(tuple(numbers), (x, y, z), (column - 0.5, row - 0.5))  # from pixel 0's centre


def _refuse_other_images(path: Path, folder: Path, files: set[str]) -> None:
    """Each scene has its picture, and each picture its scene."""
    if not folder.is_dir():
        raise UserError(f"there is no {folder}, which holds the images of {path}")
    there = {image.name for image in folder.glob("*.png")}
    for these, what in (
        (files - there, f"scenes of {path} have no image in {folder}"),
        (there - files, f"images in {folder} have no scene in {path}"),
    ):
        if these:
            raise UserError(f"{len(these)} {what}, such as {min(these)}; unpack CLEVR again")
