"""Spheres, cubes and cylinders that stand on the floor, in closed form: where a ray enters one, its
normal, and how far a ray to a lamp passes it by.

All fit in a disc of `radius` seen from above: it is also the disc that collides. A cube's half edge
is therefore radius / sqrt(2), as in CLEVR (arXiv:1612.06890).

Unusual: shadows compare silhouettes. Seen along the ray to the lamp, a sphere is a disc, a cube a
hexagon (the sum of three segments), a cylinder the sum of a segment and an ellipse; the signed
distance to that outline, beside the lamp's own disc, is what is in shadow: one smooth penumbra
instead of many rays.

Everything here takes `p` independent pairs of a solid and a ray: the caller has sorted out which
pairs come near each other. Cubes have softened edges, but only in their normals.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.world.scene3d.scene import Scene, dot, unit

SHAPES = ("cube", "sphere", "cylinder")
"""Shape ids, in this order."""

HALF_HEIGHTS = (math.sqrt(0.5), 1.0, 1.0)
"""In radii, by shape: also how high the centre of a standing solid is."""

BOUNDS = (math.sqrt(1.5), 1.0, math.sqrt(2.0))
"""The radius of the sphere around each shape, in radii."""

BEVEL = 0.06
"""Width of the softened edges, in radii."""

_CUBE, _SPHERE, _CYLINDER = range(3)
_TINY = 1e-12


@dataclass(frozen=True)
class Solids:
    """One solid for each pair."""

    shape: Int64[Tensor, " p"]
    centre: Float[Tensor, "3 p"]
    turn: Float[Tensor, "2 p"]
    radius: Float[Tensor, " p"]

    @classmethod
    def of(cls, scene: Scene, which: Int64[Tensor, " p"]) -> "Solids":
        """Solid i of row j is number ``i * m + j``."""
        return Solids(
            scene.shape.flatten(),
            scene.centre.flatten(1),
            scene.turn.flatten(1),
            scene.radius.flatten(),
        )[which]

    def __getitem__(self, which: Int64[Tensor, " p"]) -> "Solids":
        return Solids(
            self.shape[which],
            self.centre.index_select(1, which),
            self.turn.index_select(1, which),
            self.radius[which],
        )

    def local(self, vector: Float[Tensor, "3 p"]) -> Float[Tensor, "3 p"]:
        """A world vector along the solid's own axes."""
        (cos, sin), (x, y, z) = self.turn, vector
        return torch.stack([cos * x + sin * y, cos * y - sin * x, z])

    def world(self, vector: Float[Tensor, "3 p"]) -> Float[Tensor, "3 p"]:
        """The inverse of `local`."""
        (cos, sin), (x, y, z) = self.turn, vector
        return torch.stack([cos * x - sin * y, sin * x + cos * y, z])


