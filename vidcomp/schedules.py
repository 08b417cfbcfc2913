"""Schedules, each written once and read by training and sampling alike.

`level` runs from 0 (all masked, pure noise) to 1 (clean) in every objective.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MaskKind = Literal["cosine", "arccos", "linear", "square"]


@dataclass(frozen=True)
class MaskSchedule:
    """How many positions are masked at a level (arXiv:2202.04200, section 3.3)."""

    kind: MaskKind = "cosine"

    def share(self, level: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The masked share: exactly 1 at level 0 and 0 at level 1, falling in between."""
        match self.kind:
            case "cosine":
                return torch.cos(level * (math.pi / 2)).clamp_min(0)
            case "arccos":
                return torch.arccos(level) / (math.pi / 2)
            case "linear":
                return 1 - level
            case "square":
                return 1 - level.square()


class PathPoint(NamedTuple):
    """x = alpha * data + sigma * noise at one level, and how both coefficients change with the
    level.
    """

    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]
    d_alpha: Float[Tensor, "..."]
    d_sigma: Float[Tensor, "..."]

    def velocity(self, data: Tensor, noise: Tensor) -> Tensor:
        """dx / dlevel along the path between `data` and `noise`."""
        return self.d_alpha * data + self.d_sigma * noise

    def data(self, x: Tensor, velocity: Tensor) -> Tensor:
        """The data that `x` and its velocity point at: solves the two linear equations."""
        return (self.d_sigma * x - self.sigma * velocity) / (
            self.d_sigma * self.alpha - self.sigma * self.d_alpha
        )

    def noise(self, x: Tensor, data: Tensor) -> Tensor:
        """The noise that, mixed with `data`, gives `x`. Not defined where sigma = 0."""
        return (x - self.alpha * data) / self.sigma


@dataclass(frozen=True)
class RectifiedPath:
    """The straight path of rectified flow: alpha = level, sigma = 1 - level (arXiv:2209.03003)."""

    def at(self, level: Float[Tensor, "..."]) -> PathPoint:
        one = torch.ones_like(level)
        return PathPoint(level, 1 - level, one, -one)


Schedule = MaskSchedule | RectifiedPath


def warmup_cosine(step: int, *, num_steps: int, warmup_steps: int, floor: float = 0.05) -> float:
    """The learning rate's factor: linear warm-up, then a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
