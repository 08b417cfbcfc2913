"""Ancestral sampling: DDPM's reverse chain with the posterior's variance (arXiv:2006.11239,
Algorithm 2). That is DDIM with eta = 1.

As it stands in the paper it takes one step for each timestep of the path, so `num_steps` should be
the objective's `num_timesteps`; fewer steps skip some.
"""

from pydantic import PositiveInt

from vidcomp.samplers import base
from vidcomp.samplers.ddim import Ddim
from vidcomp.schedules import Schedule


class Config(base.Config):
    """One network evaluation a step."""

    num_steps: PositiveInt = 500

    def build(self, schedule: Schedule) -> Ddim:
        return Ddim(self.num_steps, base.require_path(schedule, self.name), eta=1.0)
