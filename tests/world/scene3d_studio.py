"""Scenes for the tests of `vidcomp.world.scene3d`: a few solids, one lamp, one row."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vidcomp.world.scene3d.scene import Rays, Scene, look_at
from vidcomp.world.scene3d.solids import HALF_HEIGHTS, SHAPES

Point = tuple[float, float, float]


class Solid(NamedTuple):
    """Standing on the floor, unless `z` tells the height of its centre."""

    shape: str = "sphere"
    x: float = 0.0
    y: float = 0.0
    z: float | None = None
    radius: float = 0.7
    rgb: Point = (0.6, 0.1, 0.2)
    metal: bool = False
    angle: float = 0.4

    @property
    def centre(self) -> Point:
        height = self.radius * HALF_HEIGHTS[SHAPES.index(self.shape)]
        return self.x, self.y, height if self.z is None else self.z


def studio(
    *solids: Solid,
    lamp: Point = (3.0, -4.0, 6.0),
    lamp_radius: float = 0.6,
    ambient: float = 0.0,
    eye: Point = (0.0, -9.0, 4.0),
    target: Point = (0.0, 0.0, 0.0),
) -> Scene:
    def row(values: object) -> Tensor:
        return torch.tensor(values)[..., None]

    eye_row = row(eye)
    return Scene(
        shape=row([SHAPES.index(s.shape) for s in solids]),
        centre=row([s.centre for s in solids]).transpose(0, 1),
        turn=row([(math.cos(s.angle), math.sin(s.angle)) for s in solids]).transpose(0, 1),
        radius=row([s.radius for s in solids]),
        albedo=row([s.rgb for s in solids]).transpose(0, 1),
        metal=row([float(s.metal) for s in solids]),
        lamp=row([lamp]).transpose(0, 1),
        lamp_radius=row([lamp_radius]),
        lamp_power=row([0.5]),
        ambient=row(ambient),
        floor=row((0.8, 0.8, 0.8)),
        wall=row((0.3, 0.3, 0.3)),
        room=row(1000.0),
        haze=row(1e9),
        sky=row((0.1, 0.1, 0.1)),
        eye=eye_row,
        axes=look_at(eye_row, row(target)),
        focal=row(1.4),
    )


def rows(*scenes: Scene) -> Scene:
    """The scenes as the rows of one."""
    names = vars(scenes[0])
    return replace(
        scenes[0], **{k: torch.cat([getattr(s, k) for s in scenes], dim=-1) for k in names}
    )


def straight_down(x: Tensor, y: Tensor) -> Rays:
    """Rays that look at points (x, y) of the floor from just above it, past all solids' sides."""
    origin = torch.stack([x, y, torch.full_like(x, 1e-3)])[:, None]
    down = torch.tensor([0.0, 0.0, -1.0])[:, None, None]
    return Rays(origin, down.expand_as(origin).contiguous())
