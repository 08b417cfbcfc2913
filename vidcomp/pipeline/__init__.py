"""The whole data flow: condition to latents to video, and video to latents and back.

    pipeline = vidcomp.load("runs/demo/flow-s0")
    video = pipeline.generate({"shape": "circle", "colour": "red", "motion": "right"}, seed=0)

A pipeline needs only run folders: a generator's, and the tokenizer's that it was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.pipeline.sampling import blank, changed_settings, pasted, roll_out, sample_clips
from vidcomp.runs import (
    Run,
    TokenizerRun,
    load_generator,
    load_run,
    load_tokenizer,
    newest_checkpoint,
    noted_tokenizer,
    read_environment,
    refuse_changed_tokenizer,
    require_run,
)
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Grid, Video
from vidcomp.world.factors import Factors
from vidcomp.world.locations import Locations
from vidcomp.world.splits import Split

__all__ = [
    "ClipFormat",
    "Pipeline",
    "blank",
    "default_device",
    "pasted",
    "reconstruct",
    "roll_out",
    "sample_clips",
]

Named = Mapping[str, str]


@dataclass(frozen=True)
class ClipFormat:
    """What a run's clips are: their size, rate and factors."""

    num_frames: int
    height: int
    width: int
    fps: float
    factors: Factors

    @property
    def size(self) -> Grid:
        return Grid(self.num_frames, self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        return {
            "num_frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "fps": self.fps,
            "factors": self.factors.to_json(),
        }

    @classmethod
    def of(cls, dataset: Dataset) -> "ClipFormat":
        return cls(dataset.num_frames, dataset.height, dataset.width, dataset.fps, dataset.factors)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ClipFormat":
        numbers = {name: content[name] for name in ("num_frames", "height", "width", "fps")}
        return cls(**numbers, factors=Factors.from_json(content["factors"]))


@dataclass(frozen=True)
class Pipeline:
    """A trained tokenizer and, unless the run is a tokenizer's own, a generator of its latents."""

    run: Run
    format: ClipFormat
    split: Split
    tokenizer: Tokenizer
    generator: Generator | None

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> "Pipeline":
        """The newest EMA weights in a run folder. Raises UserError if something is missing or does
        not match."""
        folder = Path(folder)
        require_run(folder)
        newest_checkpoint(folder)
        run, _ = load_run(folder / "config.yaml")
        known = read_environment(folder)
        clip_format = ClipFormat.from_json(known["clips"])
        split = run.data.split.build(clip_format.factors)
        if isinstance(run, TokenizerRun):
            tokenizer, generator = load_tokenizer(folder), None
        else:
            tokenizer_folder = noted_tokenizer(known["tokenizer"], folder)
            tokenizer = load_tokenizer(tokenizer_folder)
            refuse_changed_tokenizer(run, tokenizer_folder, known["tokenizer"]["digest"])
            generator = load_generator(run, folder, tokenizer.spec, clip_format.factors)
            generator.to(default_device(device))
        tokenizer.to(default_device(device))
        return cls(run, clip_format, split, tokenizer, generator)

    def reconstruct(self, video: Video) -> Video:
        """`video` through the tokenizer and back."""
        return reconstruct(self.tokenizer, video)

    @torch.no_grad()
    def generate(
        self,
        condition: Named | Sequence[Named] | Condition,
        *,
        seed: int = 0,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        num_steps: int | None = None,
        num_frames: int | None = None,
        prefix: Float[Tensor, "b 3 p h w"] | None = None,
    ) -> Video:
        """One clip for each condition, in [-1, 1]. Settings that are not given are the run's own.

        A condition is a mapping of every factor to a class name, several of them, or a `Condition`.
        `num_frames`: longer clips than those of training are made chunk by chunk (`roll_out`).
        `prefix`: first frames to continue, ``b 3 t' h w`` with t' a legal length of the tokenizer.
        """
        if self.generator is None or isinstance(self.run, TokenizerRun):
            raise UserError(
                f"run {self.run.name!r} is a tokenizer's; it can reconstruct, not generate"
            )
        if not isinstance(condition, Condition):
            named = [condition] if isinstance(condition, Mapping) else condition
            condition = self.condition(self.format.factors.parse(named))
        changed = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "num_frames": num_frames,
        }
        return roll_out(
            self.generator,
            self.tokenizer,
            condition,
            self.format.size,
            changed_settings(self.run.sampling, changed),
            Rng.make(seed, "sample", torch.arange(len(condition.classes))),
            num_steps=num_steps,
            prefix=prefix,
        )

    def condition(
        self, classes: Int64[Tensor, "b f"], locations: Locations | None = None
    ) -> Condition:
        """The condition that asks for the prototypes of `classes`, with objects at `locations`."""
        return Condition.of(classes, self.format.factors.prototypes(classes), locations)


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, video: Video) -> Video:
    """`video` through `tokenizer` and back, on the CPU."""
    device = tokenizer.latent_mean.device
    chunks = [tokenizer.decode(tokenizer.encode(part.to(device))) for part in video.split(64)]
    return torch.cat(chunks).cpu()


def default_device(device: str | None) -> str:
    """`device`, or CUDA where it is there."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
