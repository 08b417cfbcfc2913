"""What a clip is asked to show: from (seed, index) to the classes and values of its factors.

A controlled factor is drawn inside its class's box. What a config lists as varying is drawn over
all its classes; of what is neither, each world (`vidcomp.world.single`, `vidcomp.world.pair`) draws
shape, colour, size and direction over their natural range, and leaves the rest out.

Every draw is a stream of its own and a pure function of (seed, index): clip i is the same whoever
asks, in whatever batch, and another class of one factor leaves all other draws as they were.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factor, Factors
from vidcomp.world.shapes import SHAPES
from vidcomp.world.textures import NUM_DRAWS, Background

RADIUS = (0.20, 0.25)
"""The radius where size is not a factor; smaller shapes are hard to tell apart at 32 pixels."""

TRAVEL = (0.25, 0.40)
"""How far the sprite moves over the clip where speed is not a factor, as a fraction of the frame's
shorter side."""

NUISANCE_SHAPES = ("circle", "square", "triangle")
"""Where shape is not a factor: those that are easily told apart."""

MAX_ANGLE_RAD = 0.15
LIGHT = (0.55, 1.0)  # where lighting varies


def combinations_of(
    factors: Factors, indices: Int64[Tensor, " b"], *, seed: int
) -> Int64[Tensor, "b f"]:
    """Class ids by clip: each run of n clips shows the n combinations in a drawn order."""
    n = factors.num_combinations
    blocks, inverse = torch.unique(indices // n, return_inverse=True)
    slots = blocks[:, None] * n + torch.arange(n)
    keys = Rng.make(seed, "combination", slots.reshape(-1)).keys.reshape(-1, n)
    order = keys.argsort(dim=1, stable=True)
    return factors.combinations()[order[inverse, indices % n]]


def draw_values(
    factors: Factors, classes: Int64[Tensor, "b f"], indices: Int64[Tensor, " b"], *, seed: int
) -> Float[Tensor, "b f v"]:
    """The continuous value of each factor, uniform in its class's box; padded with 0."""
    spreads = factors.spreads(classes)
    draws = Rng.make(seed, "values", indices).uniform(*spreads.shape[1:]) * 2 - 1
    return factors.prototypes(classes) + spreads * draws


def check_frames(factors: Factors, num_frames: int) -> None:
    """A temporal factor cannot be seen in one frame."""
    unseen = [factor.name for factor in factors.items if factor.min_frames > num_frames]
    if unseen:
        raise UserError(
            f"{', '.join(unseen)} cannot be seen in one frame; set num_frames >= 2 or drop it"
        )


@dataclass(frozen=True)
class Settled:
    """What each clip has of one factor: its class's place in the library, and its value."""

    kind: Int64[Tensor, " b"]
    value: Float[Tensor, "b v"]


@dataclass(frozen=True)
class Asked:
    """What is settled of some clips, by the name of the factor, and the streams for the rest."""

    settled: dict[str, Settled]
    varying: Sequence[str]
    rng: Rng

    def value(
        self, name: str, otherwise: Callable[[], Float[Tensor, "b v"]]
    ) -> Float[Tensor, "b v"]:
        """`otherwise` draws what is not settled: most of what could be drawn is not needed."""
        return self.settled[name].value if name in self.settled else otherwise()

    def kind(self, name: str) -> Int64[Tensor, " b"] | None:
        return self.settled[name].kind if name in self.settled else None

    def between(
        self, stream: str, low: "Tensor | float", high: "Tensor | float", *shape: int
    ) -> Tensor:
        """A uniform draw, from the stream with this name alone."""
        return low + self.rng.fold(stream).uniform(*shape) * (high - low)

    def heading(self) -> Float[Tensor, "b 2"]:
        """A direction, all alike."""
        angle = self.between("direction", 0.0, 2 * math.pi, 1)
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def shapes(self) -> Int64[Tensor, " b"]:
        if "shape" in self.settled:
            return self.settled["shape"].kind
        return nuisance_shapes(self.rng.fold("shape"))

    def rgb(self) -> Float[Tensor, "b 3"]:
        return self.value("colour", lambda: _rgb_of_hue(self.rng.fold("hue").uniform(1)))

    def background(self) -> Background | None:
        kind = self.kind("background")
        if kind is None:
            return None
        return Background(kind, self.rng.fold("background").uniform(NUM_DRAWS))

    def light(self) -> Float[Tensor, " b"] | None:
        return self.between("light", *LIGHT) if "lighting" in self.varying else None


def ask(
    library: Sequence[Factor],
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    indices: Int64[Tensor, " b"],
    *,
    seed: int,
    varying: Sequence[str],
) -> Asked:
    """Settle what is controlled, and what varies."""
    settled: dict[str, Settled] = {}
    for factor in library:
        name, size = factor.name, factor.value_size
        if name in factors.names:
            f = factors.names.index(name)
            places = torch.tensor([factor.index(c) for c in factors.items[f].class_names])
            settled[name] = Settled(places[classes[:, f]], values[:, f, :size])
        elif name in varying:
            rng = Rng.make(seed, f"varying {name}", indices)
            kind = rng.integers(len(factor.classes), 1)
            boxes = Factors((factor,))
            draws = rng.fold("value").uniform(1, size) * 2 - 1
            value = boxes.prototypes(kind) + boxes.spreads(kind) * draws
            settled[name] = Settled(kind[:, 0], value[:, 0])
    return Asked(settled, varying, Rng.make(seed, "scene", indices))


def check_varying(factors: Factors, varying: Sequence[str], legal: Sequence[str]) -> None:
    """What varies is known, and not controlled."""
    for name in varying:
        if name not in legal:
            raise UserError(f"varying: no {name!r}; {nearest(name, legal)}")
        if name in factors.names:
            raise UserError(f"varying: {name!r} is a factor already; drop it from one of the two")


def nuisance_shapes(rng: Rng) -> Int64[Tensor, " b"]:
    drawn = rng.integers(len(NUISANCE_SHAPES), 1)[:, 0]
    return torch.tensor([SHAPES.index(name) for name in NUISANCE_SHAPES])[drawn]


def progress_of(num_frames: int) -> Float[Tensor, " t"]:
    """From 0 in the first frame to 1 in the last."""
    return torch.arange(num_frames) / max(num_frames - 1, 1)


def _rgb_of_hue(hue: Float[Tensor, "b 1"]) -> Float[Tensor, "b 3"]:
    """Fully mixed hues between 0.1 and 0.9, the range of the named colours; hue 0 is red."""
    distance = (
        6 * hue - torch.tensor([0.0, 2.0, 4.0]) + 3
    ) % 6 - 3  # from red, green, blue, in sixths
    return 0.1 + 0.8 * (2 - distance.abs()).clamp(0, 1)
