"""Pixels themselves as latents: no tokenizer.

Each latent is a block of pixels, so a latent and its block depend on nothing but each other: what a
generator does with places is then its own doing. Nothing is lost and nothing is trained: the run
has `train.steps=0`, and only measures the normalisation.

Unusual: many channels, 3 x the pixels of a block (768 for 4 x 8 x 8). Where clips are single frames
a temporal stride of 1 is the same grid with fewer of them: frame 0 fills a block by being repeated.
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.nn.conv import fold_video, unfold_video
from vidcomp.seeding import Rng
from vidcomp.tokenizers import base
from vidcomp.types import Grid, LatentSpec, Video

GREY_LEVEL = 2 / 255
"""One step of an 8-bit pixel. A channel that varies less is taken as constant: divided by its own
spread, a clip that differs there would have latents of any size."""


class Config(base.Config):
    """`strides` are frames, height and width of a block in pixels."""

    is_lossless = True

    strides: base.Strides = Grid(4, 8, 8)

    def build(self) -> "Patches":
        return Patches(self)


class Patches(base.Tokenizer):
    """Continuous latents of 3 x frames x height x width channels, in this order."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            LatentSpec(config.strides, 3 * config.strides.size),
            Fold(config.strides),
            Unfold(config.strides),
            least_std=GREY_LEVEL,
        )

    def bottleneck(self, features: Float[Tensor, "b T H W d"], rng: Rng | None) -> base.Bottleneck:
        return base.Bottleneck(features)

    def dequantize(self, codes: Int64[Tensor, "b T H W q"]) -> Float[Tensor, "b T H W d"]:
        raise UserError("the latents of 'patches' are pixels and have no codes; use 'fsq' or 'vq'")


class Fold(nn.Module):
    def __init__(self, strides: Grid) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, video: Video) -> Float[Tensor, "b T H W d"]:
        return fold_video(video, self.strides)


class Unfold(nn.Module):
    def __init__(self, strides: Grid) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, latents: Float[Tensor, "b T H W d"]) -> Video:
        return unfold_video(latents, self.strides)
