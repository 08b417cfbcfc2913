"""The contract of the family `samplers`: from a start state to a clean one, in steps that can be watched.

A sampler is a function of a denoiser. Network, guidance and temperature are closed over in `Denoise`; the
schedule is the objective's own, so training and sampling cannot disagree. What a position should hold is
the objective's business; *which* positions, or how far along the path, is the sampler's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from vidcomp.config import Family, Variant
from vidcomp.schedules import Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Prediction, State

SAMPLERS = Family("vidcomp.samplers")

Denoise = Callable[[State, Rng], Prediction]


@runtime_checkable
class Sampler(Protocol):
    """Yields the state after every step; the last one is the sample."""

    def __call__(self, denoise: Denoise, start: State, rng: Rng) -> Iterator[State]: ...


class Config(Variant, ABC):
    """Settings of a sampler. `num_steps` is the number of steps, of one or two network evaluations each."""

    num_steps: int

    @abstractmethod
    def build(self, schedule: Schedule) -> Sampler:
        """The sampler on an objective's schedule; raises UserError if the two do not go together."""
