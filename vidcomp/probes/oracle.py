"""The closed-form judge: reads shape, colour, size and motion back from pixels, nothing trained.

The object is what differs from the clip's median colour. A pixel's distance to that colour, over
the object's own, is its coverage: a soft mask whose sum is the area to a fraction of a pixel. Then

* shape: moments of the mask that ignore place, size and turn, against those of the world's shapes;
* colour: the mean of the object's inner pixels, in the plane where hue is an angle and saturation
  a length (brightness counts half, since blur changes it first);
* size: the radius that the shape, as read, needs for the area;
* motion: the step of the centroid from frame k-1 to k, not smoothed: the nearest direction, or
  ``still`` where the step is under half of the slowest that the world draws. Where no class is
  still, such a step is `UNREADABLE`.

Unusual: three of the four shape moments are means of z^m over the mask (z = x + iy from the
centroid). z^m is harmonic, so a round blur leaves its integral as it is: soft outlines do no harm.
This judge knows the sprites' world only, on plain ground: it refuses clips if it misreads the real
ones among them. For other data, `factors` is fitted instead.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Complex, Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import UNREADABLE, refuse_no_factors
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
_TINY = 1e-12  # instead of dividing by 0
_COMPONENTS = {"shape": 0, "colour": 3, "size": 1, "motion": 2}  # of the value of each factor


class Config(base.Config):
    """Nothing to set: the numbers come from the world and from the factors."""

    def build(self, factors: Factors) -> "Judge":
        return Judge(factors)


class Judge(base.Judge):
    """Reads the factors of the sprites' world."""

    least_right = 0.95

    def __init__(self, factors: Factors) -> None:
        refuse_no_factors(factors)
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
        invariants = torch.stack([outline.invariants for outline in self._outlines]).to(
            video.device
        )
        shapes = _nearest(found.invariants, invariants)  # b t, ids in self._shapes
        columns = [self._read_factor(factor, found, shapes) for factor in self.factors.items]
        verdicts = torch.stack(columns, dim=-1)
        return torch.where(found.visible[..., None], verdicts, UNREADABLE)

    def _read_factor(
        self, factor: Factor, found: "_Found", shapes: Int64[Tensor, "b t"]
    ) -> Int64[Tensor, "b t"]:
        prototypes = torch.tensor(
            [c.prototype for c in factor.classes], device=shapes.device
        )  # k v
        match factor.name:
            case "shape":
                return shapes
            case "colour":
                return _nearest(_opponent(found.rgb), _opponent(prototypes))
            case "size":
                areas = torch.tensor([outline.area for outline in self._outlines]).to(shapes.device)
                return _nearest((found.area / areas[shapes]).sqrt()[..., None], prototypes)
            case _:
                return _read_motion(found, prototypes)


@dataclass(frozen=True)
class _Outline:
    """A shape of radius 1."""

    area: float
    invariants: Float[Tensor, " m"]


@dataclass(frozen=True)
class _Found:
    """The object in each frame. Lengths are fractions of the frame's shorter side."""

    visible: Bool[Tensor, "b t"]
    area: Float[Tensor, "b t"]
    centroid: Complex[Tensor, "b t"]  # x + iy
    rgb: Float[Tensor, "b t 3"]
    invariants: Float[Tensor, "b t m"]


