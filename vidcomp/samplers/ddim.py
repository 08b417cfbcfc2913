"""DDIM: from noise to data in any number of equal steps of the level, with as much fresh noise as
`eta` says (arXiv:2010.02502, Eq. 12 and 16).

eta = 0 follows the ODE of the path; eta = 1 is the ancestral sampler on the chosen steps.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, PositiveInt

from vidcomp.samplers import base
from vidcomp.schedules import NoisePath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import State


class Config(base.Config):
    """One network evaluation a step."""

    num_steps: PositiveInt = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0

    def build(self, schedule: Schedule) -> "Ddim":
        return Ddim(self.num_steps, base.require_path(schedule, self.name), eta=self.eta)


class Ddim:
    """See the module's text."""

    def __init__(self, num_steps: int, path: NoisePath, *, eta: float) -> None:
        self.num_steps = num_steps
        self.path = path
        self.eta = eta

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state = start
        for step in range(self.num_steps):
            level, next_level = step / self.num_steps, (step + 1) / self.num_steps
            here = self.path.at(base.level_for_latents(state, level))
            there = self.path.at(base.level_for_latents(state, next_level))
            x = state.latents.values
            data, implied = base.parts(denoise(state, rng.fold(f"step {step}")), x, here)
            if self.eta > 0:
                fresh = rng.fold(f"noise {step}").normal(*x.shape[1:])
                x = here.renoised(there, data, implied, fresh, eta=self.eta)
            else:
                x = there.mix(data, implied)
            state = base.moved(state, x, next_level)
            yield state
