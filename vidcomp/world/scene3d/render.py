"""Pictures of a `Scene`, in chunks that stay small.

Anti-aliasing is adaptive: one ray through the centre of every pixel, then `SUBPIXELS` for each
pixel that differs visibly from a neighbour.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vidcomp.world.scene3d.scene import Scene, camera_rays, pixel_centres
from vidcomp.world.scene3d.shading import radiance

CHUNK = 1 << 18
"""Pairs of a ray and a solid at a time: larger temporaries leave the cache of a CPU."""

EDGE = 6 / 255
"""Neighbours that differ by more, in the brightest channel, are sampled finely."""

SUBPIXELS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
"""A turned square: four different rows and columns, so edges near both axes get four levels."""


def render_frames(scene: Scene, *, height: int, width: int) -> UInt8[Tensor, "m h w 3"]:
    """The picture of each row."""
    size = rows_at_a_time(scene, height * width)
    starts = range(0, max(len(scene), 1), size)
    return torch.cat([_draw(scene[i : i + size], height=height, width=width) for i in starts])


def _draw(scene: Scene, *, height: int, width: int) -> UInt8[Tensor, "m h w 3"]:
    x, y = pixel_centres(len(scene), height, width, scene.room.device)
    rays = camera_rays(scene, x, y, height=height, width=width)
    shown = tone(radiance(scene, rays))
    row, pixel = _edges(shown.sqrt().unflatten(2, (height, width))).nonzero().unbind(1)
    offsets = torch.tensor(SUBPIXELS, device=x.device)
    for some in torch.arange(len(row), device=row.device).split(
        rows_at_a_time(scene, len(offsets))
    ):
        r, p = row[some], pixel[some]
        at = (torch.stack([x[r, p], y[r, p]], dim=1)[:, None] + offsets).flatten(0, 1)  # 4p xy
        fine = scene[r.repeat_interleave(len(offsets))]
        rays = camera_rays(fine, at[:, :1], at[:, 1:], height=height, width=width)
        parts = tone(radiance(fine, rays)).unflatten(1, (-1, len(offsets)))[..., 0].unbind(2)
        shown[:, r, p] = sum(parts[1:], parts[0]) / len(offsets)
    frames = shown.sqrt().mul(255).round().to(torch.uint8)
    return frames.unflatten(2, (height, width)).permute(1, 2, 3, 0).contiguous()


def rows_at_a_time(scene: Scene, rays_in_row: int) -> int:
    return max(1, CHUNK // (rays_in_row * len(scene.shape)))


def tone(radiance: Float[Tensor, "3 m k"]) -> Float[Tensor, "3 m k"]:
    """Display light in [0, 1): faithful when dark, rolled off towards white. The square root that
    follows is the display's gamma."""
    return radiance / (1 + radiance * radiance).sqrt()


def _edges(shown: Float[Tensor, "3 m h w"]) -> Bool[Tensor, "m hw"]:
    """Pixels that differ from one beside, above or below."""
    across = ((shown[..., 1:] - shown[..., :-1]).abs() > EDGE).any(0)
    down = ((shown[:, :, 1:] - shown[:, :, :-1]).abs() > EDGE).any(0)
    edges = torch.zeros(shown.shape[1:], dtype=torch.bool, device=shown.device)
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return edges.flatten(1)
