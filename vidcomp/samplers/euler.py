"""Euler's method along the objective's path from noise to data, in equal steps of the level.

Written as re-mixing the predicted data with the implied noise, so on the path of a diffusion it is
DDIM without noise (`ddim`), and on the straight path of rectified flow it is Euler on the velocity,
exactly.
"""

from pydantic import PositiveInt

from vidcomp.samplers import base
from vidcomp.samplers.ddim import Ddim
from vidcomp.schedules import Schedule


class Config(base.Config):
    """One network evaluation a step."""

    num_steps: PositiveInt = 20

    def build(self, schedule: Schedule) -> Ddim:
        return Ddim(self.num_steps, base.require_path(schedule, self.name), eta=0.0)
