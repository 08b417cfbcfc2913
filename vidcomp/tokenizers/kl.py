"""KL: continuous latents from a variational autoencoder with a light prior.

arXiv:1312.6114, and arXiv:2112.10752 for the light prior. The continuous sibling of `fsq`: the
same trunk and the same latent grid, so that the two differ in nothing but the bottleneck. `encode`
gives the mean; the noise is only for training, where it keeps the decoder smooth around every
latent.
"""

from jaxtyping import Float, Int64
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.tokenizers import base
from vidcomp.types import LatentSpec

LOG_VARIANCE_RANGE = (-20.0, 4.0)


class Config(base.ConvConfig):
    """`channels` of a latent; `beta` weighs the divergence, in nats per scalar."""

    channels: PositiveInt = 8
    beta: NonNegativeFloat = 1e-4

    def build(self) -> "Kl":
        return Kl(self)


class Kl(base.Tokenizer):
    """The encoder's features are the means and then the log-variances of a diagonal Gaussian."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            LatentSpec(config.strides, config.channels),
            config.encoder(2 * config.channels),
            config.decoder(config.channels),
            foreground_weight=config.foreground_weight,
        )
        self.beta = config.beta

    def bottleneck(self, features: Float[Tensor, "b T H W e"], rng: Rng | None) -> base.Bottleneck:
        mean, log_variance = features.float().chunk(2, dim=-1)
        if rng is None:
            return base.Bottleneck(mean)
        log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        noise = rng.fold("posterior").normal(*mean.shape[1:])
        # Appendix B of arXiv:1312.6114; a mean over scalars, so that beta holds for any grid.
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).mean((1, 2, 3, 4)) / 2
        return base.Bottleneck(
            mean + (log_variance / 2).exp() * noise,
            terms={"kl": self.beta * kl},
            metrics={"kl_nats": kl.detach()},
        )

    def dequantize(self, codes: Int64[Tensor, "b T H W q"]) -> Float[Tensor, "b T H W d"]:
        raise UserError("the latents of 'kl' are continuous and have no codes; use 'fsq' or 'vq'")
