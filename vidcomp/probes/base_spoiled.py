"""Frames that show nothing that could be read: what a judge has to refuse.

A classifier always answers. One that was fitted on whole objects alone called nearly empty frames
"triangle, blue, small", so that a generator which drew next to nothing scored 94 % on the one
combination that was furthest from all that it had seen. Here are frames of the kinds that weak
generators make; a judge learns to call them unreadable.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidcomp.seeding import Rng

_FAINTEST = 0.25
"""Of an object's contrast: less is as good as nothing."""

_LEAST_LOST = 0.4
"""How much of the way from an object's middle to its rim is erased with all that lies behind."""

_VISIBLE = 0.1
"""From the background, of pixels in [-1, 1]."""


def spoiled(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Each frame faded to between nothing and a quarter, or with no more than a crumb of its object
    left.

    Worse drawings than these are not spoiled: a judge that refused frames with torn, halved or
    double objects refused a quarter of the clips that its closed-form sibling reads.
    """
    chosen = rng.fold("way").bernoulli(0.5, 1, 1, 1)
    return torch.where(chosen, _faded(frames, rng.fold("faded")), _crumb(frames, rng.fold("crumb")))


def background(frames: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
    """The median colour."""
    return frames.flatten(2).median(-1).values[..., None, None]


def _faded(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    behind = background(frames)
    return behind + _FAINTEST * rng.uniform(1, 1, 1) * (frames - behind)


def _crumb(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Of what stands out, only the part beyond a line near its rim, at any angle."""
    behind = background(frames)
    stands_out: Bool[Tensor, "b h w"] = ((frames - behind).abs() > _VISIBLE).any(1)
    y = torch.arange(frames.shape[2], device=frames.device)[None, :, None]
    x = torch.arange(frames.shape[3], device=frames.device)[None, None, :]
    count = stands_out.sum((1, 2), keepdim=True).clamp_min(1)
    across, down = ((place * stands_out).sum((1, 2), keepdim=True) / count for place in (x, y))
    angle = rng.fold("angle").uniform(1, 1) * (2 * torch.pi)
    along = (x - across) * angle.cos() + (y - down) * angle.sin()
    rim = along.masked_fill(~stands_out, 0).amax((1, 2), keepdim=True)
    lost = _LEAST_LOST + (1 - _LEAST_LOST) * rng.fold("lost").uniform(1, 1)
    erased = stands_out & (along <= lost * rim)
    return torch.where(erased[:, None], behind, frames)
