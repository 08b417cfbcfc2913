"""Schedules, each written once and read by training and sampling alike.

`level` runs from 0 (all masked, pure noise) to 1 (clean) in every objective.
"""

import functools
import math
from abc import ABC, abstractmethod
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
    """x = alpha * data + sigma * noise at one level."""

    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]

    def mix(self, data: Tensor, noise: Tensor) -> Tensor:
        """The point of the path between `data` and `noise`."""
        return self.alpha * data + self.sigma * noise

    def noise(self, x: Tensor, data: Tensor) -> Tensor:
        """The noise that, mixed with `data`, gives `x`. Not defined where sigma = 0."""
        return (x - self.alpha * data) / self.sigma

    def data(self, x: Tensor, noise: Tensor) -> Tensor:
        """The data that, mixed with `noise`, give `x`; where alpha = 0 nothing is known of them,
        and 0 is the mean of latents."""
        known = self.alpha > 0
        return torch.where(known, (x - self.sigma * noise) / torch.where(known, self.alpha, 1), 0)

    def v(self, data: Tensor, noise: Tensor) -> Tensor:
        """alpha * noise - sigma * data (arXiv:2202.00512, appendix D)."""
        return self.alpha * noise - self.sigma * data

    def data_from_v(self, x: Tensor, v: Tensor) -> Tensor:
        """The data that `x` and v mean, where alpha^2 + sigma^2 = 1."""
        return self.alpha * x - self.sigma * v

    def renoised(
        self, other: "PathPoint", data: Tensor, implied: Tensor, fresh: Tensor, *, eta: float
    ) -> Tensor:
        """A draw at `other`, a cleaner point, given the data and the noise that it implies here.

        A share of the noise is replaced by a fresh one (arXiv:2010.02502, Eq. 12 and 16); with
        eta = 1 it is the posterior of the Markov chain whose marginals the path has
        (arXiv:2006.11239, Eq. 6 and 7).
        """
        between = (
            self.sigma.square() - (self.alpha / other.alpha * other.sigma).square()
        ).clamp_min(0)
        replaced = eta * between.sqrt() * other.sigma / self.sigma
        kept = (other.sigma.square() - replaced.square()).clamp_min(0).sqrt()
        return other.alpha * data + kept * implied + replaced * fresh


class NoisePath(ABC):
    """From noise (level 0) to data (level 1); sigma = 0 at level 1 and nowhere else."""

    @abstractmethod
    def at(self, level: Float[Tensor, "..."]) -> PathPoint: ...


@dataclass(frozen=True)
class RectifiedPath(NoisePath):
    """The straight path of rectified flow: alpha = level, sigma = 1 - level (arXiv:2209.03003)."""

    def at(self, level: Float[Tensor, "..."]) -> PathPoint:
        return PathPoint(level, 1 - level)


BetaKind = Literal["linear", "cosine"]


@dataclass(frozen=True)
class DiffusionPath(NoisePath):
    """DDPM's path of `num_timesteps` noisings, alpha^2 + sigma^2 = 1 (arXiv:2006.11239).

    Level 1 - t / num_timesteps is the timestep t, whose alpha^2 is the product of the first t
    factors 1 - beta; between timesteps alpha is interpolated. Betas are linear from 1e-4 to 0.02,
    or those of the cosine schedule (arXiv:2102.09672, Eq. 17).

    With few linear timesteps the path does not reach pure noise: alpha is 0.08 at its start for
    500. `zero_terminal_snr` shifts and scales alpha so that it does (arXiv:2305.08891, Alg. 1).
    """

    num_timesteps: int = 1000
    betas: BetaKind = "linear"
    zero_terminal_snr: bool = False

    @functools.cached_property
    def alphas(self) -> Float[Tensor, " n"]:
        """alpha at timesteps 0 (clean) to `num_timesteps`, in double precision."""
        t = torch.arange(self.num_timesteps + 1, dtype=torch.float64)
        if self.betas == "linear":
            betas = torch.linspace(1e-4, 0.02, self.num_timesteps, dtype=torch.float64)
        else:
            share = torch.cos((t / self.num_timesteps + 0.008) / 1.008 * math.pi / 2).square()
            betas = (1 - share[1:] / share[:-1]).clamp_max(0.999)
        alphas = (1 - betas).cumprod(0).sqrt()
        if self.zero_terminal_snr:
            first, last = alphas[0], alphas[-1]
            alphas = (alphas - last) * (first / (first - last))  # the last is 0 exactly
        return torch.cat([torch.ones(1, dtype=torch.float64), alphas])

    def at(self, level: Float[Tensor, "..."]) -> PathPoint:
        alphas = self.alphas.to(level.device)
        t = (1 - level.double()) * self.num_timesteps
        # Levels are fractions in float32: what is nearly a timestep is that timestep.
        t = torch.where((t - t.round()).abs() < 1e-3, t.round(), t)
        below = t.floor().long()
        above = (below + 1).clamp_max(self.num_timesteps)
        alpha = torch.lerp(alphas[below], alphas[above], t - below)
        sigma = (1 - alpha.square()).sqrt()
        return PathPoint(alpha.to(level.dtype), sigma.to(level.dtype))


Schedule = MaskSchedule | NoisePath


def warmup_cosine(step: int, *, num_steps: int, warmup_steps: int, floor: float = 0.05) -> float:
    """The learning rate's factor: linear warm-up, then a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
