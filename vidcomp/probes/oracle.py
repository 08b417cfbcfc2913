"""The closed-form judge: reads shape, colour, size and motion back from pixels, nothing trained.

The object is what differs from the clip's median colour. A pixel's distance to that colour, over
the object's own, is its coverage: a soft mask whose sum is the area, to a fraction of a pixel. Then

* shape: moments of the mask that ignore place, size and turn, against those of the world's shapes;
* colour: the mean of the object's inner pixels, in the plane in which hue is an angle and saturation
  a length (brightness counts half, since blur changes it first);
* size: the radius that the shape, as read, needs for the area;
* motion: the step of the centroid from frame k-1 to k, no smoothing: the direction nearest in angle,
  or ``still`` where the step is under half of the slowest that the world draws. Where no class is
  still, such a step is `UNREADABLE`.

Unusual: three of the four shape moments are means of z^m over the mask (z = x + iy from the
centroid). z^m is harmonic, so a round blur leaves its integral as it is: a soft outline does no harm.
This judge knows the sprites' world only; for other data, `factors` is fitted instead.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import UNREADABLE
from vidcomp.types import Video, check_video
from vidcomp.world.concepts import SHAPES
from vidcomp.world.factors import Factor, Factors
from vidcomp.world.scenes import NUISANCE_SHAPES, TRAVEL, check_frames
from vidcomp.world.sprites import EXTENT, signed_distance

_MIN_CONTRAST = 0.15  # of RGB in [0, 1], Euclidean: less is not an object
_MIN_AREA = 0.01  # of the frame
_MIN_COVERAGE = 0.25  # fainter pixels are noise: moments would weigh them by their distance
_CORE = 0.75  # of the object's contrast: inner pixels
_BRIGHTNESS_WEIGHT = 0.5
_CLIPS_AT_A_TIME = 64
_COMPONENTS = {"shape": 0, "colour": 3, "size": 1, "motion": 2}  # of the value of each factor


class Config(base.Config):
    """Nothing to set: the numbers come from the world and from the factors."""

    def build(self, factors: Factors) -> "Judge":
        return Judge(factors)


class Judge(base.Judge):
    """Reads the factors of the sprites' world."""

    def __init__(self, factors: Factors) -> None:
        for factor in factors.items:
            _refuse_unknown(factor)
        self.factors = factors
        named = [factor.class_names for factor in factors.items if factor.name == "shape"]
        # Where shape is not controlled, the world draws one of these, and size depends on it.
        self._shapes = named[0] if named else NUISANCE_SHAPES
        self._outlines = [_outline(name) for name in self._shapes]

    @torch.no_grad()
    def read(self, video: Video) -> Int64[Tensor, "b t f"]:
        """`UNREADABLE` where no object is found, or where nothing moves and no class is still."""
        check_video(video)
        check_frames(self.factors, video.shape[2])
        return torch.cat([self._read_chunk(chunk) for chunk in video.split(_CLIPS_AT_A_TIME)])

    def _read_chunk(self, video: Video) -> Int64[Tensor, "b t f"]:
        found = _find(video)
        invariants = torch.stack([outline.invariants for outline in self._outlines]).to(video)
        shapes = _nearest(found.invariants, invariants)  # b t
        columns: list[Tensor] = []
        for factor in self.factors.items:
            prototypes = torch.tensor([c.prototype for c in factor.classes]).to(video)  # k v
            match factor.name:
                case "shape":
                    column = shapes
                case "colour":
                    column = _nearest(_opponent(found.rgb), _opponent(prototypes))
                case "size":
                    areas = torch.tensor([outline.area for outline in self._outlines]).to(video)
                    radius = (found.area / areas[shapes]).sqrt()
                    column = _nearest(radius[..., None], prototypes)
                case _:
                    column = _read_motion(found.centroid, prototypes)
                    visible = found.visible[:, 1:] & found.visible[:, :-1]
                    column = torch.where(visible, column, UNREADABLE)
                    columns.append(torch.cat([column[:, :1], column], dim=1))
                    continue
            columns.append(torch.where(found.visible, column, UNREADABLE))
        return torch.stack(columns, dim=-1)


@dataclass(frozen=True)
class _Outline:
    """A shape of radius 1."""

    area: float
    invariants: Float[Tensor, " m"]


@dataclass(frozen=True)
class _Found:
    """The object in each frame. Lengths are fractions of the frame's shorter side, as the world's are."""

    visible: Bool[Tensor, "b t"]
    area: Float[Tensor, "b t"]
    centroid: Float[Tensor, "b t 2"]  # x, y
    rgb: Float[Tensor, "b t 3"]
    invariants: Float[Tensor, "b t m"]


