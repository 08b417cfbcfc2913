"""How much of one solid is seen, from the rays that would meet it: cheap beside a picture."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.world.scene3d.scene import Scene, camera_rays, project
from vidcomp.world.scene3d.shading import nearest
from vidcomp.world.scene3d.solids import BOUNDS, Solids, by_shape, entry


class Pixels(NamedTuple):
    """Some pixels of the rows of a scene, perhaps beyond the frame."""

    row: Int64[Tensor, " p"]
    x: Float[Tensor, " p"]
    y: Float[Tensor, " p"]


def share_seen(scene: Scene, solid: int, *, side: int) -> Float[Tensor, " m"]:
    """The truth's visibility of one solid in a square frame."""
    own = own_pixels(scene, solid, height=side, width=side)
    part = scene[own.row]
    rays = camera_rays(part, own.x[:, None], own.y[:, None], height=side, width=side)
    inside = (own.x >= 0) & (own.x < side) & (own.y >= 0) & (own.y < side)
    seen = (nearest(part, rays).solid[:, 0] == solid) & inside
    total = own.row.bincount(minlength=len(scene))
    return own.row[seen].bincount(minlength=len(scene)) / total.clamp_min(1)


def own_pixels(scene: Scene, solid: int, *, height: int, width: int) -> Pixels:
    """Those that a solid would cover were it alone in a wider frame: up to the frame's size again
    on every side."""
    centre = scene.centre[:, solid : solid + 1]
    at = project(scene, centre, height=height, width=width)
    bound = (scene.radius * by_shape(BOUNDS, scene.shape))[solid]
    # The image of a sphere is an ellipse; this square around its centre holds it.
    seen = centre[:, 0] - scene.eye
    distance_2 = (seen * seen).sum(0)
    reach = bound * scene.focal * min(height, width) * distance_2.sqrt()
    reach = reach / (at.depth[0] * (at.depth[0] - bound)).clamp_min(1e-3)
    low_x, high_x = (at.x[0] - reach).ceil(), (at.x[0] + reach).floor()
    low_y, high_y = (at.y[0] - reach).ceil(), (at.y[0] + reach).floor()
    low_x, high_x = low_x.clamp(-width, 2 * width), high_x.clamp(-width, 2 * width)
    low_y, high_y = low_y.clamp(-height, 2 * height), high_y.clamp(-height, 2 * height)
    columns = (high_x - low_x + 1).clamp_min(0).long()
    counts = columns * (high_y - low_y + 1).clamp_min(0).long()
    row = torch.repeat_interleave(counts)
    pixel = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    x = low_x[row] + pixel % columns[row]
    y = low_y[row] + pixel // columns[row]
    rays = camera_rays(scene[row], x[:, None], y[:, None], height=height, width=width)
    own = Solids.of(scene, solid * len(scene) + row)
    hit = entry(own, rays.origin[..., 0], rays.direction[..., 0]).isfinite()
    return Pixels(row[hit], x[hit], y[hit])
