"""Heun's method: second order, two network evaluations a step but the last (arXiv:2206.00364,
Algorithm 1).

The last step is Euler's, because the velocity at level 1 divides by a noise level of zero: it is
never evaluated there.
"""

from collections.abc import Iterator

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from vidcomp.samplers import base
from vidcomp.schedules import RectifiedPath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import State


class Config(base.Config):
    """Two network evaluations a step, one in the last."""

    num_steps: PositiveInt = 10

    def build(self, schedule: Schedule) -> "Heun":
        return Heun(self.num_steps, base.require_path(schedule, self.name))


class Heun:
    """See the module's text."""

    def __init__(self, num_steps: int, path: RectifiedPath) -> None:
        self.num_steps = num_steps
        self.path = path

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state, length = start, 1 / self.num_steps
        for step in range(self.num_steps):
            level, next_level = step / self.num_steps, (step + 1) / self.num_steps
            first = self._velocity(denoise, state, level, rng.fold(f"step {step}"))
            ahead = base.moved(state, state.latents.values + length * first, next_level)
            if step + 1 < self.num_steps:
                corrected = rng.fold(f"step {step}, corrected")
                second = self._velocity(denoise, ahead, next_level, corrected)
                mean = (first + second) / 2
                ahead = base.moved(state, state.latents.values + length * mean, next_level)
            state = ahead
            yield state

    def _velocity(
        self, denoise: base.Denoise, state: State, level: float, rng: Rng
    ) -> Float[Tensor, "b T H W d"]:
        data = denoise(state, rng).values
        assert data is not None
        point = self.path.at(base.level_for_latents(state, level))
        return point.velocity(data, point.noise(state.latents.values, data))
