"""What a ray sees: the nearest surface, its light, and one bounce in metal.

Light is white, so it is one number: the lamps' (Lambert, falling with the square of the distance,
with soft shadows) and an ambient term that near solids shut out. A metal solid is a tinted mirror;
in it the lamps are seen as discs, which is what a highlight is. Rubber has none.

Rays meet solids in two steps. Every ray is tried against the sphere around every solid, in one
broadcast; the few pairs that pass are gathered and computed exactly. Only elementwise operations,
and the basic ones, which are exact: so pixels are equal in any batch.
"""

from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.world.scene3d.scene import Rays, Scene, dot, unit
from vidcomp.world.scene3d.solids import (
    BOUNDS,
    HALF_HEIGHTS,
    Solids,
    by_shape,
    entry,
    light_left,
    normals,
)

BOUNCE = 1e-3
"""How far a reflected ray starts above its surface, in world units."""

SHINE = ((25.0, 1.3), (3.0, 5.0))
"""A lamp of power 1 in a mirror: radiance in its middle and radius, in radii of the lamp, where it
has faded out; a bright core and a wide glow, since metal is not quite smooth."""


BACKDROP = 1.2
"""How steeply the sky brightens above the horizon, in skies. A studio is light all around and dark
overhead: flat metal tops mirror what stands 20 to 40 degrees high, the brightest part of it."""


class Surface(NamedTuple):
    """What each ray meets first. `solid` is -1 for floor, walls and sky."""

    distance: Float[Tensor, "m k"]
    solid: Int64[Tensor, "m k"]


def nearest(scene: Scene, rays: Rays) -> Surface:
    """The first solid on each ray; at an infinite distance where there is none."""
    to_centre = scene.centre[..., None] - rays.origin[:, None]  # 3 n m k
    along = dot(to_centre, rays.direction)
    reach = scene.radius * by_shape(BOUNDS, scene.shape)
    close = dot(to_centre, to_centre) - along * along < (reach * reach)[..., None]
    pairs = _pairs(close & (along > -reach[..., None]))
    distance = torch.full(along.shape, torch.inf, device=along.device)
    distance.view(-1)[pairs.all] = entry(
        Solids.of(scene, pairs.solid),
        rays.origin.flatten(1).index_select(1, pairs.ray),
        rays.direction.flatten(1).index_select(1, pairs.ray),
    )
    first, which = distance.min(0)
    return Surface(first, which.where(first.isfinite(), -1))


class _Pairs(NamedTuple):
    """Some of all ``n m k`` pairs of a solid and a ray, as places in flattened tensors."""

    all: Int64[Tensor, " p"]  # in n m k
    solid: Int64[Tensor, " p"]  # in n m
    ray: Int64[Tensor, " p"]  # in m k


