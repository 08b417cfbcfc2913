"""The renderer: one flat, anti-aliased sprite on a dark ground, from signed distances.

Every pixel evaluates the signed distance d to the shape's outline, and its coverage is ``clamp(0.5
- d, 0, 1)`` with d in pixels: a ramp one pixel wide, whose integral is the shape's area. Tensors
only, any device, a pure function of the scene; only elementwise operations, so that a clip has the
same pixels in any batch.

Shapes, in units of the radius: all fit in a circle of `EXTENT`. Shape 0 is a disc of radius 1.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.types import Frames
from vidcomp.world.concepts import SHAPES
from vidcomp.world.truth import Truth

EXTENT = 1.2
"""No shape reaches further than this many radii from its centre, at any angle."""

BACKGROUND = 0.08
"""Grey level of the ground, in [0, 1]."""

CHUNK = 32
"""Clips rendered at a time: larger temporaries are two to three times slower on a CPU."""

_RING_HOLE = 0.5
_STAR_INNER = 0.6
_CROSS_HALF_WIDTH = 0.4
_CROSS_HALF_LENGTH = math.sqrt(EXTENT**2 - _CROSS_HALF_WIDTH**2)


@dataclass(frozen=True)
class Scene:
    """What is to be seen. Lengths are fractions of the frame's shorter side; y points down."""

    centres: Float[Tensor, "b t 2"]
    radius: Float[Tensor, " b"]
    angle_rad: Float[Tensor, " b"]  # clockwise
    rgb: Float[Tensor, "b 3"]
    shape: Int64[Tensor, " b"]  # index into SHAPES

    def __len__(self) -> int:
        return len(self.radius)

    def __getitem__(self, rows: slice) -> "Scene":
        return Scene(
            self.centres[rows],
            self.radius[rows],
            self.angle_rad[rows],
            self.rgb[rows],
            self.shape[rows],
        )


class Rendered(NamedTuple):
    frames: Frames
    truth: Truth


def render(scene: Scene, *, height: int, width: int) -> Rendered:
    """Draw `scene`; its segments are the pixels that the sprite covers by half or more."""
    chunks = [
        _alpha(scene[i : i + CHUNK], height=height, width=width)
        for i in range(0, len(scene), CHUNK)
    ]
    frames = [_paint(alpha, scene.rgb[i * CHUNK :][:CHUNK]) for i, alpha in enumerate(chunks)]
    shown = torch.cat([alpha >= 0.5 for alpha in chunks])
    truth = Truth(
        present=torch.ones(len(scene), 1, dtype=torch.bool, device=scene.radius.device),
        positions_px=(scene.centres * min(height, width) - 0.5)[:, :, None],
        segments=shown.to(torch.uint8),
    )
    return Rendered(torch.cat(frames), truth)


def _paint(alpha: Float[Tensor, "b t h w"], rgb: Float[Tensor, "b 3"]) -> Frames:
    colour = rgb[:, None, None, None, :]
    pixels = BACKGROUND + alpha[..., None] * (colour - BACKGROUND)
    return pixels.mul(255).round().clamp(0, 255).to(torch.uint8)


def _alpha(scene: Scene, *, height: int, width: int) -> Float[Tensor, "b t h w"]:
    """The share of each pixel that the sprite covers."""
    unit_px = min(height, width)
    device = scene.radius.device
    x_px = torch.arange(width, device=device) + 0.5
    y_px = torch.arange(height, device=device) + 0.5
    centre_px = rearrange(scene.centres * unit_px, "b t xy -> xy b t 1 1")
    radius_px = rearrange(scene.radius * unit_px, "b -> b 1 1 1")
    dx = (x_px - centre_px[0]) / radius_px  # b t 1 w
    dy = (y_px[:, None] - centre_px[1]) / radius_px  # b t h 1
    cos, sin = (rearrange(f(scene.angle_rad), "b -> b 1 1 1") for f in (torch.cos, torch.sin))
    x, y = cos * dx + sin * dy, cos * dy - sin * dx  # b t h w: turned back by the angle
    distance = torch.empty_like(x)
    for shape in scene.shape.unique().tolist():
        rows = scene.shape == shape
        distance[rows] = signed_distance(SHAPES[shape], x[rows], y[rows])
    return (0.5 - distance * radius_px).clamp(0, 1)


def signed_distance(
    shape: str, x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Distance to the outline in radii, negative inside. Exact along edges; corners are mitred."""
    match shape:
        case "circle":
            return torch.hypot(x, y) - 1
        case "square":
            return torch.maximum(x.abs(), y.abs()) - EXTENT * math.sqrt(0.5)
        case "triangle":  # apex up; edges at half the circumradius
            slanted = math.sqrt(0.75) * x.abs() - 0.5 * y
            return torch.maximum(y, slanted) - EXTENT / 2
        case "ring":
            rho = torch.hypot(x, y)
            return torch.maximum(rho - 1, _RING_HOLE - rho)
        case "cross":
            near = torch.minimum(x.abs(), y.abs())
            far = torch.maximum(x.abs(), y.abs())
            return torch.maximum(near - _CROSS_HALF_WIDTH, far - _CROSS_HALF_LENGTH)
        case "star":
            return _star(x, y)
        case _:
            raise ValueError(f"no shape {shape!r}; legal: {', '.join(SHAPES)}")


def _star(x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Five points, one up. Folded into a tenth of a turn, its ten edges are one line."""
    tenth = math.pi / 5
    rho = torch.hypot(x, y)
    from_tip = torch.atan2(x, -y).abs() % (2 * tenth)  # the tip that points up is at 0
    folded = torch.minimum(from_tip, 2 * tenth - from_tip)
    notch_x, notch_y = _STAR_INNER * math.cos(tenth), _STAR_INNER * math.sin(tenth)
    length = math.hypot(EXTENT - notch_x, notch_y)
    normal_x, normal_y = notch_y / length, (EXTENT - notch_x) / length
    return rho * (folded.cos() * normal_x + folded.sin() * normal_y) - EXTENT * normal_x
