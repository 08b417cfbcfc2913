"""The contract of the family `samplers`: from a start state to a clean one, in steps that can be
watched.

A sampler is a function of a denoiser. Network, guidance and temperature are closed over in
`Denoise`; the schedule is the objective's own, so training and sampling cannot disagree. What a
position should hold is the objective's business; *which* positions, or how far along the path, is
the sampler's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vidcomp.config import Family, UserError, Variant
from vidcomp.schedules import NoisePath, PathPoint, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Latents, Prediction, State

SAMPLERS = Family("vidcomp.samplers")

Denoise = Callable[[State, Rng], Prediction]


@runtime_checkable
class Sampler(Protocol):
    """Yields the state after every step; the last one is the sample."""

    def __call__(self, denoise: Denoise, start: State, rng: Rng) -> Iterator[State]: ...


class Config(Variant, ABC):
    """Settings of a sampler. `num_steps` is the number of steps, of one or two network evaluations
    each.
    """

    num_steps: int

    @abstractmethod
    def build(self, schedule: Schedule) -> Sampler:
        """The sampler on an objective's schedule; raises UserError if the two do not go
        together.
        """


# What the solvers of a continuous path share.


def require_path(schedule: Schedule, sampler: str) -> NoisePath:
    """The noise path of an objective; raises if it has a mask schedule instead."""
    if not isinstance(schedule, NoisePath):
        raise UserError(
            f"sampler {sampler} needs a continuous path (flow, diffusion); "
            "for a masked objective use unmask"
        )
    return schedule


def level_for_latents(state: State, level: float) -> Float[Tensor, "b 1 1 1 1"]:
    """`level` for every clip, shaped to multiply latents."""
    return torch.full_like(state.level, level)[:, None, None, None, None]


class Parts(NamedTuple):
    """What a point of a path is a mixture of."""

    data: Float[Tensor, "b T H W d"]
    noise: Float[Tensor, "b T H W d"]


def parts(prediction: Prediction, x: Float[Tensor, "b T H W d"], point: PathPoint) -> Parts:
    """The predicted data, and the noise that they imply at `x`."""
    assert prediction.values is not None, "objectives on a path predict values"
    return Parts(prediction.values, point.noise(x, prediction.values))


def moved(state: State, values: Float[Tensor, "b T H W d"], level: float) -> State:
    """`state` at `level`, with new values where nothing was given."""
    values = torch.where(state.known[..., None], state.latents.values, values)
    return State(Latents(values), state.known, torch.full_like(state.level, level))
