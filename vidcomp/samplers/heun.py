"""Heun's method: second order, two network evaluations a step but the last (arXiv:2206.00364, Algorithm 1).

The last step is Euler's, because the velocity at level 1 divides by a noise level of zero: it is never
evaluated there.
"""

from collections.abc import Iterator

from pydantic import PositiveInt

from vidcomp.samplers import base
from vidcomp.samplers.euler import at, moved, require_path
from vidcomp.schedules import RectifiedPath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import State


class Config(base.Config):
    """Two network evaluations a step, one in the last."""

    num_steps: PositiveInt = 10

    def build(self, schedule: Schedule) -> "Heun":
        return Heun(self.num_steps, require_path(schedule, self.name))


class Heun:
    """See the module's text."""

    def __init__(self, num_steps: int, path: RectifiedPath) -> None:
        self.num_steps = num_steps
        self.path = path

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        def velocity(state: State, step: int, rng: Rng):
            point = self.path.at(at(state, step, self.num_steps))
            data = denoise(state, rng).values
            assert data is not None
            return point.velocity(data, point.noise(state.latents.values, data))

        state, length = start, 1 / self.num_steps
        for step in range(self.num_steps):
            level = (step + 1) / self.num_steps
            first = velocity(state, step, rng.fold(f"step {step}"))
            guess = moved(state, state.latents.values + length * first, level)
            if step + 1 < self.num_steps:
                second = velocity(guess, step + 1, rng.fold(f"step {step}, corrected"))
                guess = moved(state, state.latents.values + length * (first + second) / 2, level)
            state = guess
            yield state
