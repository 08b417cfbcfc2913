"""Heun's method: second order, two network evaluations a step but the last (arXiv:2206.00364,
Algorithm 1).

The last step is Euler's, because noise cannot be told from data at level 1, where there is none:
the network is never asked there. (The path of a diffusion is steep at its end, so the error of this
one step is what remains there: the order that is seen is about 1.5.)

Unusual: what is averaged over a step is the predicted data and the implied noise, not a velocity.
On the straight path of rectified flow that is the same; on the path of a diffusion, whose velocity
has a pole at level 1, the coefficients of both are integrated exactly.
"""

from collections.abc import Iterator

from pydantic import PositiveInt

from vidcomp.samplers import base
from vidcomp.schedules import NoisePath, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import State


class Config(base.Config):
    """Two network evaluations a step, one in the last."""

    num_steps: PositiveInt = 10

    def build(self, schedule: Schedule) -> "Heun":
        return Heun(self.num_steps, base.require_path(schedule, self.name))


class Heun:
    """See the module's text."""

    def __init__(self, num_steps: int, path: NoisePath) -> None:
        self.num_steps = num_steps
        self.path = path

    def __call__(self, denoise: base.Denoise, start: State, rng: Rng) -> Iterator[State]:
        state = start
        for step in range(self.num_steps):
            level, next_level = step / self.num_steps, (step + 1) / self.num_steps
            here = self.path.at(base.level_for_latents(state, level))
            there = self.path.at(base.level_for_latents(state, next_level))
            x = state.latents.values
            data, noise = base.parts(denoise(state, rng.fold(f"step {step}")), x, here)
            ahead = base.moved(state, there.mix(data, noise), next_level)
            if step + 1 < self.num_steps:
                corrected = denoise(ahead, rng.fold(f"step {step}, corrected"))
                ends = base.parts(corrected, ahead.latents.values, there)
                # dx = data d(alpha) + noise d(sigma), by the rule of the trapezium.
                of_data = (there.alpha - here.alpha) * (data + ends.data) / 2
                of_noise = (there.sigma - here.sigma) * (noise + ends.noise) / 2
                ahead = base.moved(state, x + of_data + of_noise, next_level)
            state = ahead
            yield state
