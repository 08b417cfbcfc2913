"""A causal space-time autoencoder trunk: video to features on the latent grid, and back.

Space and time are folded into channels first, so every layer works on the small grid; a residual
block is a (1, 3, 3) convolution in space, then a (3, 1, 1) convolution in time that looks back
only. The frames are preceded by copies of frame 0, so frame 0 fills one latent by itself (as in
MAGVIT-v2, arXiv:2310.05737): t = 1 + k * stride frames make T = 1 + k latents, and one frame goes
through the very same code.

Unusual: the layout is ``b T H W c`` throughout. Pointwise layers are then plain matrix products,
and the spatial convolution sees the same memory as a batch of channels-last images, with no copy.
The convolution in time is a matrix product over three neighbouring frames. The last layer is
pointwise: a 3x3 convolution to full-resolution pixels would cost more than all the blocks.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.types import Grid, Video


class Encoder(nn.Module):
    """``b 3 t h w`` to ``b T H W d``; `depth` residual blocks of `width` channels."""

    def __init__(self, *, channels: int, width: int, depth: int, strides: Grid) -> None:
        super().__init__()
        self.strides = strides
        self.fold = nn.Linear(3 * strides.size, width)
        self.blocks = nn.Sequential(*(CausalBlock(width) for _ in range(depth)))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.out = nn.Linear(width, channels)

    def forward(self, video: Video) -> Float[Tensor, "b T H W d"]:
        hidden = self.blocks(self.fold(fold_video(video, self.strides)))  # b T H W c
        return self.out(self.norm(hidden.float()))


class Decoder(nn.Module):
    """``b T H W d`` to ``b 3 t h w``: the encoder's mirror."""

    def __init__(self, *, channels: int, width: int, depth: int, strides: Grid) -> None:
        super().__init__()
        self.strides = strides
        self.into = nn.Linear(channels, width)
        self.blocks = nn.Sequential(*(CausalBlock(width) for _ in range(depth)))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.unfold = nn.Linear(width, 3 * strides.size)

    def forward(self, latents: Float[Tensor, "b T H W d"]) -> Video:
        hidden = self.blocks(self.into(latents))  # b T H W c
        return unfold_video(self.unfold(self.norm(hidden.float())), self.strides)


class CausalBlock(nn.Module):
    """x + time(SiLU(space(norm(x)))): neighbours in space, then the past in time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.space = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.time = nn.Linear(3 * width, width)

    def forward(self, x: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W c"]:
        frames = rearrange(self.norm(x.float()), "b T H W c -> (b T) c H W")
        y = F.silu(self.space(frames))
        y = rearrange(y, "(b T) c H W -> b T H W c", b=len(x))
        return x + self.time(with_past(y))


def with_past(x: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W 3*c"]:
    """Each latent behind the two before it; the first one stands in for what is missing."""
    num_latents = x.shape[1]
    padded = torch.cat([x[:, :1], x[:, :1], x], dim=1)
    return torch.cat([padded[:, k : k + num_latents] for k in range(3)], dim=-1)


def fold_video(video: Video, strides: Grid) -> Float[Tensor, "b T H W e"]:
    """Each block of `strides` pixels as one vector; frame 0, repeated, is the first in time."""
    before = video[:, :, :1].expand(-1, -1, strides.t - 1, -1, -1)
    return rearrange(
        torch.cat([before, video], dim=2),
        "b c (T p) (H q) (W r) -> b T H W (c p q r)",
        p=strides.t,
        q=strides.h,
        r=strides.w,
    )


def unfold_video(patches: Float[Tensor, "b T H W e"], strides: Grid) -> Video:
    """The inverse of `fold_video`: of the first block only the last frame is kept."""
    video = rearrange(
        patches,
        "b T H W (c p q r) -> b c (T p) (H q) (W r)",
        p=strides.t,
        q=strides.h,
        r=strides.w,
    )
    return video[:, :, strides.t - 1 :]
