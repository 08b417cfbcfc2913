"""What a ray caster is given: solids, lamps, room and camera, one row for each frame.

Every tensor of a `Scene` has the row `m` as its last axis, so rows are gathered alike for a whole
frame of rays and for one stray ray: ``scene[rows]``. Vectors have their component as first axis.

World units; x, y span the floor and z points up. Pixels: the centre of pixel (row i, column j) is
x = j, y = i.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """`n` solids and `l` lamps. A solid of radius 0 is not there.

    `focal` is the focal length over the frame's shorter side. The lamps are discs that shine on all
    sides and are seen in mirrors only. The room is square around the origin, its walls without end.
    """

    shape: Int64[Tensor, "n m"]  # index into SHAPES
    centre: Float[Tensor, "3 n m"]
    turn: Float[Tensor, "2 n m"]  # cosine and sine of the angle about the vertical
    radius: Float[Tensor, "n m"]
    albedo: Float[Tensor, "3 n m"]
    metal: Float[Tensor, "n m"]  # 1: a tinted mirror, 0: rubber
    lamp: Float[Tensor, "3 l m"]
    lamp_radius: Float[Tensor, "l m"]
    lamp_power: Float[Tensor, "l m"]  # irradiance at the origin, when facing the lamp
    ambient: Float[Tensor, " m"]
    floor: Float[Tensor, "3 m"]
    wall: Float[Tensor, "3 m"]
    room: Float[Tensor, " m"]  # half the length of a wall
    haze: Float[Tensor, " m"]  # distance at which a quarter of the light is the sky's
    sky: Float[Tensor, "3 m"]
    eye: Float[Tensor, "3 m"]
    axes: Float[Tensor, "3 3 m"]  # right, down and forward of the camera, each a unit vector
    focal: Float[Tensor, " m"]

    def __len__(self) -> int:
        return self.room.shape[0]

    def __getitem__(self, rows: "Tensor | slice") -> "Scene":
        if isinstance(rows, slice):
            return Scene(**{f.name: getattr(self, f.name)[..., rows] for f in fields(self)})
        return Scene(**{f.name: getattr(self, f.name).index_select(-1, rows) for f in fields(self)})

    def to(self, device: torch.device | str) -> "Scene":
        return Scene(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Rays(NamedTuple):
    """`k` rays in each row; directions have length 1."""

    origin: Float[Tensor, "3 m k"]
    direction: Float[Tensor, "3 m k"]

    def at(self, distance: Float[Tensor, "m k"]) -> Float[Tensor, "3 m k"]:
        return self.origin + distance * self.direction


class Projected(NamedTuple):
    """Where points are seen. `depth` is along the camera's forward axis."""

    x: Float[Tensor, "n m"]
    y: Float[Tensor, "n m"]
    depth: Float[Tensor, "n m"]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the first axis, in a fixed order: a reduction's order may depend on the batch."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Tensor) -> Tensor:
    return a / dot(a, a).sqrt()


def look_at(eye: Float[Tensor, "3 m"], target: Float[Tensor, "3 m"]) -> Float[Tensor, "3 3 m"]:
    """The axes of an upright camera at `eye` that has `target` in the middle of its frame."""
    forward = unit(target - eye)
    flat = torch.stack([forward[1], -forward[0], torch.zeros_like(forward[0])])
    right = unit(flat)
    return torch.stack([right, torch.linalg.cross(forward, right, dim=0), forward])


def pixel_centres(m: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The positions of all pixels, m k each."""
    pixel = torch.arange(height * width, device=device).expand(m, -1)
    return (pixel % width).float(), (pixel // width).float()


def camera_rays(
    scene: Scene, x: Float[Tensor, "m k"], y: Float[Tensor, "m k"], *, height: int, width: int
) -> Rays:
    """The rays through these pixel positions."""
    scale = 1 / (scene.focal * min(height, width))[:, None]
    right, down, forward = scene.axes[..., None]
    across = (x - (width - 1) / 2) * scale
    below = (y - (height - 1) / 2) * scale
    direction = unit(forward + across * right + below * down)
    return Rays(scene.eye[..., None].expand_as(direction), direction)


def project(scene: Scene, points: Float[Tensor, "3 n m"], *, height: int, width: int) -> Projected:
    """The inverse of `camera_rays`, up to depth."""
    right, down, forward = scene.axes[:, :, None]
    seen = points - scene.eye[:, None]
    depth = dot(seen, forward)
    scale = scene.focal * min(height, width) / depth
    return Projected(
        dot(seen, right) * scale + (width - 1) / 2,
        dot(seen, down) * scale + (height - 1) / 2,
        depth,
    )


def unproject(
    scene: Scene,
    x: Float[Tensor, "n m"],
    y: Float[Tensor, "n m"],
    *,
    level: float,
    height: int,
    width: int,
) -> Float[Tensor, "3 n m"]:
    """The points that are seen at these pixel positions and are this high above the floor."""
    rays = camera_rays(scene, x.T, y.T, height=height, width=width)
    return rays.at((level - rays.origin[2]) / rays.direction[2]).transpose(1, 2)
