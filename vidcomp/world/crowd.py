"""Crowds: N objects in a frame, none near another, where they go and what they look like.

Sizes and distances are in pixels, so that a larger frame with the same N is less dense, and one
with more objects is as dense. Who draws the picture decides what an object is: a flat sprite
(`vidcomp.datasets.counting`) or a lit sphere (`vidcomp.datasets.counting3d`).

Given the places of all, what one object looks like tells nothing of the others: such clips compose
in the sense of the second paper (arXiv:2509.16447, its CPC). Two settings break that on purpose:
distinct colours, which tell apart objects that meet, and mirrored places.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from vidcomp.config import Settings
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.locations import Label, choose_given
from vidcomp.world.physics import Corners, Motion, simulate
from vidcomp.world.placement import Manner, capacity, place
from vidcomp.world.truth import MAX_OBJECTS, Truth

PALETTE = (
    (0.9, 0.1, 0.1),
    (0.9, 0.5, 0.1),
    (0.9, 0.9, 0.1),
    (0.5, 0.9, 0.1),
    (0.1, 0.9, 0.1),
    (0.1, 0.9, 0.5),
    (0.1, 0.9, 0.9),
    (0.1, 0.5, 0.9),
    (0.1, 0.1, 0.9),
    (0.5, 0.1, 0.9),
    (0.9, 0.1, 0.9),
    (0.9, 0.1, 0.5),
)
"""Twelve hues. The brightest channel of each is the same, so one threshold finds all of them."""

WHITE = (0.9, 0.9, 0.9)


class CrowdSettings(Settings):
    """What a clip holds: one of `counts` objects, and clutter.

    label: of which objects a generator is told: all, one of them, or a random subset.
    clutter: [fewest, most] further objects, which do not count and of which it is never told.
    colours: distinct in a clip, independent of each other, or one, white.
    gap_px: how near outlines come. Objects that move bounce off each other at this distance.
    speed_px: [slowest, fastest], in pixels per frame; [0, 0] stands still.
    within: objects stay in a window of this share of the frame's sides, which lies anywhere. It is
    the density at one N in one size of frame.
    placement: free, or mirrored in pairs in the first frame.
    """

    num_frames: int = Field(default=1, ge=1)
    height: int = Field(default=32, ge=8)
    width: int = Field(default=32, ge=8)
    counts: tuple[int, ...] = tuple(range(11))
    label: Label = "all"
    clutter: tuple[int, int] = (0, 0)
    colours: Literal["distinct", "independent", "one"] = "distinct"
    radius_px: float = Field(default=2.5, ge=1)
    gap_px: float = Field(default=2.0, ge=0)
    speed_px: tuple[float, float] = (0.0, 0.0)
    within: float = Field(default=1.0, gt=0, le=1)
    placement: Manner = "free"

    @property
    def most(self) -> int:
        """The most objects in a clip, clutter included."""
        return self.counts[-1] + self.clutter[1]

    @property
    def reach_px(self) -> float:
        """How far an object reaches from its centre."""
        return self.radius_px

    @property
    def apart_px(self) -> float:
        """How near two centres come."""
        return 2 * self.reach_px + self.gap_px

    @property
    def room_px(self) -> tuple[float, float]:
        """The width and height of where centres lie."""
        width, height = (
            self.within * side - 2 * self.reach_px for side in (self.width, self.height)
        )
        return width, height

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "CrowdSettings":
        if not self.counts or list(self.counts) != sorted({n for n in self.counts if n >= 0}):
            raise ValueError(
                f"counts={list(self.counts)}: name different numbers from 0 up, in their order"
            )
        for name, (low, high) in (("clutter", self.clutter), ("speed_px", self.speed_px)):
            if not 0 <= low <= high:
                raise ValueError(f"{name}=[{low}, {high}] is not [least, most], from 0 up")
        if self.num_frames == 1 and self.speed_px[1]:
            raise ValueError("speed_px cannot be seen in one frame; set num_frames >= 2 or drop it")
        if self.colours == "distinct" and self.most > len(PALETTE):
            raise ValueError(
                f"counts and clutter ask for {self.most} objects, but there are {len(PALETTE)} "
                "distinct colours; ask for fewer, or set colours=independent"
            )
        width, height = self.room_px
        asked = min(self.most, MAX_OBJECTS)
        fit = capacity(width, height, apart=self.apart_px, at_most=asked, manner=self.placement)
        if self.most > fit:
            raise ValueError(
                f"counts and clutter ask for {self.most} objects, but {fit} fit {self.width} x "
                f"{self.height} pixels; ask for fewer, or set a larger frame or within, or a "
                "smaller radius_px or gap_px"
            )
        return self


class Crowd(NamedTuple):
    """Objects in motion, in pixels from the frame's upper left corner; of which of them a generator
    is told, and which are clutter: the last ones."""

    present: Bool[Tensor, "b n"]
    motion: Motion
    rgb: Float[Tensor, "b n 3"]
    labelled: Bool[Tensor, "b n"]
    clutter: Bool[Tensor, "b n"]

    @property
    def truth(self) -> Truth:
        """All that is true before anybody draws it; the attributes are the colour."""
        there = self.present[:, None, :, None]
        return Truth(
            present=self.present,
            positions_px=(self.motion.positions - 0.5).where(there, 0.0),
            velocities_px=self.motion.velocities.where(there, 0.0),
            contacts=self.motion.contacts,
            labelled=self.labelled,
            clutter=self.clutter,
            attributes=self.rgb.where(self.present[..., None], 0.0),
        )


def count_factors(settings: CrowdSettings) -> Factors:
    """The one factor is N."""
    classes = tuple(FactorClass(str(n), (float(n),), (0.0,)) for n in settings.counts)
    return Factors((Factor("count", classes, unit="objects", kind="ordinal"),))


def draw_crowd(settings: CrowdSettings, count: Int64[Tensor, " b"], rng: Rng) -> Crowd:
    """Clips of `count` objects each."""
    counted = settings.counts[-1]
    extra = _between(*settings.clutter, rng.fold("clutter"))
    numbers = torch.arange(settings.most)
    present = torch.where(
        numbers < counted, numbers < count[:, None], numbers - counted < extra[:, None]
    )
    told = choose_given(present[:, :counted], settings.label, rng.fold("label"))
    return Crowd(
        present=present,
        motion=_motion(settings, present, rng),
        rgb=_colours(settings, rng.fold("colours")),
        labelled=F.pad(told, (0, settings.clutter[1])),
        clutter=present & (numbers >= counted),
    )


def _motion(settings: CrowdSettings, present: Bool[Tensor, "b n"], rng: Rng) -> Motion:
    """Where the objects are, in pixels from the frame's upper left corner.

    They collide as discs with a rim of half the gap, which the edges do not feel.
    """
    frame = torch.tensor([settings.width, settings.height])
    window = settings.within * frame
    corner = rng.fold("window").uniform(2) * (frame - window)
    room: Corners = (corner + settings.reach_px, corner + window - settings.reach_px)
    centres = place(
        present, room, rng.fold("place"), apart=settings.apart_px, manner=settings.placement
    )
    slowest, fastest = settings.speed_px
    speed = slowest + (fastest - slowest) * rng.fold("speed").uniform(settings.most, 1)
    heading = 2 * math.pi * rng.fold("heading").uniform(settings.most, 1)
    rim = settings.apart_px / 2
    radius = torch.full_like(speed[..., 0], rim)
    return simulate(
        centres,
        speed * torch.cat([heading.cos(), heading.sin()], dim=-1),
        radius=radius,
        mass=torch.ones_like(radius),
        present=present,
        num_frames=settings.num_frames,
        bounds=(room[0] - rim, room[1] + rim),
    )


def _colours(settings: CrowdSettings, rng: Rng) -> Float[Tensor, "b n 3"]:
    palette = torch.tensor(PALETTE)
    match settings.colours:
        case "distinct":
            order = rng.uniform(len(palette)).argsort(dim=1, stable=True)
            return palette[order[:, : settings.most]]
        case "independent":
            return palette[rng.integers(len(palette), settings.most)]
        case "one":
            return torch.tensor(WHITE).expand(len(rng), settings.most, 3)


def _between(low: int, high: int, rng: Rng) -> Int64[Tensor, " b"]:
    return low + rng.integers(high - low + 1)
