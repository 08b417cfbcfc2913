"""The whole data flow in one file: condition to latents to video, and video to latents and back.

    pipeline = vidcomp.load("runs/demo/flow-s0")
    video = pipeline.generate({"shape": "circle", "colour": "red", "motion": "right"}, seed=0)

A pipeline needs only run folders: a generator's, and the tokenizer's that it was trained on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, Guidance
from vidcomp.runs import (
    GeneratorRun,
    Run,
    SamplingConfig,
    TokenizerRun,
    load_run,
    newest_checkpoint,
    weights_digest,
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
        return cls(**{**content, "factors": Factors.from_json(content["factors"])})


@dataclass(frozen=True)
class Pipeline:
    """A trained tokenizer and, unless the run is a tokenizer's own, a generator over its latents."""

    run: Run
    format: ClipFormat
    split: Split
    tokenizer: Tokenizer
    generator: Generator | None

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> "Pipeline":
        """The newest EMA weights in a run folder. Raises UserError if something is missing or does not match."""
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not a run folder (no config.yaml); train one with tools/train.py")
        run, _ = load_run(folder / "config.yaml")
        newest_checkpoint(folder)
        known = json.loads((folder / "environment.json").read_text())
        clip_format = ClipFormat.from_json(known["clips"])
        split = run.data.split.build(clip_format.factors)
        if isinstance(run, TokenizerRun):
            tokenizer, generator = load_tokenizer(folder), None
        else:
            tokenizer = load_tokenizer(Path(known["tokenizer"]["folder"]))
            refuse_changed_tokenizer(run, Path(known["tokenizer"]["folder"]), known["tokenizer"]["digest"])
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
        prefix: Video | None = None,
    ) -> Video:
        """One clip for each condition, in [-1, 1]. What is not given is as the run's `sampling` says.

        A condition is a mapping of every factor to a class name, several of them, or a `Condition`.
        `prefix`: first frames to continue, ``b 3 t' h w`` with t' a legal length of the tokenizer.
        """
        if self.generator is None or isinstance(self.run, TokenizerRun):
            raise UserError(f"run {self.run.name!r} is a tokenizer's; it can reconstruct, not generate")
        if not isinstance(condition, Condition):
            named = [condition] if isinstance(condition, Mapping) else condition
            condition = self.condition(self.format.factors.parse(named))
        changed = {"guidance_scale": guidance_scale, "temperature": temperature}
        sampling = self.run.sampling.model_copy(update={k: v for k, v in changed.items() if v is not None})
        index = torch.arange(len(condition.classes))
        return sample_clips(
            self.generator,
            self.tokenizer,
            condition,
            self.format.size,
            sampling,
            Rng.make(seed, "sample", index),
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
    prefix: Video | None = None,
    progress: str = "",
) -> Video:
    """Clips on the CPU, sampled in batches of ``sampling.batch_size``; the draws of clip i are ``rng[i]``'s.

    `progress` is the label of a progress bar over batches; none is shown without it.
    """
    device = tokenizer.latent_mean.device
    schedule = generator.objective.schedule
    config = sampling.sampler or default_sampler(schedule)
    sampler = (config if num_steps is None else config.model_copy(update={"num_steps": num_steps})).build(schedule)
    grid = tokenizer.spec.grid(*size)
    videos: list[Video] = []
    batches = torch.arange(len(rng)).split(sampling.batch_size)
    for rows in tqdm(batches, desc=progress, unit="batch", disable=not progress):
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
        state = start
        for state in sampler(denoise, start, draws.fold("steps")):
            pass
        latents = state.latents
        if latents.codes is not None:
            latents = tokenizer.lookup(latents.codes)
        videos.append(tokenizer.decode(latents).cpu())
    video = torch.cat(videos)
    check_video(video)
    return video


def default_sampler(schedule: Schedule) -> samplers.Config:
    """The sampler for an objective whose run names none."""
    return unmask.Config() if isinstance(schedule, MaskSchedule) else euler.Config()


def blank(spec: LatentSpec, grid: Grid, num_clips: int, device: torch.device) -> Latents:
    """Latents of which nothing is known yet."""
    values = torch.zeros(num_clips, *grid, spec.channels, device=device)
    codes = None
    if spec.codebook_sizes is not None:
        codes = torch.zeros(num_clips, *grid, len(spec.codebook_sizes), dtype=torch.int64, device=device)
    return Latents(values, codes)


def pasted(onto: Latents, prefix: Latents) -> Latents:
    """`onto` with its first frames replaced. Raises UserError if the prefix leaves nothing to generate."""
    t = prefix.grid.t
    if t >= onto.grid.t or prefix.grid[1:] != onto.grid[1:]:
        raise UserError(
            f"a prefix of {tuple(prefix.grid)} latents (frames, height, width) must have the same height and "
            f"width as the clip's {tuple(onto.grid)}, and fewer frames"
        )
    values = torch.cat([prefix.values, onto.values[:, t:]], dim=1)
    codes = None
    if onto.codes is not None and prefix.codes is not None:
        codes = torch.cat([prefix.codes, onto.codes[:, t:]], dim=1)
    return Latents(values, codes)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run folder with its EMA weights, frozen. Raises UserError if there is none."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"no tokenizer in {folder} (no config.yaml there); train it again, or restore the folder")
    run, _ = load_run(folder / "config.yaml")
    if not isinstance(run, TokenizerRun):
        raise UserError(f"{folder} is the run of a generator, not of a tokenizer")
    tokenizer = run.tokenizer.build()
    tokenizer.load_state_dict(load_file(newest_checkpoint(folder) / "ema.safetensors"))
    return tokenizer.requires_grad_(False).eval()


def refuse_changed_tokenizer(run: GeneratorRun, folder: Path, digest: str) -> None:
    """Raise UserError if the tokenizer in `folder` is not the one that a generator was trained on."""
    if weights_digest(folder) != digest:
        raise UserError(
            f"the tokenizer in {folder} has weights {weights_digest(folder)}, but generator {run.name!r} was "
            f"trained on {digest}; restore those weights, or train the generator again in another folder"
        )


def load_generator(run: GeneratorRun, folder: Path, spec: LatentSpec, factors: Factors) -> Generator:
    """A generator with its EMA weights, frozen, and without its JEPA head: sampling has no use for it."""
    generator = run.generator.model_copy(update={"jepa": None}).build(spec, factors)
    weights = load_file(newest_checkpoint(folder) / "ema.safetensors")
    generator.load_state_dict({k: v for k, v in weights.items() if not k.startswith("jepa.")})
    return generator.requires_grad_(False).eval()


def default_device(device: str | None) -> str:
    """`device`, or CUDA where it is there."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
