"""What datasets share whose clips are drawn when they are asked for.

Nothing is stored: clip i is drawn from (seed, i) alone. So another seed is a disjoint set of the
same world, as probes need, and more clips leave the first ones as they were.
"""

import copy
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from vidcomp.datasets import base
from vidcomp.datasets.base import Clips
from vidcomp.types import Frames
from vidcomp.world.factors import Factors
from vidcomp.world.locations import Locations
from vidcomp.world.scenes import combinations_of, draw_values
from vidcomp.world.truth import Truth


class DrawnConfig(base.Config, ABC):
    """The combinations are balanced: each run of n clips shows all n of them, in a drawn order."""

    num_clips: int = Field(default=4000, ge=1)
    seed: int = 0
    num_frames: int = Field(default=9, ge=1)
    height: int = Field(default=32, ge=8)
    width: int = Field(default=32, ge=8)
    fps: float = Field(default=8.0, gt=0)


class Asked(NamedTuple):
    """What clips are to show."""

    indices: Int64[Tensor, " b"]
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]

    @classmethod
    def of_all(cls, factors: Factors, num_clips: int, *, seed: int) -> "Asked":
        indices = torch.arange(num_clips)
        classes = combinations_of(factors, indices, seed=seed)
        return cls(indices, classes, draw_values(factors, classes, indices, seed=seed))

    def rows(self, indices: Int64[Tensor, " b"]) -> "Asked":
        """Of some clips, on the device of `indices`."""
        at = indices.to(self.indices.device)
        classes, values = self.classes.index_select(0, at), self.values.index_select(0, at)
        return Asked(indices, classes.to(indices.device), values.to(indices.device))


D = TypeVar("D")


class DrawnDataset(base.Dataset, ABC, Generic[D]):
    """A world draws `D`, and what is wanted of it, frames or truth or both, is made from that."""

    def __init__(self, config: DrawnConfig, factors: Factors) -> None:
        self.factors = factors
        self.num_frames, self.fps = config.num_frames, config.fps
        self.height, self.width = config.height, config.width
        self.seed = config.seed
        self._num_clips = config.num_clips
        self._digest = config.digest

    @abstractmethod
    def drawn(self, asked: Asked) -> D:
        """Clips of one world, before anybody looks at them."""

    @abstractmethod
    def frames_of(self, drawn: D) -> Frames: ...

    @abstractmethod
    def truth_of(self, drawn: D) -> Truth: ...

    def locations_of(self, drawn: D) -> Locations | None:
        """Where the objects are, if a generator can be told; in most worlds it cannot."""
        return None

    def __len__(self) -> int:
        return self._num_clips

    def classes(self) -> Int64[Tensor, "n f"]:
        return self._asked(torch.arange(len(self))).classes

    def values(self) -> Float[Tensor, "n f v"]:
        return self._asked(torch.arange(len(self))).values

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        asked = self._asked(indices)
        return self._clips(asked, self.drawn(asked))

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        return self.truth_of(self.drawn(self._asked(indices)))

    def clips_and_truth(self, indices: Int64[Tensor, " b"]) -> tuple[Clips, Truth]:
        asked = self._asked(indices)
        drawn = self.drawn(asked)
        return self._clips(asked, drawn), self.truth_of(drawn)

    def at_prototypes(self) -> "DrawnDataset[D] | None":
        factors = self.factors.without_spread()
        if factors == self.factors:
            return None
        same = copy.copy(self)
        same.factors = factors
        same._all = self._all._replace(values=factors.prototypes(self._all.classes))
        return same

    def _asked(self, indices: Int64[Tensor, " b"]) -> Asked:
        self.check_indices(indices)
        return self._all.rows(indices)

    @functools.cached_property
    def _all(self) -> Asked:
        """Drawn once: a run asks for the classes of all clips, then for batch after batch."""
        return Asked.of_all(self.factors, len(self), seed=self.seed)

    def _clips(self, asked: Asked, drawn: D) -> Clips:
        locations = self.locations_of(drawn)
        return Clips(self.frames_of(drawn), asked.classes, asked.values, locations)

    @property
    def fingerprint(self) -> str:
        """Of the settings and the factors in their order (a mapping's digest forgets its order)."""
        text = json.dumps([self._digest, self.factors.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