def _find(video: Video) -> _Found:
    pixels = (video.float() + 1) / 2
    height, width = pixels.shape[3:]
    background = pixels.flatten(2).median(-1).values
    distance = (pixels - rearrange(background, "b c -> b c 1 1 1")).norm(dim=1)  # b t h w
    # The object's own distance: first a mean that favours the far pixels, then that of the inner ones.
    above = torch.where(distance > _MIN_CONTRAST, distance, 0)
    contrast = _ratio(above.square().sum((2, 3)), above.sum((2, 3)))
    core = (above > _CORE * contrast[..., None, None]) & (above > 0)
    contrast = _ratio((above * core).sum((2, 3)), core.sum((2, 3))).clamp_min(_MIN_CONTRAST)
    coverage = (distance / contrast[..., None, None]).clamp_max(1)
    coverage = torch.where(coverage < _MIN_COVERAGE, 0, coverage)

    unit_px = min(height, width)
    x = (torch.arange(width, device=video.device) + 0.5) / unit_px
    y = (torch.arange(height, device=video.device) + 0.5) / unit_px
    mass = coverage.sum((2, 3))
    centroid = torch.stack(
        [
            _ratio((coverage * x).sum((2, 3)), mass),
            _ratio((coverage * y[:, None]).sum((2, 3)), mass),
        ],
        -1,
    )
    dx = x - centroid[..., :1]  # b t w
    dy = y - centroid[..., 1:]  # b t h
    z = torch.complex(dx[:, :, None].expand_as(coverage), dy[..., None].expand_as(coverage))
    area = mass / unit_px**2
    return _Found(
        visible=mass >= _MIN_AREA * height * width,
        area=area,
        centroid=centroid,
        rgb=_ratio(
            torch.einsum("bcthw,bthw->btc", pixels, core.float()), core.sum((2, 3))[..., None]
        ),
        invariants=_invariants(coverage, z, area),
    )


def _invariants(
    coverage: Float[Tensor, "*n h w"], z: Tensor, area: Float[Tensor, "*n"]
) -> Float[Tensor, "*n m"]:
    """What does not change with place, size and turn.

    A^2 / (2 pi I), with I the polar second moment: 1 for a disc, less for all else (square 3 / pi, triangle
    0.83, ring 0.6). Then the mean of (z / r)^m in absolute value for m = 3, 4, 5, with r the radius of the
    disc of equal area: for a shape that looks the same after an m-th of a turn, all but its own m give 0.
    """
    mass = coverage.sum((-2, -1))
    inertia = _ratio((coverage * z.abs().square()).sum((-2, -1)), mass) * area
    z = z / (area / math.pi).sqrt().clamp_min(1e-6)[..., None, None]
    squared = z * z
    powers = (squared * z, squared * squared, squared * squared * z)  # triangles, squares, stars
    folds = [_ratio((coverage * power).sum((-2, -1)).abs(), mass) for power in powers]
    return torch.stack([_ratio(area.square(), 2 * math.pi * inertia), *folds], dim=-1)


def _outline(shape: str) -> _Outline:
    """The invariants of a shape of the world, integrated over a fine grid."""
    side = 512
    grid = ((torch.arange(side) + 0.5) / side * 2 - 1) * (1.05 * EXTENT)
    x, y = grid.expand(side, side), grid[:, None].expand(side, side)
    inside = (signed_distance(shape, x, y) < 0).float()
    area = inside.mean() * (2 * 1.05 * EXTENT) ** 2
    # Every shape of the world has its centroid at the origin.
    return _Outline(float(area), _invariants(inside, torch.complex(x, y), area))


def _read_motion(
    centroid: Float[Tensor, "b t 2"], directions: Float[Tensor, "k 2"]
) -> Int64[Tensor, "b t-1"]:
    step = centroid[:, 1:] - centroid[:, :-1]
    moves = step.norm(dim=-1, keepdim=True) > 0.5 * TRAVEL[0] / (centroid.shape[1] - 1)
    length = directions.norm(dim=-1)
    along = step @ (directions / length.clamp_min(1e-6)[:, None]).T  # b t-1 k
    fits = torch.where(moves == (length > 0), along, -torch.inf)  # a moving class, or a still one
    best = fits.max(-1)
    return torch.where(best.values > -torch.inf, best.indices, UNREADABLE)


def _opponent(rgb: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Hue as an angle and saturation as a length in the first two axes, brightness in the third."""
    red, green, blue = rgb.unbind(-1)
    across = red - (green + blue) / 2
    along = math.sqrt(0.75) * (green - blue)
    return torch.stack([across, along, _BRIGHTNESS_WEIGHT * rgb.mean(-1)], dim=-1)


def _nearest(
    points: Float[Tensor, "b t m"], prototypes: Float[Tensor, "k m"]
) -> Int64[Tensor, "b t"]:
    return (points[..., None, :] - prototypes).norm(dim=-1).argmin(-1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 for 0 / 0."""
    return a / b.clamp_min(1e-12)


def _refuse_unknown(factor: Factor) -> None:
    readable = ", ".join(_COMPONENTS)
    if _COMPONENTS.get(factor.name) != factor.value_size:
        raise UserError(
            f"the oracle cannot read the factor {factor.name!r} with values of {factor.value_size} "
            f"components; it reads {readable} as the sprites' world defines them; fit probes.factors instead"
        )
    unknown = [name for name in factor.class_names if factor.name == "shape" and name not in SHAPES]
    if unknown:
        raise UserError(
            f"the oracle knows no shape {unknown[0]!r}; it reads {', '.join(SHAPES)}; fit probes.factors instead"
        )
