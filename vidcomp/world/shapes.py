"""The outlines of the sprites' world, as signed distances.

In units of the radius, with the centroid at the origin; all fit in a circle of `EXTENT`. The circle
has radius 1. Distances are exact along edges and mitred at corners, so that a ramp one pixel wide
across the outline covers the area of the shape.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
"""A shape's place in this tuple is its id."""

ROUND = ("circle", "ring")
"""Shapes that look the same however they are turned."""

EXTENT = 1.2
"""No shape reaches further than this many radii from its centre, at any angle."""

_RING_HOLE = 0.5
_STAR_INNER = 0.6
_CROSS_HALF_WIDTH = 0.4
_CROSS_HALF_LENGTH = math.sqrt(EXTENT**2 - _CROSS_HALF_WIDTH**2)

# A heart is a square on its tip with half discs on its upper sides. Side 1, centre of the square at
# the origin: the centroid lies higher, and the tip is what reaches furthest from it.
_HEART_RISE = (math.pi / 4 / (1 + math.pi / 4)) * (0.5 + 2 / (3 * math.pi)) * math.sqrt(0.5)
_HEART_SIDE = EXTENT / (math.sqrt(0.5) + _HEART_RISE)


def signed_distance(
    shape: str, x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Distance to the outline, negative inside; x to the right, y down."""
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
        case "heart":
            return _heart(x, y)
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


def _heart(x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Both halves at once: x is folded."""
    across, down = x.abs(), y - _HEART_RISE * _HEART_SIDE  # from the centre of the square
    square = (across + down.abs()) * math.sqrt(0.5) - _HEART_SIDE / 2
    lobe = _HEART_SIDE * math.sqrt(0.125)  # how far aside and up a half disc's centre is
    return torch.minimum(square, torch.hypot(across - lobe, down + lobe) - _HEART_SIDE / 2)
