"""The contract of the family `datasets`: clips by index, their factors, and the truth beside the
pixels.

A variant is one file with a `Config` whose `build` gives a `Dataset`. Reading is by batch: a
renderer is fast only in batches, and a file reader loops. What renderers share is in `base_drawn`,
what readers of files share in `base_files`.

`DataConfig` says what a run trains on: a dataset, how it is split, and what to render if its folder
has no dataset yet (`vidcomp.storage`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor

from vidcomp.config import Family, RootSettings, Settings, Variant
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.factors import Factors
from vidcomp.world.locations import Locations
from vidcomp.world.splits import Split, SplitConfig
from vidcomp.world.truth import Truth

DATASETS = Family("vidcomp.datasets")


@dataclass(frozen=True)
class Clips:
    """A batch of clips. `classes` are class ids; `values` the continuous values, padded with 0.
    `locations` are there if a generator can be told where objects are."""

    frames: Frames
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    locations: Locations | None = None


class Portion(NamedTuple):
    """Clips of one length, from which training draws in proportion to `weight`."""

    rows: Int64[Tensor, " n"]
    weight: float
    num_frames: int


class Config(Variant, ABC):
    """Settings of a dataset."""

    @abstractmethod
    def build(self) -> "Dataset": ...


class Dataset(ABC):
    """Clips by index. Clip `i` is always the same, whatever the batch it is asked in."""

    factors: Factors
    num_frames: int
    height: int
    width: int
    fps: float

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def classes(self) -> Int64[Tensor, "n f"]:
        """Class ids of every clip, without decoding or rendering any."""

    @abstractmethod
    def values(self) -> Float[Tensor, "n f v"]:
        """The continuous values of every clip, padded with 0; as cheap as `classes`."""

    @abstractmethod
    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        """The clips with these indices, on the CPU."""

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth | None:
        """What is true of these clips, if it is known. Apart from `clips`: no training needs it."""
        self.check_indices(indices)
        return None

    def clips_and_truth(self, indices: Int64[Tensor, " b"]) -> tuple[Clips, Truth | None]:
        """Both at once: what draws its clips need not draw them twice."""
        return self.clips(indices), self.truth(indices)

    def at_prototypes(self) -> "Dataset | None":
        """The same clips, but with the prototype of each class as its value; None if they cannot be
        drawn, or have it already."""
        return None

    is_random = False
    """Whether `draw` gives other clips than `clips`, as random crops do: forbids caching."""

    def draw(self, indices: Int64[Tensor, " b"], rng: Rng) -> Clips:
        """The clips as training sees them, with the random crops of `rng` if there are any."""
        return self.clips(indices)

    def groups(self) -> Int64[Tensor, " n"]:
        """An id for each clip, shared by clips that are cut from one file: those overlap, so what
        is kept for scoring is chosen by group."""
        return torch.arange(len(self))

    def portions(self) -> tuple[Portion, ...]:
        """What training draws from: all clips alike, except in a mixture. There `num_frames` is the
        longest length, and one call of `clips` asks for clips of one length."""
        return (Portion(torch.arange(len(self)), 1.0, self.num_frames),)

    def longest(self) -> Int64[Tensor, " n"]:
        """The clips of `num_frames` frames: what is measured, scored or sampled is of one
        length."""
        rows = [part.rows for part in self.portions() if part.num_frames == self.num_frames]
        return torch.cat(rows).sort().values

    @property
    def decoders(self) -> dict[str, int]:
        """How many clips are read by which video decoder; recorded by every run."""
        return {}

    def check_indices(self, indices: Int64[Tensor, " b"]) -> None:
        """Raise IndexError unless all `indices` are in [0, len)."""
        if len(indices) and not 0 <= int(indices.amin()) <= int(indices.amax()) < len(self):
            raise IndexError(f"clips are numbered 0 to {len(self) - 1}, got {indices.tolist()}")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the content does; recorded by every run."""


class DataConfig(Settings):
    """What a run sees. `render`: what to store in the folder of `dataset` if it is empty."""

    dataset: Annotated[SerializeAsAny[Config], BeforeValidator(DATASETS.config)]
    split: SplitConfig
    render: Annotated[SerializeAsAny[Config] | None, BeforeValidator(DATASETS.config)] = None

    @model_validator(mode="after")
    def _render_has_a_place(self) -> "DataConfig":
        if self.render is not None and self.dataset.name != "folder":
            raise ValueError(
                f"render: what is rendered is read by dataset 'folder', not {self.dataset.name!r}; "
                "drop render, or set dataset: {name: folder, path: DIR}"
            )
        return self

    @property
    def folder(self) -> Path | None:
        """Where the clips lie, None for a dataset that is drawn."""
        path = getattr(self.dataset, "path", None)
        return path if isinstance(path, Path) else None

    @property
    def drawn(self) -> Config | None:
        """What can be stored: `render`, or the dataset itself if it lies in no folder."""
        return self.dataset if self.folder is None else self.render


class DataRoot(RootSettings):
    """The root of the YAMLs in ``configs/data``. `out` overrides the folder of the dataset,
    `workers` the number of processes that render it."""

    data: DataConfig
    out: Path | None = None
    workers: int | None = Field(default=None, ge=1)


class Data(NamedTuple):
    dataset: Dataset
    split: Split


def build(config: DataConfig) -> Data:
    """The dataset and its split, from what is there: `vidcomp.storage.prepare`
    renders what is not."""
    dataset = config.dataset.build()
    return Data(dataset, config.split.build(dataset.factors))