def by_shape(table: tuple[float, ...], shape: Int64[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """A number for each shape."""
    return torch.tensor(table, device=shape.device)[shape]


def entry(
    solids: Solids, origin: Float[Tensor, "3 p"], direction: Float[Tensor, "3 p"]
) -> Float[Tensor, " p"]:
    """Distance along each ray to its solid; infinite where it misses or starts inside."""
    out = torch.empty_like(solids.radius)
    for shape, spans in enumerate((_cube_spans, _sphere_span, _cylinder_spans)):
        pairs = (solids.shape == shape).nonzero()[:, 0]
        solid = solids[pairs]
        start = solid.local(origin.index_select(1, pairs) - solid.centre)
        step = solid.local(direction.index_select(1, pairs))
        near, far = spans(start, step, solid.radius)
        out[pairs] = torch.where((near <= far) & (near > 0), near, torch.inf)
    return out


Span = tuple[Tensor, Tensor]


def _slab(start: Tensor, step: Tensor, half: Tensor) -> Span:
    """Where rays are between two parallel planes."""
    middle, reach = -start / step, (half / step).abs()
    return middle - reach, middle + reach


def _cube_spans(start: Tensor, step: Tensor, radius: Tensor) -> Span:
    near, far = _slab(start, step, radius * HALF_HEIGHTS[_CUBE])
    return near.amax(0), far.amin(0)


def _sphere_span(start: Tensor, step: Tensor, radius: Tensor) -> Span:
    middle = -dot(start, step)
    # From the point nearest to the centre: exact where b^2 - 4ac cancels.
    foot = start + middle * step
    reach = (radius * radius - dot(foot, foot)).sqrt()  # NaN, which is no hit, where it misses
    return middle - reach, middle + reach


def _cylinder_spans(start: Tensor, step: Tensor, radius: Tensor) -> Span:
    (x, y, z), (dx, dy, dz) = start, step
    low, high = _slab(z, dz, radius * HALF_HEIGHTS[_CYLINDER])
    flat = dx * dx + dy * dy + _TINY
    middle = -(x * dx + y * dy) / flat
    foot_x, foot_y = x + middle * dx, y + middle * dy
    reach = ((radius * radius - foot_x * foot_x - foot_y * foot_y) / flat).sqrt()
    return torch.maximum(low, middle - reach), torch.minimum(high, middle + reach)


def normals(solids: Solids, points: Float[Tensor, "3 p"]) -> Float[Tensor, "3 p"]:
    """Outward unit normals at points of the surface."""
    x, y, z = solids.local(points - solids.centre)
    square = solids.shape == _CUBE
    edge = solids.radius * torch.where(square, HALF_HEIGHTS[_CUBE], 1.0) - solids.radius * BEVEL
    rho = (x * x + y * y + _TINY).sqrt()
    out = (rho - edge).clamp_min(0) / rho  # of a cylinder's side
    bevelled = torch.stack(
        [
            torch.where(square, x.sign() * (x.abs() - edge).clamp_min(0), out * x),
            torch.where(square, y.sign() * (y.abs() - edge).clamp_min(0), out * y),
            z.sign() * (z.abs() - edge).clamp_min(0),
        ]
    )
    round_ = torch.stack([x, y, z])
    return solids.world(unit(torch.where(solids.shape == _SPHERE, round_, bevelled)))


def light_left(
    solids: Solids,
    to_solid: Float[Tensor, "3 p"],
    to_lamp: Float[Tensor, "3 p"],
    lamp_angle: Float[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """The share of the lamp's disc that the solid leaves to a point, 0 to 1.

    `to_solid` leads from the point to the solid's centre, `to_lamp` has length 1, and `lamp_angle`
    is the radius of the lamp as seen from the point, in radians.
    """
    beside = _distance_beside(solids, to_solid, to_lamp)
    (x, y, z), (lx, ly, lz) = to_solid, to_lamp
    # The ray is nearest to a ball where it passes the centre, else where it passes the axis, or
    # leaves the solid's height.
    top = z + solids.radius * by_shape(HALF_HEIGHTS, solids.shape)
    passing = (x * lx + y * ly) / (lx * lx + ly * ly + _TINY)
    beside_axis = torch.minimum(passing, top / lz.clamp_min(_TINY))
    way = torch.where(solids.shape == _SPHERE, dot(to_solid, to_lamp), beside_axis)
    lamp_disc = lamp_angle * way.clamp_min(0) + 1e-3 * solids.radius
    shown = (0.5 + 0.5 * beside / lamp_disc).clamp(0, 1)
    return torch.where(way > 0, shown * shown * (3 - 2 * shown), 1.0)


def _distance_beside(
    solids: Solids, to_solid: Float[Tensor, "3 p"], to_lamp: Float[Tensor, "3 p"]
) -> Float[Tensor, " p"]:
    """Signed distance from the ray to the solid's outline seen along the ray; negative inside."""
    (x, y, z), (lx, ly, lz) = to_solid, to_lamp
    flat = (lx * lx + ly * ly + _TINY).sqrt()
    u = (lx * y - ly * x) / flat  # across, level
    v = z * flat - lz * (lx * x + ly * y) / flat  # across, upwards
    out = (u * u + v * v).sqrt() - solids.radius  # a sphere's
    cubes: Bool[Tensor, " p"] = solids.shape == _CUBE
    cylinders = solids.shape == _CYLINDER
    pairs = cylinders.nonzero()[:, 0]
    out[pairs] = _beside_cylinder(u[pairs], v[pairs], flat[pairs], lz[pairs], solids.radius[pairs])
    pairs = cubes.nonzero()[:, 0]
    ahead = solids[pairs].local(to_lamp[:, pairs])
    out[pairs] = _beside_cube(u[pairs], v[pairs], flat[pairs], ahead, solids.radius[pairs])
    return out


def _beside_cylinder(u: Tensor, v: Tensor, flat: Tensor, lz: Tensor, radius: Tensor) -> Tensor:
    """The outline is an ellipse drawn along a segment; its distance is good to first order."""
    v = (v.abs() - radius * HALF_HEIGHTS[_CYLINDER] * flat).clamp_min(0)
    a, b = radius, radius * lz.abs() + _TINY
    level = (u * u / (a * a) + v * v / (b * b) + _TINY).sqrt()
    slope = (u * u / (a * a * a * a) + v * v / (b * b * b * b) + _TINY).sqrt()
    return level * (level - 1) / slope


def _beside_cube(
    u: Tensor, v: Tensor, flat: Tensor, ahead: Float[Tensor, "3 p"], radius: Tensor
) -> Tensor:
    """The outline is the sum of the three edges' segments: beyond the farthest of three strips."""
    # The solid's x and y axes in (u, v): level part, and minus what points along the ray.
    x_axis = (-ahead[1] / flat, -ahead[2] * ahead[0] / flat)
    y_axis = (ahead[0] / flat, -ahead[2] * ahead[1] / flat)
    z_axis = (torch.zeros_like(flat), flat)
    axes, half = (x_axis, y_axis, z_axis), radius * HALF_HEIGHTS[_CUBE]
    strips: list[Tensor] = []
    for a, b in axes:
        length = (a * a + b * b + 1e-6).sqrt()
        width = sum((a * d - b * c).abs() for c, d in axes)
        strips.append(((a * v - b * u).abs() - half * width) / length)
    return torch.stack(strips).amax(0)
