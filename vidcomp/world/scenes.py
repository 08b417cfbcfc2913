"""Scenes: from (seed, index, classes) to where the sprite is, how large, and in which colour.

A controlled factor is drawn inside its class's box, everything else over its natural range, and the
sprite never leaves the frame. Every draw is a pure function of (seed, index), so clip i is the same
whoever asks, in whatever batch.

Unusual: travel and start depend on the radius but never on the shape, although some shapes would
have more room: otherwise speed and place would tell the shape.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.world.concepts import SHAPES
from vidcomp.world.factors import Factors
from vidcomp.world.sprites import EXTENT, Scene

RADIUS = (0.20, 0.25)
"""The radius where size is not a factor; smaller shapes are hard to tell apart at 32 pixels."""

TRAVEL = (0.25, 0.40)
"""How far the sprite moves over the clip, as a fraction of the frame's shorter side."""

MAX_ANGLE_RAD = 0.15
NUISANCE_SHAPES = ("circle", "square", "triangle")


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


def draw_scene(
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    indices: Int64[Tensor, " b"],
    *,
    seed: int,
    num_frames: int,
    height: int,
    width: int,
) -> Scene:
    """The scenes of the clips `indices`, which show `classes`."""
    rng = Rng.make(seed, "scene", indices)
    column = {name: f for f, name in enumerate(factors.names)}
    values = draw_values(factors, classes, indices, seed=seed)

    if "size" in column:
        radius = values[:, column["size"], 0]
    else:
        radius = _between(rng.fold("radius").uniform(1)[:, 0], *RADIUS)
    if "colour" in column:
        rgb = values[:, column["colour"], :3]
    else:
        rgb = _rgb_of_hue(rng.fold("hue").uniform(1))
    if "motion" in column:
        direction = values[:, column["motion"], :2]
    else:
        turn = 2 * math.pi * rng.fold("direction").uniform(1)
        direction = torch.cat([turn.cos(), turn.sin()], dim=1)
    if "shape" in column:
        names = factors.items[column["shape"]].class_names
        shape = torch.tensor([SHAPES.index(name) for name in names])[classes[:, column["shape"]]]
    else:
        names = NUISANCE_SHAPES
        drawn = rng.fold("shape").integers(len(names), 1)[:, 0]
        shape = torch.tensor([SHAPES.index(name) for name in names])[drawn]

    return Scene(
        centres=_path(rng, radius, direction, num_frames=num_frames, height=height, width=width),
        radius=radius,
        angle_rad=_between(rng.fold("angle").uniform(1)[:, 0], -MAX_ANGLE_RAD, MAX_ANGLE_RAD),
        rgb=rgb,
        shape=shape,
    )


def _path(
    rng: Rng,
    radius: Float[Tensor, " b"],
    direction: Float[Tensor, "b 2"],
    *,
    num_frames: int,
    height: int,
    width: int,
) -> Float[Tensor, "b t 2"]:
    """Straight and steady; the start is uniform where the sprite stays in the frame."""
    frame = torch.tensor([width, height]) / min(height, width)  # x, y
    reach = EXTENT * radius
    longest = (1 - 2 * reach).clamp_max(TRAVEL[1])
    travel = _between(rng.fold("travel").uniform(1)[:, 0], TRAVEL[0], longest)
    step = travel[:, None] * direction  # b 2
    low = reach[:, None] - step.clamp_max(0)
    high = frame - reach[:, None] - step.clamp_min(0)
    start = _between(rng.fold("start").uniform(2), low, high)
    progress = torch.arange(num_frames) / max(num_frames - 1, 1)
    return start[:, None] + progress[:, None] * step[:, None]


def check_frames(factors: Factors, num_frames: int) -> None:
    """A temporal factor cannot be seen in one frame."""
    temporal = [factor.name for factor in factors.items if factor.temporal]
    if num_frames == 1 and temporal:
        raise UserError(
            f"{', '.join(temporal)} cannot be seen in one frame; set num_frames >= 2 or drop it"
        )


def _between(u: Tensor, low: "Tensor | float", high: "Tensor | float") -> Tensor:
    return low + u * (high - low)


def _rgb_of_hue(hue: Float[Tensor, "b 1"]) -> Float[Tensor, "b 3"]:
    """Fully mixed hues between 0.1 and 0.9, the range of the named colours; hue 0 is red."""
    distance = (
        6 * hue - torch.tensor([0.0, 2.0, 4.0]) + 3
    ) % 6 - 3  # from red, green, blue, in sixths
    return 0.1 + 0.8 * (2 - distance.abs()).clamp(0, 1)
