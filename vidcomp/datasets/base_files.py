"""What datasets of files share: labels that were read before, and clips that are cut from files.

A reader is `Labelled` and says how frames are read, or a `FileDataset` of clips cut by
`vidcomp.media.clips`; its format is all that is left to it.
"""

import hashlib
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.datasets import base
from vidcomp.datasets.base import Clips
from vidcomp.media.clips import ClipFiles
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.factors import Factors
from vidcomp.world.locations import Locations


class Labelled(base.Dataset, ABC):
    """Clips whose classes and values were read before; `values`: by default the prototypes."""

    def __init__(
        self,
        factors: Factors,
        classes: Int64[Tensor, "n f"],
        values: Float[Tensor, "n f v"] | None = None,
    ) -> None:
        self.factors = factors
        self._classes = classes
        self._values = factors.prototypes(classes) if values is None else values

    @abstractmethod
    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Frames:
        """The pixels of clips that exist, cropped at random by `rng` if `is_random`."""

    @abstractmethod
    def content(self) -> str:
        """What the frames depend on, as far as it is quickly told, and how they are read."""

    def locations(self, indices: Int64[Tensor, " b"]) -> Locations | None:
        """Where the objects are, if a generator can be told; as a rule that is not known."""
        return None

    def __len__(self) -> int:
        return len(self._classes)

    def classes(self) -> Int64[Tensor, "n f"]:
        return self._classes

    def values(self) -> Float[Tensor, "n f v"]:
        return self._values

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        return self._labelled(indices, None)

    def draw(self, indices: Int64[Tensor, " b"], rng: Rng) -> Clips:
        return self._labelled(indices, rng if self.is_random else None)

    def _labelled(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Clips:
        self.check_indices(indices)
        frames, locations = self.frames(indices, rng), self.locations(indices)
        return Clips(frames, self._classes[indices], self._values[indices], locations)

    @property
    def fingerprint(self) -> str:
        """Of the pixels and the labels."""
        seen = hashlib.sha256(str([self.content(), self.factors.to_json()]).encode())
        for labels in (self._classes, self._values):
            seen.update(labels.numpy().tobytes())
        return seen.hexdigest()[:12]


class FileDataset(Labelled, ABC):
    """Clips that are cut from files: all of them, or those of the given `rows`."""

    def __init__(
        self,
        files: ClipFiles,
        factors: Factors,
        classes: Int64[Tensor, "n f"],
        values: Float[Tensor, "n f v"] | None = None,
        *,
        rows: Int64[Tensor, " n"] | None = None,
    ) -> None:
        super().__init__(factors, classes, values)
        self.files = files
        self.rows = torch.arange(len(files)) if rows is None else rows
        self.num_frames, self.fps = files.num_frames, files.fps
        self.height, self.width = files.height, files.width
        self.is_random = files.reading.crop == "random"

    def frames(self, indices: Int64[Tensor, " b"], rng: Rng | None) -> Frames:
        return self.files.frames(self.rows[indices], rng)

    def groups(self) -> Int64[Tensor, " n"]:
        """By content: who else reads a file, under another name or number, has the same group."""
        return self.files.content_ids[self.rows]

    def content(self) -> str:
        return str([self.files.fingerprint_parts, self.rows.tolist()])

    @property
    def decoders(self) -> dict[str, int]:
        return self.files.decoders
