"""The contract of the family `tokenizers`: video to latents and back, causal in time.

A variant is one file: an encoder, a bottleneck, a decoder, and a `Config` whose `build` joins
them. The base owns what all share: checks at the door, the normalisation of latents (measured once
after training, stored in the checkpoint, known to nobody else) and the reconstruction loss.

Frame 0 is encoded alone, later frames in groups of the temporal stride, and nothing looks ahead:
so one frame alone and the first frame of a clip have the same latent, and an image is a clip with
t = 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from pydantic import AfterValidator, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from vidcomp.config import Family, UserError, Variant
from vidcomp.nn.conv import Decoder, Encoder
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, LatentSpec, Losses, Video, check_video

TOKENIZERS = Family("vidcomp.tokenizers")


@dataclass(frozen=True)
class Bottleneck:
    """What a bottleneck makes of the encoder's features.

    `values` go to the decoder (raw, not normalised), `codes` are None for continuous tokenizers.
    `terms` are extra losses, one value per clip, weighted by the variant itself; `metrics` are
    logged.
    """

    values: Float[Tensor, "b T H W d"]
    codes: Int64[Tensor, "b T H W q"] | None = None
    terms: dict[str, Float[Tensor, " b"]] = field(default_factory=dict[str, Tensor])
    metrics: dict[str, Float[Tensor, " b"]] = field(default_factory=dict[str, Tensor])


def _positive(strides: Grid) -> Grid:
    if min(strides) < 1:
        raise ValueError(f"every stride is at least 1, got {list(strides)}; example: [4, 8, 8]")
    return strides


Strides = Annotated[Grid, AfterValidator(_positive)]
"""Frames, height and width in pixels per latent."""


class Config(Variant, ABC):
    """Settings of a tokenizer. `is_lossless`: its reconstructions are the clips."""

    is_lossless: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> "Tokenizer": ...


class ConvConfig(Config, ABC):
    """Settings of a tokenizer whose networks are the convolutional trunk of `nn/conv.py`.

    `depth` counts blocks on each side.
    """

    width: PositiveInt = 128
    depth: PositiveInt = 2
    strides: Strides = Grid(4, 8, 8)
    foreground_weight: NonNegativeFloat = 3.0

    def encoder(self, channels: int) -> Encoder:
        return Encoder(channels=channels, width=self.width, depth=self.depth, strides=self.strides)

    def decoder(self, channels: int) -> Decoder:
        return Decoder(channels=channels, width=self.width, depth=self.depth, strides=self.strides)


class Tokenizer(nn.Module, ABC):
    """Video to normalised latents and back.

    `foreground_weight` adds weight to pixels that differ from the clip's background (its median
    colour): small objects are a few percent of the pixels, and would be learned last.
    `least_std`: raw values that vary less are not scaled up any further.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        spec: LatentSpec,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        foreground_weight: float = 0.0,
        least_std: float = 1e-6,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder  # b 3 t h w -> b T H W d
        self.decoder = decoder  # b T H W d -> b 3 t h w
        self.foreground_weight = foreground_weight
        self.least_std = least_std
        self.register_buffer("latent_mean", torch.zeros(spec.channels))
        self.register_buffer("latent_std", torch.ones(spec.channels))

    @abstractmethod
    def bottleneck(self, features: Float[Tensor, "b T H W d"], rng: Rng | None) -> Bottleneck:
        """Quantise or regularise. `rng` is given in training, None for a deterministic pass."""

    @abstractmethod
    def dequantize(self, codes: Int64[Tensor, "b T H W q"]) -> Float[Tensor, "b T H W d"]:
        """The raw values of `codes`; raises UserError in a continuous tokenizer."""

    def after_step(self) -> None:
        """Called after each optimiser step, for state that no gradient trains (a codebook)."""
        return

    # The rest is final.

    def encode(self, video: Video) -> Latents:
        """Deterministic; latents do not depend on later frames. Raises on illegal sizes."""
        check_video(video)
        self.spec.grid(*video.shape[2:])
        made = self.bottleneck(self.encoder(video), None)
        return Latents((made.values.float() - self.latent_mean) / self.latent_std, made.codes)

    def decode(self, latents: Latents) -> Video:
        """Video within [-1, 1]. Codes are not looked at: `lookup` turns codes into values."""
        raw = latents.values * self.latent_std + self.latent_mean
        return self.decoder(raw).float().clamp(-1, 1)

    def lookup(self, codes: Int64[Tensor, "b T H W q"]) -> Latents:
        """The latents that `codes` stand for."""
        return Latents((self.dequantize(codes) - self.latent_mean) / self.latent_std, codes)

    def loss(self, video: Video, rng: Rng) -> Losses:
        """Reconstruction, squared plus 0.1 x absolute error, and the terms of the bottleneck."""
        made = self.bottleneck(self.encoder(video), rng)
        error = (self.decoder(made.values) - video).float()  # b 3 t h w
        weight = 1 + self.foreground_weight * foreground(video)  # b 1 t h w
        reconstruction = ((error.square() + 0.1 * error.abs()) * weight).mean((1, 2, 3, 4))
        # Peak signal is 2 in [-1, 1], so PSNR = 10 log10(4 / MSE), as with a peak of 1 in [0, 1].
        psnr_db = 10 * torch.log10(4 / error.detach().square().mean((1, 2, 3, 4)).clamp_min(1e-10))
        terms = {"reconstruction": reconstruction, **made.terms}
        return Losses.of(terms, psnr_db=psnr_db, **made.metrics)

    @torch.no_grad()
    def measure_latents(self, videos: Iterable[Video]) -> None:
        """Set the normalisation: `videos` get zero mean and unit variance in each channel."""
        self.latent_mean.zero_()
        self.latent_std.fill_(1)
        count = 0
        total = torch.zeros_like(self.latent_mean).double()
        squares = torch.zeros_like(total)
        for video in videos:
            values = self.encode(video).values.flatten(0, 3).double()
            count += len(values)
            total += values.sum(0)
            squares += values.square().sum(0)
        if count == 0:
            raise UserError("latent statistics need at least one clip")
        mean = total / count
        self.latent_mean.copy_(mean)
        self.latent_std.copy_((squares / count - mean.square()).clamp_min(self.least_std**2).sqrt())


def foreground(video: Video, *, threshold: float = 0.1) -> Float[Tensor, "b 1 t h w"]:
    """1 where any channel is further than `threshold` from the clip's median colour, else 0."""
    thinned = video[:, :, ::2, ::2, ::2].flatten(2)  # an exact median took 15 % of a training step
    background = thinned.median(-1).values[..., None, None, None]
    return ((video - background).abs().amax(1, keepdim=True) > threshold).float()


class CodeUsage(NamedTuple):
    """How much of a codebook is in use: the alarm for collapse, which the PSNR hardly notices.

    `share` of the codes that occur at all; `perplexity`, the number of equally frequent codes that
    would have the same entropy.
    """

    share: float
    perplexity: float


def code_usage(codes: Int64[Tensor, "..."], codebook_size: int) -> CodeUsage:
    """Over all of `codes`, which are of one codebook: a statistic of a set of clips, not of one."""
    counts = codes.flatten().bincount(minlength=codebook_size).double()
    entropy = torch.special.entr(counts / counts.sum().clamp_min(1)).sum()
    return CodeUsage(float((counts > 0).double().mean()), float(entropy.exp()))
