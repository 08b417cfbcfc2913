"""FSQ, finite scalar quantisation: each channel is squashed and rounded to a few levels.

arXiv:2309.15505. There is no codebook to learn, to collapse or to store: the code is the
mixed-radix number of the levels of all channels, the first channel the fastest. The default, and
the one to start from.

Unusual: quantisation stays in fp32 under autocast, since bf16 cannot tell neighbouring levels
apart near a rounding boundary, and a code must not depend on the precision of the day.
"""

import math

import torch
from jaxtyping import Float, Int64
from pydantic import field_validator
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.tokenizers import base
from vidcomp.types import LatentSpec

SATURATION_WEIGHT, SATURATION_START = 1e-2, 2.0
"""Features beyond +-2, where tanh is nearly flat, are drawn back by their squared excess. A guard
for deep trunks (one of depth 4 had stuck at 17 dB); the demo's PSNR is the same without it."""


class Config(base.ConvConfig):
    """`levels` of each channel; their product is the size of the codebook."""

    levels: tuple[int, ...] = (8, 5, 5, 5)

    @field_validator("levels")
    @classmethod
    def _at_least_three(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not levels or min(levels) < 3:
            raise ValueError(
                f"every channel has at least 3 levels, got {list(levels)}; "
                "examples: [8, 5, 5, 5] is 1000 codes, [8, 8, 8, 5] is 2560"
            )
        return levels

    def build(self) -> "Fsq":
        return Fsq(self)


class Fsq(base.Tokenizer):
    """Values are the levels, scaled to [-1, 1]; each of `levels` is a latent channel."""

    levels: Tensor

    def __init__(self, config: Config) -> None:
        channels = len(config.levels)
        spec = LatentSpec(
            config.strides,
            channels,
            codebook_sizes=(math.prod(config.levels),),
            levels=config.levels,
        )
        super().__init__(
            spec,
            config.encoder(channels),
            config.decoder(channels),
            foreground_weight=config.foreground_weight,
        )
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)

    def bottleneck(self, features: Float[Tensor, "b T H W d"], rng: Rng | None) -> base.Bottleneck:
        bounded = bound(features.float(), self.levels)
        codes = self._codes(bounded.round().long())
        values = self.dequantize(codes)
        # Straight through; written so that the values are those of the codes to the last bit.
        slope = bounded / half_width(self.levels)
        values = values + (slope - slope.detach())
        if rng is None:
            return base.Bottleneck(values, codes)
        excess = (features.float().abs() - SATURATION_START).clamp_min(0)
        saturation = SATURATION_WEIGHT * excess.square().mean((1, 2, 3, 4))
        return base.Bottleneck(values, codes, terms={"saturation": saturation})

    def dequantize(self, codes: Int64[Tensor, "b T H W 1"]) -> Float[Tensor, "b T H W d"]:
        digits = codes // self._radix() % self.levels  # b T H W d
        half = half_width(self.levels)
        return (digits - half).float() / half

    def _codes(self, rounded: Int64[Tensor, "b T H W d"]) -> Int64[Tensor, "b T H W 1"]:
        digits = rounded + half_width(self.levels)
        return (digits * self._radix()).sum(-1, keepdim=True)

    def _radix(self) -> Int64[Tensor, " d"]:
        return self.levels.cumprod(0) // self.levels


def half_width(levels: Int64[Tensor, " d"]) -> Int64[Tensor, " d"]:
    """The integer that stands for -1: levels run from -floor(L / 2)."""
    return levels // 2


def bound(features: Float[Tensor, "*n d"], levels: Int64[Tensor, " d"]) -> Float[Tensor, "*n d"]:
    """Squash so that rounding gives L levels (arXiv:2309.15505, section 3 and appendix A).

    An even L has no level in the middle: half a step is taken off after tanh, and put back inside
    it, so that 0 stays 0.
    """
    reach = (levels - 1) / 2
    offset = (levels % 2 == 0).float() / 2
    return torch.tanh(features + torch.atanh(offset / reach)) * reach - offset
