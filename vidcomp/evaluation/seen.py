"""What a generator is shown while its locality is measured: clips noised or hidden as in training,
or the states of its own sampler; and the latents that it learned from, for a null model.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vidcomp.datasets.base import Dataset
from vidcomp.evaluation.clips import clip_rows, clips_at
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.models.guidance import Guidance
from vidcomp.objectives.base import Masked, Noised, Objective
from vidcomp.pipeline.sampling import blank, default_sampler
from vidcomp.probes.base_locality import Seen
from vidcomp.probes.base_nulls import MOST_CLIPS
from vidcomp.runs import SamplingConfig
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Grid, Latents, State
from vidcomp.world.splits import Split

_CLIPS_AT_A_TIME = 64
_ROUNDING = 1e-6  # of levels


def state_at(objective: Objective, clean: Latents, level: float, rng: Rng) -> State:
    """`clean` with each position hidden with the probability that the schedule has at `level`, or
    noised up to `level`."""
    levels = clean.values.new_full((len(clean),), level)
    if isinstance(objective, Masked):
        shown = rng.fold("shown").uniform(*clean.grid)
        visible = shown >= objective.masking.share(levels)[:, None, None, None]
        return replace(objective.start(clean, visible, rng), level=levels)
    assert isinstance(objective, Noised)
    nothing = torch.zeros(clean.values.shape[:-1], dtype=torch.bool, device=levels.device)
    noise = objective.start(clean, nothing, rng).latents.values
    mixed = objective.path.at(levels[:, None, None, None, None]).mix(clean.values, noise)
    return State(Latents(mixed), nothing, levels)


def as_in_training(objective: Objective, clean: Latents, levels: Sequence[float]) -> list[Seen]:
    """Clean latents at each of `levels`."""
    draws = Rng.make(0, "look", torch.arange(len(clean), device=clean.values.device))
    return [_seen(objective, clean, state_at(objective, clean, k, draws), draws) for k in levels]


def on_path(
    generator: Generator,
    tokenizer: Tokenizer,
    condition: Condition,
    grid: Grid,
    sampling: SamplingConfig,
    levels: Sequence[float],
) -> list[Seen]:
    """Where the sampler of `sampling`, without guidance, stands as it goes past each of `levels`:
    its last state that is not beyond, or its start."""
    objective, device = generator.objective, tokenizer.latent_mean.device
    config = sampling.sampler or default_sampler(objective.schedule)
    sampler = config.build(objective.schedule)
    unguided = Guidance(condition, ((condition, 1.0),))
    denoise = generator.denoiser(unguided, temperature=sampling.temperature)
    count = len(condition.classes)
    rng = Rng.make(sampling.seed, "path", torch.arange(count, device=device))
    nothing = blank(tokenizer.spec, grid, count, device)
    start = objective.start(nothing, condition.given_positions(grid), rng.fold("start"))
    end, passing = start, [start for _ in levels]
    for end in sampler(denoise, start, rng.fold("steps")):
        reached = float(end.level[0]) - _ROUNDING
        passing = [
            end if reached <= level else before
            for level, before in zip(levels, passing, strict=True)
        ]
    sample = end.latents
    clean = sample if sample.codes is None else tokenizer.lookup(sample.codes)
    return [_seen(objective, clean, state, rng) for state in passing]


def _seen(objective: Objective, clean: Latents, state: State, rng: Rng) -> Seen:
    before = torch.arange(len(clean), device=state.level.device).roll(1)
    if isinstance(objective, Noised):
        swapped = replace(state, latents=state.latents[before])
    else:
        others = objective.start(clean[before], state.known, rng)
        swapped = replace(others, level=state.level)
    return Seen(clean, state, swapped)


@torch.no_grad()
def training_latents(
    tokenizer: Tokenizer, dataset: Dataset, split: Split
) -> Float[Tensor, "n T H W d"]:
    """Of clips that a generator learns from, evenly over all: as many as `Wiener` takes."""
    rows = clip_rows(dataset, "training", seen_of=split)
    even = torch.linspace(0, len(rows) - 1, min(MOST_CLIPS, len(rows)))
    device = tokenizer.latent_mean.device
    parts = [
        tokenizer.encode(clips_at(dataset, part).video.to(device)).values
        for part in rows[even.round().long()].split(_CLIPS_AT_A_TIME)
    ]
    return torch.cat(parts)
