"""The contract of the family `datasets`: clips by index, their factors, and the truth beside the
pixels.

A variant is one file with a `Config` whose `build` gives a `Dataset`. Reading is by batch: a
renderer is fast only in batches, and a file reader loops.

Any dataset can be stored in a folder, as lossless mp4 with its truth, and `DataConfig` says what a
run trains on: a dataset, how it is split, and what to render if its folder has no dataset yet.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import BeforeValidator, SerializeAsAny, model_validator
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import Family, RootSettings, Settings, UserError, Variant
from vidcomp.media import write_video
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split, SplitConfig
from vidcomp.world.table import TABLE, Manifest, Table
from vidcomp.world.truth import Truth, truth_path, write_truth

DATASETS = Family("vidcomp.datasets")

STORE_BATCH = 64
"""Clips that are drawn at a time while a dataset is stored."""


@dataclass(frozen=True)
class Clips:
    """A batch of clips. `classes` are class ids; `values` the continuous values, padded with 0."""

    frames: Frames
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]


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
    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        """The clips with these indices, on the CPU."""

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth | None:
        """What is true of these clips, if it is known. Apart from `clips`: no training needs it."""
        self.check_indices(indices)
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
        if self.render is not None and self.folder is None:
            raise ValueError(
                f"render: dataset {self.dataset.name!r} is stored in no folder; "
                "drop render, or set dataset: {name: folder, path: DIR}"
            )
        return self

    @property
    def folder(self) -> Path | None:
        """Where the clips lie, None for a dataset that is drawn."""
        path = getattr(self.dataset, "path", None)
        return path if isinstance(path, Path) else None


class DataRoot(RootSettings):
    """The root of the YAMLs in ``configs/data``. `out` overrides the folder of the dataset."""

    data: DataConfig
    out: Path | None = None


class Data(NamedTuple):
    dataset: Dataset
    split: Split


def prepare(config: DataConfig) -> None:
    """Render what is missing. In a run of several processes, one calls this and the others wait."""
    if config.render is not None and config.folder is not None:
        store(config.render.build(), config.folder)


def build(config: DataConfig) -> Data:
    """The dataset and its split, from what is there: `prepare` renders what is not."""
    dataset = config.dataset.build()
    return Data(dataset, config.split.build(dataset.factors))


def store(dataset: Dataset, folder: Path) -> None:
    """Write every clip losslessly, with its truth beside it, and the table.

    Clip 12 is ``clips/000012.mp4`` and its truth file. Clips that are there already are kept, since
    the same index is the same clip: after an interruption, the same call goes on. A finished
    dataset is left alone, and another dataset in that folder is an error.
    """
    manifest = Manifest(
        num_clips=len(dataset),
        num_frames=dataset.num_frames,
        height=dataset.height,
        width=dataset.width,
        fps=dataset.fps,
        fingerprint=dataset.fingerprint,
        factors=dataset.factors,
    )
    found = Manifest.load(folder)
    if found is None and (folder / TABLE).exists():
        raise UserError(f"{folder} holds clips that were not rendered; choose another folder")
    if found is not None and found.fingerprint != manifest.fingerprint:
        raise UserError(
            f"{folder} holds another dataset: {found.num_clips} clips ({found.fingerprint}), not "
            f"{len(dataset)} ({manifest.fingerprint}); choose another folder, or remove that one"
        )
    if (folder / TABLE).exists():
        return
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    manifest.save(folder)
    paths = [f"clips/{i:06d}.mp4" for i in range(len(dataset))]
    values: list[Tensor] = []
    with tqdm(total=len(dataset), desc=f"render {folder}", unit="clip", disable=None) as progress:
        for indices in torch.arange(len(dataset)).split(STORE_BATCH):
            clips, truth = dataset.clips(indices), dataset.truth(indices)
            values.append(clips.values)
            for row, i in enumerate(indices.tolist()):
                _store_clip(clips.frames[row], truth, row, folder / paths[i], dataset.fps)
                progress.update()
    Table(dataset.factors, tuple(paths), dataset.classes(), torch.cat(values)).save(folder)


def _store_clip(
    frames: UInt8[Tensor, "t h w 3"], truth: Truth | None, row: int, path: Path, fps: float
) -> None:
    if path.exists():
        return
    if truth is not None:  # first, so that a clip that is there has its truth
        write_truth(truth_path(path), truth, row)
    write_video(path, frames, fps=fps)
