"""MOVi: folders that Kubric's workers write (Greff and others 2022, arXiv:2203.03570).

    0/metadata.json   0/events.json   0/rgba_00000 ...   0/segmentation_00000 ...   1/ ...

A scene is a folder of PNG images and two JSON files, as ``challenges/movi/movi_*_worker.py`` makes
it before it is packed into TFDS. Depth, flow and normals are not read, segmentations only if all
scenes have them: their pixels are palette indices, 0 the background and 1 + i instance i.

Factors: `count`, the objects that are seen at any time of the clip, and `collision`, whether two
objects collide in it.

Unusual: an event's frame is a fraction and counts from the simulation's start, while the first
image is frame ``frame_start`` (1). Contacts come once for every step of the simulation with any
force, so an object that lies on the floor touches it in every frame. The floor, and objects that
are never seen, are -1, which TFDS turns into 65535; ``image_positions`` are shares of the width and
height. The alpha channel is not used, as in TFDS.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import get_worker_info

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import Labelled
from vidcomp.media import MediaError
from vidcomp.media.index import READERS
from vidcomp.media.notes import found, parsed, remembered
from vidcomp.media.resize import Size, cover, cover_labels, cover_points
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.annotations import (
    Collision,
    contacts,
    counted,
    happens,
    labelled,
    truth_of_each,
)
from vidcomp.world.truth import Truth

SCENE = (
    "a folder for each scene as Kubric's MOVi workers write it: metadata.json with metadata "
    "{num_frames, frame_rate, resolution} and instances [{positions, image_positions, "
    "visibility}], events.json with collisions [{instances, frame}], and images rgba_00000, ..."
)


class Config(base.Config, Size):
    """`path`: the folder that holds the scenes, however deep. `num_frames`: the first so many of
    each scene; None takes all, if all agree. Up to `cache_gb` of decoded clips stay in
    memory, shared out among the workers of a DataLoader."""

    path: Path
    num_frames: int | None = Field(default=None, ge=1)
    cache_gb: float = Field(default=1.0, ge=0)

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(Labelled):
    """One clip for each scene, in the order of the folders' names."""

    def __init__(self, config: Config) -> None:
        paths = found(config.path, "metadata.json", expected=SCENE, key=_scene_order)
        if not paths:
            raise UserError(f"{config.path} holds no metadata.json; expected {SCENE}")
        self._scenes = [(config.path / path).parent for path in paths.values()]
        notes = remembered(config.path, "movi-1", list(paths.values()), _note, expected=SCENE)
        self._notes = [notes[path] for path in paths.values()]
        first = self._notes[0]
        self.num_frames = config.num_frames or first["num_frames"]
        self.width, self.height = first["resolution"]
        self.fps = float(first["frame_rate"])
        self._check_sizes(config)
        if config.height is not None and config.width is not None:
            self.height, self.width = config.height, config.width
        self._most_objects = max(len(note["first_seen"]) for note in self._notes)
        self._has_masks = all(note["segmented"] for note in self._notes)
        everything = range(len(self._scenes))
        counts = [int(self._seen(i).sum()) for i in everything]
        collides = [bool(self._contacts(i)[..., :-1].any()) for i in everything]
        super().__init__(*labelled(counted("count", counts), happens("collision", collides)))
        self._cache: dict[int, UInt8[Tensor, "t h w 3"]] = {}
        self._cached_bytes, self._room = 0, config.cache_gb * 1e9

    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Frames:
        size = (self.num_frames, self.height, self.width, 3)
        frames = torch.empty(len(indices), *size, dtype=torch.uint8)
        with ThreadPoolExecutor(READERS) as pool:
            for row, clip in enumerate(pool.map(self._read, indices.tolist())):
                frames[row] = clip
        return frames

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        self.check_indices(indices)
        return truth_of_each(self._truth, indices, num_objects=self._most_objects)

    def content(self) -> str:
        """Images are known by their sizes in bytes."""
        images = [_images(scene, "rgba", self.num_frames) for scene in self._scenes]
        sizes = [[path.stat().st_size for path in paths] for paths in images]
        return str([self.num_frames, self.height, self.width, sizes])

    def _check_sizes(self, config: Config) -> None:
        shortest = min(note["num_frames"] for note in self._notes)
        for scene, note in zip(self._scenes, self._notes, strict=True):
            length, size = note["num_frames"], note["resolution"]
            if length < self.num_frames or (
                config.num_frames is None and length != self.num_frames
            ):
                raise UserError(
                    f"{scene} has {length} frames, not {self.num_frames}; set num_frames to "
                    f"{shortest} or fewer: every scene then gives its first frames"
                )
            if config.height is None and size != [self.width, self.height]:
                raise UserError(
                    f"{scene} is {size[1]}x{size[0]}, not {self.height}x{self.width}; set height "
                    "and width, and all are resized"
                )

    def _seen(self, i: int) -> Bool[Tensor, " n"]:
        """Whether each instance shows a pixel at any time of the clip."""
        first = [f if f is not None else self.num_frames for f in self._notes[i]["first_seen"]]
        return torch.tensor(first, dtype=torch.int64) < self.num_frames

    def _contacts(self, i: int) -> Bool[Tensor, "t n n+1"]:
        note = self._notes[i]
        collisions = [Collision(*c) for c in note["collisions"]]
        return contacts(collisions, len(note["first_seen"]), range(self.num_frames))

    def _read(self, i: int) -> UInt8[Tensor, "t h w 3"]:
        if i in self._cache:
            return self._cache[i]
        paths = _images(self._scenes[i], "rgba", self.num_frames)
        images = [parsed(path, _colours, expected=SCENE) for path in paths]
        clip = cover(torch.stack(images), height=self.height, width=self.width)
        workers = get_worker_info()  # of which each has a cache of its own
        if self._cached_bytes + clip.nbytes <= self._room / (workers.num_workers if workers else 1):
            self._cache[i] = clip
            self._cached_bytes += clip.nbytes
        return clip

    def _truth(self, i: int) -> Truth:
        scene, t = self._scenes[i], self.num_frames
        shares, positions = parsed(scene / "metadata.json", _motion, expected=SCENE)
        w, h = self._notes[i]["resolution"]
        points = shares[:t] * torch.tensor([w, h]) - 0.5
        points = cover_points(points, of=(h, w), height=self.height, width=self.width)
        segments = None
        if self._has_masks:
            paths = _images(scene, "segmentation", t)
            labels = torch.stack([parsed(path, _indices, expected=SCENE) for path in paths])
            segments = cover_labels(labels, height=self.height, width=self.width)[None]
        return Truth(
            present=self._seen(i)[None],
            positions_px=points[None],
            positions=positions[None, :t],
            segments=segments,
            contacts=self._contacts(i)[None],
        )


