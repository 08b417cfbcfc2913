"""The whole data flow in one file: condition to latents to video, and video to latents and back.

    pipeline = vidcomp.load("runs/demo/flow-s0")
    video = pipeline.generate({"shape": "circle", "colour": "red", "motion": "right"}, seed=0)

A pipeline needs only run folders: a generator's, and the tokenizer's that it was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import Settings, UserError, explain
from vidcomp.datasets.base import Dataset
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, Guidance
from vidcomp.runs import (
    Run,
    SamplingConfig,
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
from vidcomp.samplers import base as samplers
from vidcomp.samplers import euler, unmask
from vidcomp.schedules import MaskSchedule, Schedule
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Grid, Latents, LatentSpec, Video, check_video
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split

Named = Mapping[str, str]
Chosen = TypeVar("Chosen", bound=Settings)


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
        prefix: Float[Tensor, "b 3 p h w"] | None = None,
    ) -> Video:
        """One clip for each condition, in [-1, 1]. Settings that are not given are the run's own.

        A condition is a mapping of every factor to a class name, several of them, or a `Condition`.
        `prefix`: first frames to continue, ``b 3 t' h w`` with t' a legal length of the tokenizer.
        """
        if self.generator is None or isinstance(self.run, TokenizerRun):
            raise UserError(
                f"run {self.run.name!r} is a tokenizer's; it can reconstruct, not generate"
            )
        if not isinstance(condition, Condition):
            named = [condition] if isinstance(condition, Mapping) else condition
            condition = self.condition(self.format.factors.parse(named))
        changed = {"guidance_scale": guidance_scale, "temperature": temperature}
        return sample_clips(
            self.generator,
            self.tokenizer,
            condition,
            self.format.size,
            changed_settings(self.run.sampling, changed),
            Rng.make(seed, "sample", torch.arange(len(condition.classes))),
            num_steps=num_steps,
            prefix=prefix,
        )

    def condition(self, classes: Int64[Tensor, "b f"]) -> Condition:
        """The condition that asks for the prototypes of `classes`."""
        return Condition.of(classes, self.format.factors.prototypes(classes))


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, video: Video) -> Video:
    """`video` through `tokenizer` and back, on the CPU."""
    device = tokenizer.latent_mean.device
    chunks = [tokenizer.decode(tokenizer.encode(part.to(device))) for part in video.split(64)]
    return torch.cat(chunks).cpu()


@torch.no_grad()
def sample_clips(
    generator: Generator,
    tokenizer: Tokenizer,
    condition: Condition,
    size: Grid,
    sampling: SamplingConfig,
    rng: Rng,
    *,
    num_steps: int | None = None,
    prefix: Float[Tensor, "b 3 p h w"] | None = None,
    progress: str = "",
) -> Video:
    """Clips on the CPU, made in batches of ``sampling.batch_size``; clip i draws from ``rng[i]``.

    `progress` is the label of a progress bar over batches; none is shown without it.
    """
    if prefix is not None and len(prefix) != len(rng):
        raise UserError(f"{len(rng)} conditions need as many prefixes, got {len(prefix)}")
    device = tokenizer.latent_mean.device
    schedule = generator.objective.schedule
    config = sampling.sampler or default_sampler(schedule)
    sampler = changed_settings(config, {"num_steps": num_steps}).build(schedule)
    grid = tokenizer.spec.grid(*size)
    videos: list[Video] = []
    batches = torch.arange(len(rng)).split(sampling.batch_size)
    for rows in tqdm(batches, desc=progress, unit="batch", disable=None if progress else True):
        part = condition[rows].to(device)
        draws = Rng(rng.keys[rows].to(device))
        known, given_frames = blank(tokenizer.spec, grid, len(rows), device), 0
        if prefix is not None:
            encoded = tokenizer.encode(prefix[rows].to(device))
            known, given_frames = pasted(known, encoded), encoded.grid.t
        part = part.given_frames(given_frames)
        start = generator.objective.start(known, part.given_positions(grid), draws.fold("start"))
        denoise = generator.denoiser(
            Guidance.scaled(part, sampling.guidance_scale), temperature=sampling.temperature
        )
        *_, last = sampler(denoise, start, draws.fold("steps"))
        latents = last.latents
        if latents.codes is not None:
            latents = tokenizer.lookup(latents.codes)
        videos.append(tokenizer.decode(latents).cpu())
    video = torch.cat(videos)
    check_video(video)
    return video


def default_sampler(schedule: Schedule) -> samplers.Config:
    """The sampler for an objective whose run names none."""
    return unmask.Config() if isinstance(schedule, MaskSchedule) else euler.Config()


def changed_settings(settings: Chosen, changed: Mapping[str, Any]) -> Chosen:
    """`settings` with those of `changed` that are not None, checked as a YAML's are."""
    given = {key: value for key, value in changed.items() if value is not None}
    kept = {name: getattr(settings, name) for name in type(settings).model_fields}
    try:
        return type(settings).model_validate({**kept, **given})
    except ValidationError as error:
        raise UserError(f"sampling: {explain(error)}") from None


def blank(spec: LatentSpec, grid: Grid, num_clips: int, device: torch.device) -> Latents:
    """Latents of which nothing is known yet."""
    values = torch.zeros(num_clips, *grid, spec.channels, device=device)
    codes = None
    if spec.codebook_sizes is not None:
        codes = torch.zeros(
            num_clips, *grid, len(spec.codebook_sizes), dtype=torch.int64, device=device
        )
    return Latents(values, codes)


def pasted(onto: Latents, prefix: Latents) -> Latents:
    """`onto` with its first frames replaced. Raises UserError if nothing is left to generate."""
    t = prefix.grid.t
    if t >= onto.grid.t or prefix.grid[1:] != onto.grid[1:]:
        raise UserError(
            f"a prefix of {tuple(prefix.grid)} latents (frames, height, width) must have the "
            f"height and width of the clip's {tuple(onto.grid)}, and fewer frames"
        )
    values = torch.cat([prefix.values, onto.values[:, t:]], dim=1)
    codes = None
    if onto.codes is not None and prefix.codes is not None:
        codes = torch.cat([prefix.codes, onto.codes[:, t:]], dim=1)
    return Latents(values, codes)


def default_device(device: str | None) -> str:
    """`device`, or CUDA where it is there."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
