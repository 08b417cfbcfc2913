"""Unmasking: reveal positions in a few parallel steps (arXiv:2202.04200, section 3.2).

The objective says what each hidden position should hold; this file only chooses which come next:

- ``confidence``: the surest first, with Gumbel noise that fades as the clip fills (MaskGIT);
- ``random``: a random order, drawn once;
- ``halton``: a low-discrepancy order in time and space, bases 2, 3, 5 (arXiv:2503.17076 has it in 2-D),
  so that positions revealed together are far apart, and nearly independent given the rest.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.samplers import base
from vidcomp.schedules import MaskSchedule, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, Prediction, State


class Config(base.Config):
    """`choice_temperature` scales the Gumbel noise of the confidence order."""

    num_steps: PositiveInt = 12
    order: Literal["confidence", "random", "halton"] = "confidence"
    choice_temperature: float = 2.0

    def build(self, schedule: Schedule) -> "Unmask":
        if not isinstance(schedule, MaskSchedule):
            raise UserError(
                "sampler unmask needs a masked objective (maskgit); for a continuous path use euler or heun"
            )
        return Unmask(self, schedule)


class Unmask:
    """See the module's text."""

    def __init__(self, config: Config, schedule: MaskSchedule) -> None:
        self.config = config
        self.schedule = schedule

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state = start
        num_free = (~start.known).flatten(1).sum(1)
        for step in range(self.config.num_steps):
            level = torch.full_like(start.level, (step + 1) / self.config.num_steps)
            prediction = denoise(state, rng.fold(f"step {step}"))
            stay_hidden = (self.schedule.share(level) * num_free).floor().long()
            if step + 1 == self.config.num_steps:
                stay_hidden = torch.zeros_like(stay_hidden)
            priority = self._priority(prediction, level, state, rng.fold(f"order {step}"), rng)
            chosen = reveal(priority, state.known, stay_hidden)
            state = State(_written(state.latents, prediction, chosen), state.known | chosen, level)
            yield state

    def _priority(
        self, prediction: Prediction, level: Tensor, state: State, step_rng: Rng, rng: Rng
    ) -> Float[Tensor, "b T H W"]:
        shape = state.known.shape[1:]
        if self.config.order == "halton":
            ranks = halton_ranks(state.latents.grid).to(level.device)
            return -ranks.float().expand(state.known.shape)
        if self.config.order == "random":
            return rng.fold("random order").uniform(*shape)
        if prediction.confidence is None:
            raise UserError(
                "order=confidence needs an objective that knows its confidence; legal here: random, halton"
            )
        noise = step_rng.gumbel(*shape)
        fading = self.config.choice_temperature * (1 - level)
        return prediction.confidence + fading[:, None, None, None] * noise


def reveal(
    priority: Float[Tensor, "b T H W"], known: Bool[Tensor, "b T H W"], stay_hidden: Tensor
) -> Bool[Tensor, "b T H W"]:
    """The hidden positions of highest priority, so many that `stay_hidden` remain; at least one while any is hidden."""
    hidden = ~known.flatten(1)  # b n
    num_hidden = hidden.sum(1)
    count = torch.maximum(num_hidden - stay_hidden, num_hidden.clamp_max(1))
    scores = priority.flatten(1).masked_fill(~hidden, -torch.inf)
    rank = scores.argsort(1, descending=True).argsort(1)
    return ((rank < count[:, None]) & hidden).reshape(known.shape)


def halton_ranks(grid: Grid) -> Tensor:
    """When each position of the grid is reached by the Halton sequence in bases (2, 3, 5); T H W."""
    ranks = torch.full((grid.size,), -1, dtype=torch.int64)
    reached, index = 0, 0
    while reached < grid.size:
        index += 1
        t, h, w = (
            int(_radical_inverse(index, prime) * size) for prime, size in zip((2, 3, 5), grid, strict=True)
        )
        cell = (t * grid.h + h) * grid.w + w
        if ranks[cell] < 0:
            ranks[cell] = reached
            reached += 1
    return ranks.reshape(grid)


def _radical_inverse(index: int, prime: int) -> float:
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, prime)
        scale /= prime
        value += digit * scale
    return value


def _written(latents: Latents, prediction: Prediction, chosen: Bool[Tensor, "b T H W"]) -> Latents:
    values, codes = latents.values, latents.codes
    if prediction.values is not None:
        values = torch.where(chosen[..., None], prediction.values, values)
    if prediction.codes is not None:
        assert codes is not None
        codes = torch.where(chosen[..., None], prediction.codes, codes)
    return Latents(values, codes)