def _scene_order(path: Path) -> str:
    """By number where folders are numbers: 2 comes before 10."""
    return "/".join(part.zfill(8) for part in path.parent.parts)


def _images(scene: Path, layer: str, num_frames: int) -> list[Path]:
    there = {path.stem: path for path in scene.glob(f"{layer}_*")}
    wanted = [f"{layer}_{f:05d}" for f in range(num_frames)]
    if missing := [name for name in wanted if name not in there]:
        raise MediaError(
            f"{scene} lacks {len(missing)} of {num_frames} images, such as {missing[0]}; "
            f"expected {SCENE}"
        )
    return [there[name] for name in wanted]


def _note(path: Path) -> dict[str, Any]:
    """What sizes and factors are made of; the frames of collisions count from the first image."""
    plain = json.loads(path.read_text())
    scene = plain["metadata"]
    _images(path.parent, "rgba", scene["num_frames"])
    seen = [[f for f, pixels in enumerate(k["visibility"]) if pixels] for k in plain["instances"]]
    events = parsed(path.with_name("events.json"), _collisions, expected=SCENE)
    start = plain.get("flags", {}).get("frame_start", 1)  # Kubric's default
    return {
        "num_frames": scene["num_frames"],
        "resolution": scene["resolution"],
        "frame_rate": scene["frame_rate"],
        "segmented": any(path.parent.glob("segmentation_*")),
        "first_seen": [frames[0] if frames else None for frames in seen],
        "collisions": [[*event["instances"], event["frame"] - start] for event in events],
    }


def _collisions(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["collisions"]


def _motion(path: Path) -> tuple[Float[Tensor, "t n 2"], Float[Tensor, "t n 3"]]:
    """Where the instances are: as shares of width and height, and in the world."""
    plain = json.loads(path.read_text())
    instances, t = plain["instances"], plain["metadata"]["num_frames"]
    values = [
        np.array([instance[key] for instance in instances], dtype=np.float32)
        .reshape(len(instances), t, size)
        .swapaxes(0, 1)
        for key, size in (("image_positions", 2), ("positions", 3))
    ]
    return torch.from_numpy(values[0]), torch.from_numpy(values[1])


def _colours(path: Path) -> UInt8[Tensor, "h w 3"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def _indices(path: Path) -> UInt8[Tensor, "h w"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image).astype(np.uint8))
