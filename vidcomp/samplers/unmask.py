"""Unmasking: reveal positions in a few parallel steps (arXiv:2202.04200, section 3.2).

The objective says what each hidden position should hold; this file only chooses which come next:

- ``confidence``: the surest first, with Gumbel noise that fades as the clip fills (MaskGIT);
- ``random``: a random order, drawn once;
- ``halton``: a low-discrepancy order in space and time, bases 2, 3, 5 (arXiv:2503.17076 has it in
  space), so that positions revealed together are far apart, and nearly independent given the rest.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.samplers import base
from vidcomp.schedules import MaskSchedule, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, Prediction, State

_BASES = (5, 2, 3)  # of time, height, width: on one frame this is the order of the paper


class Config(base.Config):
    """`order`: None takes the confidence of objectives that have one, a random order of others.

    `choice_temperature` scales the Gumbel noise of the confidence order.
    """

    num_steps: PositiveInt = 12
    order: Literal["confidence", "random", "halton"] | None = None
    choice_temperature: NonNegativeFloat = 2.0

    def build(self, schedule: Schedule) -> "Unmask":
        if not isinstance(schedule, MaskSchedule):
            raise UserError(
                f"sampler {self.name} needs a masked objective (maskgit, soft_maskgit, givt, mar); "
                "for a continuous path use euler, heun, ddim or ancestral"
            )
        return Unmask(self, schedule)


class Unmask:
    """See the module's text."""

    def __init__(self, config: Config, schedule: MaskSchedule) -> None:
        self.config = config
        self.schedule = schedule

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state, order = start, self.config.order
        num_free = (~start.known).flatten(1).sum(1)
        for step in range(self.config.num_steps):
            level = torch.full_like(start.level, (step + 1) / self.config.num_steps)
            # At level 1 the share is exactly 0, so the last step leaves nothing hidden.
            stay_hidden = (self.schedule.share(level) * num_free).floor().long()
            chosen = None
            if order in ("random", "halton"):
                chosen = reveal(_fixed(order, state, rng), state.known, stay_hidden)
            prediction = denoise(replace(state, wanted=chosen), rng.fold(f"step {step}"))
            if chosen is None:
                order = order or ("random" if prediction.confidence is None else "confidence")
                if order == "confidence":
                    priority = self._surest(prediction, level, rng.fold(f"order {step}"))
                else:
                    priority = _fixed(order, state, rng)
                chosen = reveal(priority, state.known, stay_hidden)
            state = State(_written(state.latents, prediction, chosen), state.known | chosen, level)
            yield state

    def _surest(
        self, prediction: Prediction, level: Float[Tensor, " b"], rng: Rng
    ) -> Float[Tensor, "b T H W"]:
        if prediction.confidence is None:
            raise UserError(
                "order=confidence needs an objective that knows its confidence; "
                "legal here: random, halton"
            )
        noise = rng.gumbel(*prediction.confidence.shape[1:])
        fading = self.config.choice_temperature * (1 - level)
        return prediction.confidence + fading[:, None, None, None] * noise


def _fixed(order: str, state: State, rng: Rng) -> Float[Tensor, "b T H W"]:
    """The priorities of an order that does not depend on what is predicted: the same at every
    step."""
    if order == "halton":
        ranks = halton_ranks(state.latents.grid).to(state.level.device)
        return -ranks.float().expand(state.known.shape)
    return rng.fold("random order").uniform(*state.known.shape[1:])


def reveal(
    priority: Float[Tensor, "b T H W"],
    known: Bool[Tensor, "b T H W"],
    stay_hidden: Int64[Tensor, " b"],
) -> Bool[Tensor, "b T H W"]:
    """The hidden positions of highest priority, so many that `stay_hidden` remain; at least one
    while any is hidden.
    """
    hidden = ~known.flatten(1)  # b n
    num_hidden = hidden.sum(1)
    count = torch.maximum(num_hidden - stay_hidden, num_hidden.clamp_max(1))
    # By rank, not by value: a hidden position may have priority -inf (a code of probability 0).
    by_priority = priority.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1)
    rank = by_priority.masked_fill(~hidden, hidden.shape[1]).argsort(1).argsort(1)
    return ((rank < count[:, None]) & hidden).reshape(known.shape)


@functools.lru_cache(maxsize=8)
def halton_ranks(grid: Grid) -> Int64[Tensor, "T H W"]:
    """When each position of the grid is first reached by the Halton sequence. It is remembered:
    never write to it.
    """
    num_points = grid.size
    while True:
        index = torch.arange(1, num_points + 1)
        t, h, w = (_cells(index, prime, size) for prime, size in zip(_BASES, grid, strict=True))
        cell = (t * grid.h + h) * grid.w + w
        first = torch.full((grid.size,), num_points + 1).scatter_reduce(0, cell, index, "amin")
        if (first <= num_points).all():
            return first.argsort().argsort().reshape(grid)
        num_points *= 2


def _cells(index: Int64[Tensor, " n"], prime: int, size: int) -> Int64[Tensor, " n"]:
    """Which of `size` cells the radical inverse of `index` in base `prime` falls into: its digits
    mirrored at the point, 110 becomes 0.011. In integers, because 1/3 must not be rounded.
    """
    mirrored, scale = torch.zeros_like(index), 1
    while (index > 0).any():
        mirrored = mirrored * prime + index % prime
        index, scale = index // prime, scale * prime
    return mirrored * size // scale


def _written(latents: Latents, prediction: Prediction, chosen: Bool[Tensor, "b T H W"]) -> Latents:
    values, codes = latents.values, latents.codes
    if prediction.values is not None:
        values = torch.where(chosen[..., None], prediction.values, values)
    if prediction.codes is not None:
        assert codes is not None
        codes = torch.where(chosen[..., None], prediction.codes, codes)
    return Latents(values, codes)
