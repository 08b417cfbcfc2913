"""From conditions to clips: one batch, and longer than a clip."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import Settings, UserError, explain
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.models.guidance import Guidance
from vidcomp.runs import SamplingConfig
from vidcomp.samplers import base as samplers
from vidcomp.samplers import euler, unmask
from vidcomp.schedules import MaskSchedule, Schedule
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Grid, Latents, LatentSpec, Prediction, State, Video, check_video

Chosen = TypeVar("Chosen", bound=Settings)
Watch = Callable[[State, Prediction], None]


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
    watch: Watch | None = None,
) -> Video:
    """Clips on the CPU, made in batches of ``sampling.batch_size``; clip i draws from ``rng[i]``.

    `progress` is the label of a progress bar over batches; none is shown without it. `watch` sees
    every prediction.
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
            Guidance.of(sampling, part, generator.factors), temperature=sampling.temperature
        )
        shown = denoise if watch is None else _watched(denoise, watch)
        *_, last = sampler(shown, start, draws.fold("steps"))
        latents = last.latents
        if latents.codes is not None:
            latents = tokenizer.lookup(latents.codes)
        videos.append(tokenizer.decode(latents).cpu())
    video = torch.cat(videos)
    check_video(video)
    return video


def _watched(denoise: samplers.Denoise, watch: Watch) -> samplers.Denoise:
    def watched(state: State, rng: Rng) -> Prediction:
        prediction = denoise(state, rng)
        watch(state, prediction)
        return prediction

    return watched


def roll_out(
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
    watch: Watch | None = None,
) -> Video:
    """Clips of ``sampling.num_frames``: where those are more than `size` has, each chunk goes on
    from the last frames of the one before, as pixels, which is all that a world model has. It is
    told of the places in its own frames.

    Raises UserError if the generator was not trained to continue clips.
    """
    num_frames, overlap = sampling.num_frames or size.t, overlap_frames(sampling, tokenizer, size)
    if num_frames > size.t and generator.config.conditioning.prefix == 0:
        raise UserError(
            f"num_frames={num_frames}: this generator was trained on clips of {size.t} frames and "
            "never to continue one; train it with generator.conditioning.prefix=0.5"
        )
    fixed = {"size": size, "sampling": sampling, "num_steps": num_steps, "watch": watch}
    sample = functools.partial(sample_clips, generator, tokenizer, **fixed)
    asked = condition if num_frames <= size.t else _places(condition, 0, size.t, of=num_frames)
    video = sample(asked, rng=rng, prefix=prefix, progress=progress)
    while (made := video.shape[2]) < num_frames:
        label = progress and f"{progress}, frame {made} of {num_frames}"
        last = video[:, :, -overlap:]
        asked = _places(condition, made - overlap, size.t, of=num_frames)
        draws = rng.fold(f"from frame {made}")
        chunk = sample(asked, rng=draws, prefix=last, progress=label)
        video = torch.cat([video, chunk[:, :, overlap:]], dim=2)
    return video[:, :, :num_frames]


def _places(condition: Condition, start: int, count: int, *, of: int) -> Condition:
    """`condition` for a chunk of a longer clip. Raises UserError if the places, where there are
    any, are not known to its end."""
    if condition.locations is None:
        return condition
    known = condition.locations.points.shape[1]
    if known < of:
        raise UserError(
            f"num_frames={of}: the places of objects are known in {known} frames; give them in "
            f"{of}, or ask for {known}"
        )
    return replace(condition, locations=condition.locations.frames(start, count))


def overlap_frames(sampling: SamplingConfig, tokenizer: Tokenizer, size: Grid) -> int:
    """How many frames a chunk shares with the one before: a legal length, shorter than a chunk."""
    stride = tokenizer.spec.strides.t
    legal = range(1, size.t, stride)
    asked = sampling.overlap_frames
    if asked is None:
        return 1 + (size.t // 2 - 1) // stride * stride if size.t > 2 else 1
    if asked not in legal:
        raise UserError(
            f"overlap_frames={asked} does not fit clips of {size.t} frames; legal: "
            f"{', '.join(map(str, legal)) or 'none, a still cannot be continued'}"
        )
    return asked


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