def _find(video: Video) -> _Found:
    pixels = (video.float() + 1) / 2
    height, width = pixels.shape[3:]
    background = pixels.flatten(2).median(-1).values
    distance = (pixels - rearrange(background, "b c -> b c 1 1 1")).norm(dim=1)  # b t h w
    # The object's own distance: first a mean that favours far pixels, then that of the inner ones.
    above = torch.where(distance > _MIN_CONTRAST, distance, 0)
    core = (above > _CORE * _mean(above, above)[..., None, None]).float()
    contrast = _mean(above, core).clamp_min(_MIN_CONTRAST)
    coverage = (distance / contrast[..., None, None]).clamp_max(1)
    coverage = torch.where(coverage < _MIN_COVERAGE, 0, coverage)

    unit_px = min(height, width)
    x = (torch.arange(width, device=video.device) + 0.5) / unit_px
    y = (torch.arange(height, device=video.device) + 0.5) / unit_px
    grid = torch.complex(x.expand(height, width), y[:, None].expand(height, width))
    centroid = _mean(grid, coverage)
    area = coverage.sum((2, 3)) / unit_px**2
    return _Found(
        visible=coverage.mean((2, 3)) >= _MIN_AREA,
        area=area,
        centroid=centroid,
        rgb=rearrange(_mean(pixels, core[:, None]), "b c t -> b t c"),
        invariants=_invariants(coverage, grid - centroid[..., None, None], area),
    )


def _invariants(
    coverage: Float[Tensor, "*n h w"], z: Complex[Tensor, "*n h w"], area: Float[Tensor, "*n"]
) -> Float[Tensor, "*n m"]:
    """What does not change with place, size and turn.

    A^2 / (2 pi I), with I the polar second moment: 1 for a disc, less for all else (square 3 / pi,
    triangle 0.83, ring 0.6). Then |mean of (z / r)^m| for m = 3, 4, 5, with r the radius of the
    disc of equal area: 0 for a shape of n-fold symmetry, unless n divides m.
    """
    z = z / (area / math.pi).sqrt().clamp_min(_TINY)[..., None, None]
    compactness = 0.5 / _mean(z.abs().square(), coverage).clamp_min(_TINY)  # r = 1, so A = pi
    squared = z * z
    powers = (squared * z, squared * squared, squared * squared * z)  # triangles, squares, stars
    folds = [_mean(power, coverage).abs() for power in powers]
    return torch.stack([compactness, *folds], dim=-1)


def _outline(shape: str) -> _Outline:
    """The invariants of a shape of the world, whose centroid is at the origin, on a fine grid."""
    num_points, reach = 512, 1.05 * EXTENT
    line = ((torch.arange(num_points) + 0.5) / num_points * 2 - 1) * reach
    x, y = line.expand(num_points, -1), line[:, None].expand(-1, num_points)
    inside = (signed_distance(shape, x, y) < 0).float()
    area = inside.mean() * (2 * reach) ** 2
    return _Outline(float(area), _invariants(inside, torch.complex(x, y), area))


def _read_motion(found: _Found, directions: Float[Tensor, "k 2"]) -> Int64[Tensor, "b t"]:
    step = torch.view_as_real(found.centroid.diff(dim=1))  # b t-1 2
    slowest = TRAVEL[0] / step.shape[1]
    moves = step.norm(dim=-1, keepdim=True) > slowest / 2
    length = directions.norm(dim=-1)
    along = step @ (directions / length.clamp_min(_TINY)[:, None]).T  # b t-1 k
    fits = torch.where(moves == (length > 0), along, -torch.inf)  # a moving class, or a still one
    best = fits.max(-1)
    readable = (best.values > -torch.inf) & found.visible[:, 1:] & found.visible[:, :-1]
    verdicts = torch.where(readable, best.indices, UNREADABLE)
    return torch.cat([verdicts[:, :1], verdicts], dim=1)


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


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean over a frame's pixels; 0 where all weights are."""
    return (values * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(_TINY)


def _refuse_unknown(factor: Factor) -> None:
    if _COMPONENTS.get(factor.name) != factor.value_size:
        raise UserError(
            f"the oracle cannot read {factor.name!r} with {factor.value_size} numbers a class; "
            f"it reads {', '.join(_COMPONENTS)} as the sprites' world has them; "
            "use the probe 'factors' instead, which learns"
        )
    unknown = [name for name in factor.class_names if factor.name == "shape" and name not in SHAPES]
    if unknown:
        raise UserError(
            f"the oracle knows no shape {unknown[0]!r}; it reads {', '.join(SHAPES)}; "
            "use the probe 'factors' instead, which learns"
        )
