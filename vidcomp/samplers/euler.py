"""Euler's method along the objective's path from noise to data, in equal steps of the level.

Written as re-mixing the predicted data with the implied noise, so on any path of the form
alpha * data + sigma * noise it is DDIM (arXiv:2010.02502, Eq. 12 with eta = 0), and on the straight
path of rectified flow it is Euler on the velocity, exactly.
"""

from collections.abc import Iterator

from pydantic import PositiveInt

from vidcomp.samplers import base
from vidcomp.schedules import RectifiedPath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import State


class Config(base.Config):
    """One network evaluation a step."""

    num_steps: PositiveInt = 20

    def build(self, schedule: Schedule) -> "Euler":
        return Euler(self.num_steps, base.require_path(schedule, self.name))


class Euler:
    """See the module's text."""

    def __init__(self, num_steps: int, path: RectifiedPath) -> None:
        self.num_steps = num_steps
        self.path = path

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state = start
        for step in range(self.num_steps):
            level, next_level = step / self.num_steps, (step + 1) / self.num_steps
            here = self.path.at(base.level_for_latents(state, level))
            there = self.path.at(base.level_for_latents(state, next_level))
            data = denoise(state, rng.fold(f"step {step}")).values
            assert data is not None
            noise = here.noise(state.latents.values, data)
            state = base.moved(state, there.alpha * data + there.sigma * noise, next_level)
            yield state
