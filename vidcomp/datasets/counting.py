"""Count and density worlds: N objects, none near another, and where some of them are.

For the second paper (arXiv:2509.16447): a generator is told the places of all objects or of one of
them, trains where N is 1 to 3, and is asked for 0 to 10. N is the one factor, so that a split tells
what is held out: ``rule: range, seen: {count: [1, 3]}``. Clips bring their `Locations`.
"""

from dataclasses import replace
from typing import NamedTuple

from vidcomp.datasets.base_drawn import Asked, DrawnConfig, DrawnDataset
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.crowd import CrowdSettings, draw_crowd
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.locations import Locations
from vidcomp.world.sprites import render
from vidcomp.world.truth import Truth


class Config(CrowdSettings, DrawnConfig):
    """Each run of n clips shows all n of `counts`, in a drawn order."""

    def build(self) -> "Dataset":
        return Dataset(self)


class Seen(NamedTuple):
    """Both are made of one rendering: locations need the truth."""

    frames: Frames
    truth: Truth


class Dataset(DrawnDataset[Seen]):
    """Clips of N objects."""

    def __init__(self, config: Config) -> None:
        classes = tuple(FactorClass(str(n), (float(n),), (0.0,)) for n in config.counts)
        count = Factor("count", classes, unit="objects", kind="ordinal")
        super().__init__(config, Factors((count,)))
        self._crowd = config

    def drawn(self, asked: Asked) -> Seen:
        rng = Rng.make(self.seed, "crowd", asked.indices)
        crowd = draw_crowd(self._crowd, asked.values[:, 0, 0].long(), rng)
        rendered = render(crowd.scene, height=self.height, width=self.width)
        truth = replace(
            rendered.truth,
            labelled=crowd.labelled,
            clutter=crowd.clutter,
            attributes=crowd.attributes,
        )
        return Seen(rendered.frames, truth)

    def frames_of(self, drawn: Seen) -> Frames:
        return drawn.frames

    def truth_of(self, drawn: Seen) -> Truth:
        return drawn.truth

    def locations_of(self, drawn: Seen) -> Locations:
        return Locations.of_truth(drawn.truth, height=self.height, width=self.width)
