"""3D Shapes: 480 000 images of one object in a room, one for each combination of six factors.

The file is ``3dshapes.h5`` (Burgess and Kim 2018, https://github.com/google-deepmind/3d-shapes):
``images`` (480000, 64, 64, 3) uint8 and ``labels`` (480000, 6) float64, row-major over floor hue,
wall hue, object hue, scale, shape and orientation. Labels are values, not class ids, and the scales
are 0.75 to 1.25, although its README says 0 to 1.

The first paper (arXiv:2510.03075) controls shape, object hue and scale, and leaves out the capsule.

Unusual: in the published file a chunk holds a 4 x 4 patch of 15 000 images, so that one image costs
the unpacking of 768 chunks, a third of a second. The chosen images are therefore unpacked once, to
a memory-mapped file beside it. A file with small chunks is read as it is.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import Field, field_validator
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import Labelled
from vidcomp.media.hdf5 import Hdf5
from vidcomp.seeding import Rng, permutation
from vidcomp.types import Frames
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factor, FactorClass

SIDE = 64
COLUMNS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
"""Of ``labels``, in the file's order."""

HUES = ("red", "orange", "lime", "green", "mint", "cyan", "azure", "blue", "purple", "rose")
SHAPES = ("cube", "cylinder", "sphere", "capsule")
SCALES = tuple(f"{0.75 + k / 14:.2f}" for k in range(8))
ANGLES = tuple(f"{-30 + 30 * k / 7:.0f}" for k in range(15))

TOLERANCE = 1e-3
"""How far a label may be from the value of its class."""

FRAMES_PER_S = 1.0
"""Of an image: any number will do."""


class Config(base.Config):
    """`path`: the file. `factors` chooses and orders the controlled factors and their classes;
    images of other classes are left out, and the other factors are free. `num_clips`: only so many
    of the chosen images, drawn by `seed`."""

    path: Path
    factors: dict[str, tuple[str, ...]] = {"shape": SHAPES[:3], "object_hue": HUES, "scale": SCALES}
    num_clips: int | None = Field(default=None, ge=1)
    seed: int = 0

    @field_validator("factors")
    @classmethod
    def _are_known(cls, chosen: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        choose(chosen, _library())
        return chosen

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(Labelled):
    """Images of the file, as clips of one frame."""

    num_frames, height, width, fps = 1, SIDE, SIDE, FRAMES_PER_S

    def __init__(self, config: Config) -> None:
        factors = choose(config.factors, _library())
        self._file = Hdf5(
            config.path,
            expected="3dshapes.h5 with images (n, 64, 64, 3) uint8 and labels (n, 6) float64",
            source="https://storage.googleapis.com/3d-shapes/3dshapes.h5",
        )
        labels = self._labels()
        known = self._known_classes(labels)
        columns = [COLUMNS.index(name) for name in factors.names]
        ids = torch.zeros(len(labels), len(columns), dtype=torch.int64)
        for f, column in enumerate(columns):
            whole = _library()[column]
            number = torch.full((len(whole.classes),), -1)  # of each known class among the chosen
            for k, class_name in enumerate(factors.items[f].class_names):
                number[whole.index(class_name)] = k
            ids[:, f] = number[known[:, column]]
        rows = (ids >= 0).all(1).nonzero()[:, 0]
        if (config.num_clips or 1) > len(rows):
            raise UserError(
                f"{config.path} has {len(rows)} images of the chosen classes; "
                "set num_clips to that or less, or choose other classes in factors"
            )
        if config.num_clips is not None:
            drawn = permutation(config.seed, "images of 3D Shapes", len(rows))
            rows = rows[drawn[: config.num_clips].sort().values]
        self._rows = rows
        super().__init__(factors, ids[rows])

    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Frames:
        if self._file.has_large_chunks("images"):
            images = np.load(self._unpacked, mmap_mode="r")[indices.numpy()]
        else:
            images = self._file.rows("images", self._rows[indices].numpy())
        return torch.from_numpy(images)[:, None]

    def content(self) -> str:
        """The file is known by its size in bytes."""
        return str([self._file.path.stat().st_size, self._rows.tolist()])

    @functools.cached_property
    def _unpacked(self) -> Path:
        return self._file.unpacked("images", self._rows.numpy())

    def _labels(self) -> Float64[Tensor, "n 6"]:
        images, labels = self._file["images"], self._file["labels"]
        if images.shape[1:] != (SIDE, SIDE, 3) or images.dtype != np.uint8:
            raise self._file.damaged(f"its images are {images.dtype} of shape {images.shape}")
        if labels.shape != (len(images), len(COLUMNS)):
            raise self._file.damaged(f"{len(images)} images, but labels of shape {labels.shape}")
        return torch.from_numpy(self._file.rows("labels")).double()

    def _known_classes(self, labels: Float64[Tensor, "n 6"]) -> Int64[Tensor, "n 6"]:
        """Of each label the class in `_library`."""
        ids: list[Tensor] = []
        for column, factor in enumerate(_library()):
            # A shape has no quantity, its label is its number.
            values = [c.prototype[0] if c.prototype else k for k, c in enumerate(factor.classes)]
            legal = torch.tensor(values, dtype=torch.float64)
            distance = (labels[:, column, None] - legal).abs()
            if distance.numel() and distance.amin(1).amax() > TOLERANCE:
                wrong = float(labels[distance.amin(1).argmax(), column])
                shown = ", ".join(f"{value:.4g}" for value in values)
                raise self._file.damaged(f"a {factor.name} is {wrong:.4g}, legal: {shown}")
            ids.append(distance.argmin(1))
        return torch.stack(ids, dim=1)


def _library() -> tuple[Factor, ...]:
    """All factors with all classes, in the order of the columns."""
    hues = tuple(FactorClass(name, (k / 10,), (0.0,)) for k, name in enumerate(HUES))
    scales = tuple(FactorClass(s, (0.75 + k / 14,), (0.0,)) for k, s in enumerate(SCALES))
    angles = tuple(FactorClass(a, (-30 + 30 * k / 7,), (0.0,)) for k, a in enumerate(ANGLES))
    return (
        *(Factor(name, hues, "hue in [0, 1)") for name in COLUMNS[:3]),
        Factor("scale", scales, "relative size", kind="ordinal"),
        Factor("shape", tuple(FactorClass(name) for name in SHAPES)),
        Factor("orientation", angles, "degree", kind="ordinal"),
    )
