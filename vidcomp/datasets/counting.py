"""Count and density worlds: N objects, none near another, and where some of them are.

For the second paper (arXiv:2509.16447): a generator is told the places of all objects or of one of
them, trains where N is 1 to 3, and is asked for 0 to 10. N is the one factor, so that a split tells
what is held out: ``rule: range, seen: {count: [1, 3]}``. Clips bring their `Locations`.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import field_validator

from vidcomp.config import nearest
from vidcomp.datasets.base_drawn import Asked, DrawnConfig, DrawnDataset
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.crowd import CrowdSettings, count_factors, draw_crowd
from vidcomp.world.locations import Locations
from vidcomp.world.shapes import EXTENT, ROUND, SHAPES
from vidcomp.world.sprites import Scene, render
from vidcomp.world.truth import Truth


class Config(CrowdSettings, DrawnConfig):
    """Each run of n clips shows all n of `counts`, in a drawn order."""

    shapes: tuple[str, ...] = ("circle",)

    @property
    def reach_px(self) -> float:
        return self.radius_px * (1.0 if set(self.shapes) <= set(ROUND) else EXTENT)

    @field_validator("shapes")
    @classmethod
    def _are_known(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        if not shapes or len(set(shapes)) < len(shapes):
            raise ValueError(f"{list(shapes)}: name one or more different ones")
        for name in shapes:
            if name not in SHAPES:
                raise ValueError(f"no {name!r}; {nearest(name, SHAPES)}")
        return shapes

    def build(self) -> "Dataset":
        return Dataset(self)


class Seen(NamedTuple):
    """Both are made of one rendering: locations need the truth."""

    frames: Frames
    truth: Truth


class Dataset(DrawnDataset[Seen]):
    """Clips of N objects."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, count_factors(config))
        self._crowd = config

    def drawn(self, asked: Asked) -> Seen:
        """Attributes are the colour and, if there are several shapes, which one it is."""
        config, rng = self._crowd, Rng.make(self.seed, "crowd", asked.indices)
        crowd = draw_crowd(config, asked.values[:, 0, 0].long(), rng)
        kind = rng.fold("shapes").integers(len(config.shapes), config.most)
        unit_px = min(self.height, self.width)
        scene = Scene(
            present=crowd.present,
            centres=crowd.motion.positions / unit_px,
            radius=torch.full(crowd.present.shape, config.radius_px / unit_px),
            angle_rad=torch.zeros(crowd.motion.positions.shape[:3]),
            rgb=crowd.rgb,
            shape=torch.tensor([SHAPES.index(name) for name in config.shapes])[kind],
            velocities=crowd.motion.velocities / unit_px,
            contacts=crowd.motion.contacts,
        )
        rendered = render(scene, height=self.height, width=self.width)
        several = len(config.shapes) > 1
        looks = [crowd.rgb, F.one_hot(kind, len(config.shapes)).float()] if several else [crowd.rgb]
        truth = replace(
            rendered.truth,
            labelled=crowd.labelled,
            clutter=crowd.clutter,
            attributes=torch.cat(looks, dim=-1).where(crowd.present[..., None], 0.0),
        )
        return Seen(rendered.frames, truth)

    def frames_of(self, drawn: Seen) -> Frames:
        return drawn.frames

    def truth_of(self, drawn: Seen) -> Truth:
        return drawn.truth

    def locations_of(self, drawn: Seen) -> Locations:
        return Locations.of_truth(drawn.truth, height=self.height, width=self.width)
