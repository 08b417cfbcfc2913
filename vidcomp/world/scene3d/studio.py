"""Light and camera of a style, drawn for each clip: nuisance, the same for every row of factors."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.scene3d.scene import look_at
from vidcomp.world.scene3d.styles import Style

POWER = (0.85, 1.15)
"""The range of each lamp's strength, over that of its style."""


def draw_lamps(style: Style, rng: Rng, num_frames: int) -> dict[str, Tensor]:
    """All go round together, and each is a little stronger or weaker."""
    turn = style.lamp_turn_rad * (rng.fold("lamps").uniform(1) * 2 - 1)
    cos, sin = cos_sin(turn)  # b 1 each
    x, y, z = torch.tensor([lamp.place for lamp in style.lamps]).T
    place = torch.stack([cos * x - sin * y, sin * x + cos * y, z.expand(len(rng), -1)])  # 3 b l
    radius = torch.tensor([lamp.radius for lamp in style.lamps]).expand(len(rng), -1)
    strength = between(rng.fold("power").uniform(len(style.lamps)), *POWER)
    power = strength * torch.tensor([lamp.power for lamp in style.lamps])
    return {
        "lamp": repeat(place, "xyz b l -> xyz l (b t)", t=num_frames),
        "lamp_radius": repeat(radius, "b l -> l (b t)", t=num_frames),
        "lamp_power": repeat(power, "b l -> l (b t)", t=num_frames),
    }


def draw_camera(
    style: Style, rng: Rng, progress: Float[Tensor, " t"], azimuth_deg: Float[Tensor, "b 1"]
) -> dict[str, Tensor]:
    """Jittered, and going round the middle of the floor at a steady pace."""
    orbit = style.orbit_rad * (rng.fold("orbit").uniform(1) * 2 - 1) * progress  # b t
    jitter = style.eye_jitter * (rng.fold("eye").uniform(3) * 2 - 1)
    x, y, z = (torch.tensor(style.eye) + jitter).T[..., None]  # b 1 each
    cos, sin = cos_sin(orbit + torch.deg2rad(azimuth_deg))
    eye = torch.stack([cos * x - sin * y, sin * x + cos * y, z.expand_as(cos)]).flatten(1)
    target = torch.zeros_like(eye)
    target[2] = style.look_at_height
    return {
        "eye": eye,
        "axes": look_at(eye, target),
        "focal": torch.full_like(eye[0], style.focal),
    }


def cos_sin(angle: Float[Tensor, "*n"]) -> Float[Tensor, "2 *n"]:
    """In double precision, then rounded: the same in every batch, however cosines are computed."""
    return torch.stack([angle.double().cos(), angle.double().sin()]).float()


def between(u: Tensor, low: float, high: float) -> Tensor:
    return low + u * (high - low)
