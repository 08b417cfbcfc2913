"""The way of one sprite through the frame: straight or an arc, steady, with or without a bounce.

The way is laid where the sprite stays in the frame, whatever the number of frames: more of them are
the same motion in finer steps. The chord of an arc points where the motion is said to go, and an
arc is as long as a straight way: direction, speed and turn can be chosen apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_FINE = 33
"""Places on a way at which its reach is measured, however many frames show it."""


@dataclass(frozen=True)
class Way:
    """What is asked of the way. Lengths are fractions of the frame's shorter side."""

    step: Float[Tensor, "b 2"]  # length and direction of the way as if it were straight
    turn_rad: Float[Tensor, " b"]  # of the heading over the clip, clockwise
    bounces: Bool[Tensor, " b"]  # off the wall that it mostly moves towards
    bounce_at: Float[Tensor, " b"]  # progress at the bounce, in (0, 1)


@dataclass(frozen=True)
class Path:
    """Where the sprite is."""

    centres: Float[Tensor, "b t 2"]
    velocities: Float[Tensor, "b t 2"]  # per frame
    touches: Bool[Tensor, "b t"]  # whether a wall was touched since the frame before


def lay(
    way: Way,
    place: Float[Tensor, "b 2"],
    *,
    reach: Float[Tensor, " b"],
    frame: Float[Tensor, " 2"],
    num_frames: int,
) -> Path:
    """The way in the frame: `place`, uniform in (0, 1), says where among all places that are legal.

    A way that bounces ends its advance at the wall, so there only the other axis is free.
    """
    fine = torch.linspace(0, 1, _FINE).expand(len(reach), -1)
    fine = torch.cat([fine, way.bounce_at[:, None]], dim=1)
    offsets = _offsets(way, fine)
    low = reach[:, None] - offsets.amin(1)
    high = frame - reach[:, None] - offsets.amax(1)
    at_wall = way.bounces[:, None] & _main_axis(way)
    place = torch.where(at_wall, (way.step > 0).float(), place)
    start = low + place * (high - low)

    last = max(num_frames - 1, 1)
    progress = (torch.arange(num_frames) / last).expand(len(reach), -1)
    frame_of_touch = (way.bounce_at * last).ceil()[:, None]
    return Path(
        centres=start[:, None] + _offsets(way, progress),
        velocities=_headings(way, progress) * progress[:, -1:, None] / last,  # of one frame: none
        touches=way.bounces[:, None] & (torch.arange(num_frames) == frame_of_touch),
    )


def _offsets(way: Way, progress: Float[Tensor, "b t"]) -> Float[Tensor, "b t 2"]:
    """From the start: an arc is the integral of exp(i k (s - 1/2)) over s, which is
    exp(i k (s - 1) / 2) s sinc(k s / 2)."""
    turn = way.turn_rad[:, None]
    shortened = progress * torch.sinc(turn * progress / (2 * torch.pi))
    offsets = shortened[..., None] * _turned(way.step, turn * (progress - 1) / 2)
    wall = way.bounce_at[:, None, None] * way.step[:, None]  # b 1 2
    back = wall - way.step.sign()[:, None] * (wall - offsets).abs()
    return torch.where((way.bounces[:, None] & _main_axis(way))[:, None], back, offsets)


def _headings(way: Way, progress: Float[Tensor, "b t"]) -> Float[Tensor, "b t 2"]:
    """The derivative of `_offsets` by progress."""
    headings = _turned(way.step, way.turn_rad[:, None] * (progress - 0.5))
    after = way.bounces[:, None] & (progress >= way.bounce_at[:, None])  # b t
    return torch.where(after[..., None] & _main_axis(way)[:, None], -headings, headings)


def _turned(
    vector: Float[Tensor, "b 2"], angle_rad: Float[Tensor, "b t"]
) -> Float[Tensor, "b t 2"]:
    x, y = vector[:, None].unbind(-1)
    cos, sin = angle_rad.cos(), angle_rad.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _main_axis(way: Way) -> Bool[Tensor, "b 2"]:
    """The axis along which most of the way goes."""
    along_x = way.step[:, 0].abs() >= way.step[:, 1].abs()
    return torch.stack([along_x, ~along_x], dim=1)
