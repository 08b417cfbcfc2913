"""Patterns: the textures of objects, and what is behind them.

A texture is a pattern in the plane of the object, in radii, so it moves and turns with it; where
the pattern is 1 the colour is darker. A background stands still and mixes two dark tones.

Edges are ramps one pixel wide, as outlines are. Elementwise operations only: a clip has the same
pixels in any batch.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TEXTURES = ("plain", "stripes", "checks", "dots")
"""A texture's place in this tuple is its id."""

BACKGROUNDS = ("dark", "gradient", "tiles", "clouds")
"""A background's place in this tuple is its id."""

DARKENING = 0.5
"""How much of an object's colour the pattern of its texture takes away."""

GROUND = 0.08
"""Grey level of the plain background, in [0, 1]."""

TONES = (0.04, 0.4)
"""Range of each of red, green and blue in the tones of other backgrounds: darker than objects."""

NUM_DRAWS = 24
"""Uniform numbers that a background is made from."""

_STRIPE = 0.4  # all in radii
_CHECK = 0.55
_DOT_SPACING = 0.75
_DOT_RADIUS = 0.25
_TILE = (0.12, 0.22)  # side of the background's checks, as a fraction of the frame
_WAVES = (1.0, 3.5)  # range of the noise's frequencies, per frame
_NOISE_CONTRAST = 2.0


@dataclass(frozen=True)
class Background:
    """`draws` decide everything within a `kind`: tones, directions, sizes."""

    kind: Int64[Tensor, " b"]
    draws: Float[Tensor, "b 24"]

    def __getitem__(self, rows: "Tensor | slice") -> "Background":
        return Background(self.kind[rows], self.draws[rows])


def pattern(
    texture: str, x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], pixel: Float[Tensor, "*m"]
) -> Float[Tensor, "*n"]:
    """Where the colour is darker, in [0, 1]; `pixel` is the size of one in the unit of x and y."""
    match texture:
        case "plain":
            return torch.zeros_like(x)
        case "stripes":
            return _bands(y, _STRIPE, pixel)
        case "checks":
            columns, rows = _bands(x, _CHECK, pixel), _bands(y, _CHECK, pixel)
            return columns + rows - 2 * columns * rows  # one of the two, not both
        case "dots":
            x, y = (_DOT_SPACING * _from_whole(z / _DOT_SPACING) for z in (x, y))
            return (0.5 - (torch.hypot(x, y) - _DOT_RADIUS) / pixel).clamp(0, 1)
        case _:
            raise ValueError(f"no texture {texture!r}; legal: {', '.join(TEXTURES)}")


def paint_background(
    background: Background | None, *, clips: int, height: int, width: int, device: torch.device
) -> Float[Tensor, "b h w 3"]:
    """RGB in [0, 1]; None is plain everywhere."""
    painted = torch.full((clips, height, width, 3), GROUND, device=device)
    if background is None:
        return painted
    unit_px = min(height, width)
    x = (torch.arange(width, device=device) + 0.5).expand(height, width) / unit_px
    y = (torch.arange(height, device=device) + 0.5)[:, None].expand(height, width) / unit_px
    for kind in background.kind.unique().tolist():
        if BACKGROUNDS[kind] == "dark":
            continue
        rows = background.kind == kind
        draws = background.draws[rows][:, :, None, None]
        low, high = (TONES[0] + (TONES[1] - TONES[0]) * draws[:, k : k + 3] for k in (0, 3))
        mix = _mix(BACKGROUNDS[kind], draws[:, 6:], x, y, pixel=1 / unit_px)[:, None]
        painted[rows] = (low + mix * (high - low)).movedim(1, -1)
    return painted


def _mix(
    kind: str,
    draws: Float[Tensor, "b u 1 1"],
    x: Float[Tensor, "h w"],
    y: Float[Tensor, "h w"],
    *,
    pixel: float,
) -> Float[Tensor, "b h w"]:
    """How much of the second tone each pixel has."""
    first, second, third = draws[:, 0], draws[:, 1], draws[:, 2]
    match kind:
        case "gradient":  # 0 to 1 across the middle of the frame
            cos, sin = (2 * math.pi * first).cos(), (2 * math.pi * first).sin()
            return (cos * (x - 0.5) + sin * (y - 0.5) + 0.5).clamp(0, 1)
        case "tiles":
            side = _TILE[0] + (_TILE[1] - _TILE[0]) * first
            columns = _bands(x + second, side, pixel)
            rows = _bands(y + third, side, pixel)
            return columns + rows - 2 * columns * rows
        case "clouds":  # waves of drawn directions, lengths and phases
            total = torch.zeros_like(first * x)
            waves = draws[:, : draws.shape[1] // 3 * 3].unflatten(1, (-1, 3)).unbind(1)
            for wave in waves:
                heading = 2 * math.pi * wave[:, 0]
                frequency = 2 * math.pi * (_WAVES[0] + (_WAVES[1] - _WAVES[0]) * wave[:, 1])
                along = heading.cos() * x + heading.sin() * y
                total = total + (frequency * along + 2 * math.pi * wave[:, 2]).cos()
            return (0.5 + _NOISE_CONTRAST * total / (2 * len(waves))).clamp(0, 1)
        case _:
            raise ValueError(f"no background {kind!r}; legal: {', '.join(BACKGROUNDS)}")


def _bands(
    z: Float[Tensor, "*n"], side: "Tensor | float", pixel: "Tensor | float"
) -> Float[Tensor, "*n"]:
    """1 in every second band of width `side`; the edge of a band is at 0."""
    from_middle = _from_whole(z / (2 * side) - 0.25).abs() * 2 * side
    return (0.5 - (from_middle - side / 2) / pixel).clamp(0, 1)


def _from_whole(z: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The signed distance to the nearest whole number, in [-0.5, 0.5]."""
    return z - z.round()
