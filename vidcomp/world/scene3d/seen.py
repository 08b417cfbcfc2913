"""What is true of a scene: where solids are, which pixels show them, how much of each is seen.

Segments are what the rays through the centres of the pixels meet.
"""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vidcomp.world.scene3d.render import rows_at_a_time
from vidcomp.world.scene3d.scene import Scene, camera_rays, pixel_centres, project
from vidcomp.world.scene3d.scenes import Drawn
from vidcomp.world.scene3d.shading import nearest
from vidcomp.world.scene3d.sight import own_pixels
from vidcomp.world.truth import Truth


def truth_of(drawn: Drawn, *, height: int, width: int) -> Truth:
    """Of clips. A velocity in pixels is the way since the frame before (in the first frame: to the
    next), the camera's own motion included."""
    scene, t = drawn.scene, drawn.motion.positions.shape[1]
    at = project(scene, scene.centre, height=height, width=width)
    pixels = rearrange(torch.stack([at.x, at.y]), "xy n (b t) -> b t n xy", t=t)
    later = torch.arange(t, device=pixels.device).clamp(1, t - 1)  # in a single frame 0
    way = pixels[:, later] - pixels[:, (later - 1).clamp_min(0)]
    shown = segments(scene, height=height, width=width)
    share = visibility(scene, shown)
    there = drawn.present[:, None, :, None]
    return Truth(
        present=drawn.present,
        positions_px=torch.where(there, pixels, 0),
        velocities_px=torch.where(there, way, 0),
        positions=torch.where(there, rearrange(scene.centre, "c n (b t) -> b t n c", t=t), 0),
        segments=rearrange(shown, "(b t) h w -> b t h w", t=t),
        visibility=rearrange(share, "n (b t) -> b t n", t=t),
        contacts=drawn.motion.contacts,
    )


def segments(scene: Scene, *, height: int, width: int) -> UInt8[Tensor, "m h w"]:
    """1 + the solid at the centre of each pixel, 0 for the room."""
    size = rows_at_a_time(scene, height * width)
    parts: list[Tensor] = []
    for i in range(0, max(len(scene), 1), size):
        part = scene[i : i + size]
        x, y = pixel_centres(len(part), height, width, scene.room.device)
        parts.append(nearest(part, camera_rays(part, x, y, height=height, width=width)).solid)
    return (torch.cat(parts) + 1).to(torch.uint8).unflatten(1, (height, width))


def visibility(scene: Scene, segments: UInt8[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """The share of each solid's own pixels that the frame shows; pixels beyond the frame, up to
    its size again on every side, are its own too."""
    height, width = segments.shape[1:]
    counts: list[Tensor] = []
    for solid in range(len(scene.shape)):
        own = own_pixels(scene, solid, height=height, width=width)
        seen = (segments == solid + 1).sum((1, 2))
        counts.append(seen / own.row.bincount(minlength=len(scene)).clamp_min(1))
    return torch.stack(counts)
