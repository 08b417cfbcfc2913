"""Euler's method along the objective's path from noise to data, in equal steps of the level.

Written as re-mixing the predicted data with the implied noise, so on any path of the form
alpha * data + sigma * noise it is DDIM (arXiv:2010.02502, Eq. 12 with eta = 0), and on the straight path
of rectified flow it is Euler on the velocity, exactly.
"""

from collections.abc import Iterator

import torch
from pydantic import PositiveInt

from vidcomp.config import UserError
from vidcomp.samplers import base
from vidcomp.schedules import RectifiedPath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Latents, State


class Config(base.Config):
    """One network evaluation a step."""

    num_steps: PositiveInt = 20

    def build(self, schedule: Schedule) -> "Euler":
        return Euler(self.num_steps, require_path(schedule, self.name))


class Euler:
    """See the module's text."""

    def __init__(self, num_steps: int, path: RectifiedPath) -> None:
        self.num_steps = num_steps
        self.path = path

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state = start
        for step in range(self.num_steps):
            data = denoise(state, rng.fold(f"step {step}")).values
            assert data is not None
            here, there = self.path.at(at(state, step, self.num_steps)), self.path.at(at(state, step + 1, self.num_steps))
            noise = here.noise(state.latents.values, data)
            state = moved(state, there.alpha * data + there.sigma * noise, (step + 1) / self.num_steps)
            yield state


def require_path(schedule: Schedule, sampler: str) -> RectifiedPath:
    """The noise path of an objective; raises if it has a mask schedule instead."""
    if not isinstance(schedule, RectifiedPath):
        raise UserError(f"sampler {sampler} needs a continuous path (flow); for a masked objective use unmask")
    return schedule


def at(state: State, step: int, num_steps: int) -> torch.Tensor:
    """The level after `step` steps, shaped to multiply latents."""
    return torch.full_like(state.level, step / num_steps)[:, None, None, None, None]


def moved(state: State, values: torch.Tensor, level: float) -> State:
    """`state` with new values where nothing was given."""
    values = torch.where(state.known[..., None], state.latents.values, values)
    return State(Latents(values), state.known, torch.full_like(state.level, level))
