"""Pictures, labels and points brought to the size of a clip: resized until the frame is covered,
then cropped.

The centre of a pixel has whole numbers for coordinates, in the file and in the clip.
"""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import Settings


class Size(Settings):
    """The size of clips; None keeps the files' own."""

    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _both_sides_or_none(self) -> "Size":
        if (self.height is None) != (self.width is None):
            raise ValueError("set both height and width, or neither")
        return self


def covering_size(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    """`h` x `w` scaled until it covers `height` x `width`."""
    scale = max(height / h, width / w)
    return max(height, round(h * scale)), max(width, round(w * scale))


def resized(
    frames: UInt8[Tensor, "t h w 3"], size: tuple[int, int]
) -> UInt8[Tensor, "t height width 3"]:
    """With anti-aliasing."""
    if tuple(frames.shape[1:3]) == size:
        return frames
    smooth = F.interpolate(
        rearrange(frames, "t h w c -> t c h w").float(),
        size=list(size),
        mode="bilinear",
        antialias=True,
    )
    pixels = smooth.round().clamp(0, 255).to(torch.uint8)
    return rearrange(pixels, "t c h w -> t h w c").contiguous()


def cover(
    frames: UInt8[Tensor, "t h w 3"], *, height: int, width: int
) -> UInt8[Tensor, "t height width 3"]:
    """Resize until the frame is covered, then take the centre."""
    large = resized(frames, covering_size(frames.shape[1], frames.shape[2], height, width))
    top, left = (large.shape[1] - height) // 2, (large.shape[2] - width) // 2
    return large[:, top : top + height, left : left + width].contiguous()


def cover_labels(
    labels: UInt8[Tensor, "t h w"], *, height: int, width: int
) -> UInt8[Tensor, "t height width"]:
    """What lies under the centre of each pixel of a clip made by `cover`."""
    _, h, w = labels.shape
    large_h, large_w = covering_size(h, w, height, width)
    top, left = (large_h - height) // 2, (large_w - width) // 2
    rows = ((torch.arange(height) + top + 0.5) * h / large_h).long()
    columns = ((torch.arange(width) + left + 0.5) * w / large_w).long()
    return labels[:, rows][:, :, columns]


def cover_points(
    points_px: Float[Tensor, "*n 2"], *, of: tuple[int, int], height: int, width: int
) -> Float[Tensor, "*n 2"]:
    """Where points (x, y) of pictures `of` this height and width lie in a clip made by `cover`."""
    native = torch.tensor(of).flip(0)
    large = torch.tensor(covering_size(*of, height, width)).flip(0)
    corner = (large - torch.tensor([width, height])) // 2
    scale = large.double() / native
    return ((points_px + 0.5) * scale - 0.5 - corner).to(points_px.dtype)
