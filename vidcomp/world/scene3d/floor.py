"""A crowd as lit spheres on a floor, seen from steeply above.

The picture is what is given: each sphere stands where its middle is seen at the place that the
crowd has for it. So what is apart in the picture is apart on the floor, and paths that are straight
there are so, nearly, on the floor too, because the camera has a long lens: over the height of a
square frame sizes differ by 7 %.

The unit of length is a sphere's radius. Floor, spheres and light are chosen so that the floor, its
shadows and the dark side of a sphere can be told apart by brightness alone.
"""

import math
from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vidcomp.world.crowd import Crowd
from vidcomp.world.scene3d.scene import Scene, look_at, unproject
from vidcomp.world.scene3d.scenes import FAR_BELOW
from vidcomp.world.scene3d.solids import SHAPES

FOCAL = 8.0
"""Over the frame's shorter side."""

STEEPNESS_RAD = math.radians(60)
"""How high the camera stands above the horizon."""

LAMP = (-0.5, -0.3, 0.9)
"""Where it stands, in camera distances from the middle: to the left, and somewhat behind it."""

LAMP_RADIUS = 0.12
LAMP_POWER = 0.75
AMBIENT = 0.5
FLOOR = 0.06


def set_out(crowd: Crowd, *, radius_px: float, height: int, width: int) -> Scene:
    """Frame f of clip i is row ``i * t + f``. Nearest to the camera, at the frame's lower edge, a
    sphere appears with this radius."""
    b, t, n = crowd.motion.positions.shape[:3]
    side_px = min(height, width)
    nearest = 1 + height / (2 * FOCAL * side_px * math.tan(STEEPNESS_RAD))  # over the middle
    distance = FOCAL * side_px * nearest / radius_px
    away = torch.tensor([0.0, -math.cos(STEEPNESS_RAD), math.sin(STEEPNESS_RAD)])
    middle = torch.tensor([0.0, 0.0, 1.0])
    eye, target = (_each(x, b * t) for x in (middle + distance * away, middle))
    grey = torch.ones(3)
    scene = Scene(
        shape=torch.full((n, b * t), SHAPES.index("sphere")),
        centre=torch.zeros(3, n, b * t),
        turn=repeat(torch.tensor([1.0, 0.0]), "cs -> cs n m", n=n, m=b * t),
        radius=repeat(crowd.present.float(), "b n -> n (b t)", t=t),
        albedo=repeat(crowd.rgb.square(), "b n c -> c n (b t)", t=t),  # a display shows its root
        metal=torch.zeros(n, b * t),
        lamp=_each(distance * torch.tensor([LAMP]).T, b * t),
        lamp_radius=_each(torch.tensor([LAMP_RADIUS * distance]), b * t),
        lamp_power=_each(torch.tensor([LAMP_POWER]), b * t),
        ambient=torch.full((b * t,), AMBIENT),
        floor=_each(FLOOR * grey, b * t),
        wall=_each(FLOOR * grey, b * t),
        room=torch.full((b * t,), 10 * distance),
        haze=torch.full((b * t,), torch.inf),
        sky=_each(0 * grey, b * t),
        eye=eye,
        axes=look_at(eye, target),
        focal=torch.full((b * t,), FOCAL),
    )
    x, y = rearrange(crowd.motion.positions - 0.5, "b t n xy -> xy n (b t)")
    centre = unproject(scene, x, y, level=1.0, height=height, width=width)
    centre[2] = torch.where(scene.radius > 0, centre[2], FAR_BELOW)
    return replace(scene, centre=centre)


def _each(x: Float[Tensor, "*n"], m: int) -> Float[Tensor, "*n m"]:
    """The same in every row."""
    return x[..., None].expand(*x.shape, m)
