"""Frames that show nothing that could be read: what a judge has to refuse.

A classifier always answers. One that was fitted on whole objects alone called nearly empty frames
"triangle, blue, small", so that a generator which drew next to nothing scored 94 % on the one
combination that was furthest from all that it had seen. Here are frames of the kinds that weak
generators make; a judge learns to call them unreadable.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from vidcomp.seeding import Rng

_FAINTEST = 0.25
"""Of an object's contrast: less is as good as nothing."""

_TILES = 4
"""Along each side of a frame that is torn."""

_VISIBLE = 0.1
"""From the background, of pixels in [-1, 1]."""


def spoiled(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Each frame spoiled in one of four ways: faded to between nothing and a quarter, torn into
    tiles that are put together anew, half of what stands out erased, or laid over another frame."""
    ways = torch.stack(
        [
            _faded(frames, rng.fold("faded")),
            _torn(frames, rng.fold("torn")),
            _halved(frames, rng.fold("halved")),
            (frames + frames.roll(1, 0)) / 2,
        ]
    )
    chosen = rng.fold("way").integers(len(ways), 1)[:, 0]
    return ways[chosen, torch.arange(len(frames), device=frames.device)]


def background(frames: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
    """The median colour."""
    return frames.flatten(2).median(-1).values[..., None, None]


def _faded(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    behind = background(frames)
    return behind + _FAINTEST * rng.uniform(1, 1, 1) * (frames - behind)


def _torn(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Rows and columns that do not fill a tile stay as they are."""
    h, w = (size // _TILES * _TILES for size in frames.shape[2:])
    split = {"i": _TILES, "j": _TILES}
    tiles = rearrange(frames[:, :, :h, :w], "b c (i y) (j x) -> b (i j) c y x", **split)
    order = rng.uniform(_TILES**2).argsort(1)
    mixed = tiles.gather(1, order[:, :, None, None, None].expand_as(tiles))
    result = frames.clone()
    result[:, :, :h, :w] = rearrange(mixed, "b (i j) c y x -> b c (i y) (j x)", **split)
    return result


def _halved(frames: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """What lies on one side of a line through the middle of what stands out, at any angle."""
    behind = background(frames)
    stands_out: Bool[Tensor, "b h w"] = ((frames - behind).abs() > _VISIBLE).any(1)
    y = torch.arange(frames.shape[2], device=frames.device)[None, :, None]
    x = torch.arange(frames.shape[3], device=frames.device)[None, None, :]
    count = stands_out.sum((1, 2), keepdim=True).clamp_min(1)
    across, down = (((place * stands_out).sum((1, 2), keepdim=True) / count) for place in (x, y))
    angle = rng.uniform(1, 1) * (2 * torch.pi)
    beyond = (x - across) * angle.cos() + (y - down) * angle.sin() > 0
    return torch.where((beyond & stands_out)[:, None], behind, frames)