def _pairs(close: Bool[Tensor, "n m k"]) -> _Pairs:
    _, m, k = close.shape
    pairs = close.flatten().nonzero()[:, 0]
    return _Pairs(pairs, pairs // k, pairs % (m * k))


def radiance(scene: Scene, rays: Rays, *, in_mirror: bool = False) -> Float[Tensor, "3 m k"]:
    """Linear colour along each ray. Rays that left a mirror see the lamps and mirrors as rubber."""
    met = nearest(scene, rays)
    far, normal, albedo = _room(scene, rays)
    distance = torch.where(met.solid < 0, far, met.distance)
    points = rays.at(distance)
    row, ray = (met.solid >= 0).nonzero().unbind(1)
    solid = met.solid[row, ray]
    normal[:, row, ray] = normals(Solids.of(scene, solid * len(scene) + row), points[:, row, ray])
    albedo[:, row, ray] = scene.albedo[:, solid, row]

    colour = albedo * _light(scene, points, normal, met.solid)
    haze = distance / (distance + scene.haze[:, None])
    up = rays.direction[2].clamp_min(0)
    dark = (1 - up * up) * (1 - up * up)
    sky = scene.sky[..., None] * ((1 + BACKDROP * up) * dark)
    colour = colour + haze * haze * (sky - colour)
    if in_mirror:
        lamps = _lamps_seen(scene, rays)
        return torch.where(met.solid < 0, colour + lamps, colour)

    shiny = scene.metal[solid, row] > 0
    row, ray, solid = row[shiny], ray[shiny], solid[shiny]
    into, n = rays.direction[:, row, ray], normal[:, row, ray]
    bounced = unit(into - 2 * dot(into, n) * n)
    start = points[:, row, ray] + BOUNCE * n
    seen = radiance(scene[row], Rays(start[..., None], bounced[..., None]), in_mirror=True)[..., 0]
    colour[:, row, ray] = scene.albedo[:, solid, row] * seen
    return colour


def _room(scene: Scene, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """Distance, normal and albedo of the floor or wall behind everything."""
    (ox, oy, oz), (dx, dy, dz) = rays.origin, rays.direction
    half = scene.room[:, None]
    to_floor = torch.where(dz < 0, -oz / dz, torch.inf)
    to_x = (half - dx.sign() * ox) / dx.abs()
    to_y = (half - dy.sign() * oy) / dy.abs()
    to_wall = torch.minimum(to_x, to_y)
    is_floor = to_floor <= to_wall
    on_x = ~is_floor & (to_x <= to_y)
    on_y = ~is_floor & (to_x > to_y)
    normal = torch.stack([-dx.sign() * on_x, -dy.sign() * on_y, is_floor.to(dx.dtype)])
    albedo = torch.where(is_floor, scene.floor[..., None], scene.wall[..., None])
    return torch.where(is_floor, to_floor, to_wall), normal, albedo


def _light(
    scene: Scene,
    points: Float[Tensor, "3 m k"],
    normal: Float[Tensor, "3 m k"],
    own: Int64[Tensor, "m k"],
) -> Float[Tensor, "m k"]:
    """Irradiance of points on surfaces, over pi."""
    to_solid = scene.centre[..., None] - points[:, None]  # 3 n m k
    distance_2 = dot(to_solid, to_solid)
    others = own != torch.arange(len(scene.shape), device=own.device)[:, None, None]  # n m k

    # A ball of radius r at distance d shuts out the share cos * (r / d)^2 of an even sky.
    size = scene.radius * by_shape(HALF_HEIGHTS, scene.shape)
    shut = dot(to_solid, normal) * (size * size)[..., None] / (distance_2 * distance_2.sqrt())
    open_ = reduce(torch.mul, (1 - (shut.clamp(0, 1) * others)).unbind(0))
    light = scene.ambient[:, None] * open_ * (0.7 + 0.3 * normal[2])

    for i in range(len(scene.lamp_power)):
        to_lamp = scene.lamp[:, i, :, None] - points
        range_2 = dot(to_lamp, to_lamp)
        to_lamp = to_lamp / range_2.sqrt()
        at_origin = dot(scene.lamp[:, i], scene.lamp[:, i])
        power = (scene.lamp_power[i] * at_origin)[:, None] / range_2
        facing = dot(to_lamp, normal).clamp_min(0)
        angle = scene.lamp_radius[i, :, None] / range_2.sqrt()
        shown = _lamp_shown(scene, to_solid, distance_2, to_lamp, angle, others)
        light = light + power * facing * shown
    return light


def _lamp_shown(
    scene: Scene,
    to_solid: Float[Tensor, "3 n m k"],
    distance_2: Float[Tensor, "n m k"],
    to_lamp: Float[Tensor, "3 m k"],
    angle: Float[Tensor, "m k"],
    others: Bool[Tensor, "n m k"],
) -> Float[Tensor, "m k"]:
    """The share of a lamp that the solids leave."""
    along = dot(to_solid, to_lamp)
    bound = (scene.radius * by_shape(BOUNDS, scene.shape))[..., None]
    reach = bound + (along + bound) * angle
    close = (distance_2 - along * along < reach * reach) & (along > -bound) & others
    pairs = _pairs(close)
    left = torch.ones(along.shape, device=along.device)
    left.view(-1)[pairs.all] = light_left(
        Solids.of(scene, pairs.solid),
        to_solid.flatten(1).index_select(1, pairs.all),
        to_lamp.flatten(1).index_select(1, pairs.ray),
        angle.flatten()[pairs.ray],
    )
    return reduce(torch.mul, left.unbind(0))


def _lamps_seen(scene: Scene, rays: Rays) -> Float[Tensor, "m k"]:
    """The lamps' own light along rays that no solid stops."""
    glow = torch.zeros_like(rays.direction[0])
    for i in range(len(scene.lamp_power)):
        to_lamp = scene.lamp[:, i, :, None] - rays.origin
        along = dot(to_lamp, rays.direction)
        range_2 = dot(to_lamp, to_lamp)
        beside = (range_2 - along * along).clamp_min(0).sqrt() / scene.lamp_radius[i, :, None]
        for middle, edge in SHINE:
            disc = (1 - beside / edge).clamp_min(0) * (along > 0)
            glow = glow + middle * scene.lamp_power[i, :, None] * disc * disc
    return glow
