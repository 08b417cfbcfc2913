"""GIVT: masked continuous latents, each predicted as a mixture of Gaussians (arXiv:2312.02116).

The first paper's second rung: MaskGIT without the categories (arXiv:2510.03075, RQ2). The mixture
has diagonal covariances with a floor, and its variances are scaled at sampling.

Unusual: a guided mixture p(x|c)^s p(x)^(1-s) has no closed form, so guidance and composition draw
candidates from the plain mixtures and resample one with self-normalised weights. How many of the
candidates that is worth is reported as `Prediction.effective_samples`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vidcomp.objectives import base
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where


class Config(base.MaskedConfig):
    """`min_std`: the floor of each Gaussian's standard deviation; latents have unit variance. Below
    0.1 the components become a codebook, and the wrong one is drawn: of six clips to be learned by
    heart in 600 steps, samples were 0.22 from the truth (RMSE) at 0.1, and 1.07 at 0.02.

    `num_candidates` are drawn at each position if there is guidance.
    """

    num_mixtures: PositiveInt = 8
    min_std: PositiveFloat = 0.1
    num_candidates: Annotated[int, Field(ge=64)] = 64

    def build(self, spec: LatentSpec, width: int) -> "Givt":
        return Givt(self, spec.channels, width)


class Mixture(NamedTuple):
    """Gaussians with diagonal covariances, at every position."""

    log_weight: Float[Tensor, "b T H W m"]
    mean: Float[Tensor, "b T H W m d"]
    std: Float[Tensor, "b T H W m d"]

    def log_prob(self, x: Float[Tensor, "*n b T H W d"]) -> Float[Tensor, "*n b T H W"]:
        """The log-density at `x`, which may have axes in front."""
        z = (x[..., None, :] - self.mean) / self.std
        of_each = -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (self.log_weight + of_each.sum(-1)).logsumexp(-1)

    def sample(self, rng: Rng) -> Float[Tensor, "b T H W d"]:
        chosen = rng.fold("component").categorical(self.log_weight.exp())[..., None, None]
        shape = (*chosen.shape[:-1], self.mean.shape[-1])
        mean, std = (part.gather(-2, chosen.expand(shape)).squeeze(-2) for part in self[1:])
        return mean + std * rng.fold("noise").normal(*mean.shape[1:])

    def scaled(self, factor: float) -> "Mixture":
        """The same with variances times `factor`."""
        return Mixture(self.log_weight, self.mean, self.std * math.sqrt(factor))


class Givt(base.MaskedValues):
    """Masked, continuous, with a density."""

    def __init__(self, config: Config, channels: int, width: int) -> None:
        super().__init__(config, channels, width)
        self.config = config
        self.channels = channels
        self.to_mixture = nn.Linear(width, config.num_mixtures * (1 + 2 * channels))
        # Means start spread like the latents, or all components stay the same.
        with torch.no_grad():
            self.to_mixture.weight.mul_(0.1)
            parameters = self.to_mixture.bias.zero_().unflatten(0, (config.num_mixtures, -1))
            parameters[:, 1 : 1 + channels] = torch.randn(config.num_mixtures, channels)

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]:
        return self.to_mixture(hidden)

    def mixture(self, out: Float[Tensor, "b T H W o"]) -> Mixture:
        """What an output of the network means."""
        parts = rearrange(out.float(), "b T H W (m p) -> b T H W m p", m=self.config.num_mixtures)
        logit, mean, raw_std = parts.split([1, self.channels, self.channels], dim=-1)
        std = nn.functional.softplus(raw_std) + self.config.min_std
        return Mixture(logit.squeeze(-1).log_softmax(-1), mean, std)

    def loss(self, out: Float[Tensor, "b T H W o"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Latents)
        log_prob = self.mixture(out).log_prob(corrupted.target.values)
        return Losses.of({"nll": mean_where(-log_prob / self.channels, corrupted.predict)})

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W o"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """Samples of mixtures whose variances are multiplied by `temperature`."""
        factor = max(temperature, 1e-6)
        mixtures = [self.mixture(out).scaled(factor) for out in outs]
        if len(mixtures) == 1:
            return Prediction(values=mixtures[0].sample(rng.fold("sample")))
        return self._resampled(mixtures, weights, rng)

    def _resampled(
        self, mixtures: Sequence[Mixture], weights: Sequence[float], rng: Rng
    ) -> Prediction:
        """One of the candidates, with probability in proportion to prod p_i^w_i over their own
        density. Candidates come in equal numbers from every mixture of positive weight: that is
        where the product is large."""
        assert abs(sum(weights) - 1) < 1e-6, "weights must sum to 1"
        sources = [m for m, weight in zip(mixtures, weights, strict=True) if weight > 0]
        per_source = -(-self.config.num_candidates // len(sources))
        candidates = torch.stack(
            [
                source.sample(rng.fold(f"candidate {i} of {j}"))
                for j, source in enumerate(sources)
                for i in range(per_source)
            ]
        )  # n b T H W d
        densities = [mixture.log_prob(candidates) for mixture in mixtures]
        wanted = base.combine(densities, weights)
        drawn_from = [p for p, weight in zip(densities, weights, strict=True) if weight > 0]
        log_weight = wanted - torch.stack(drawn_from).logsumexp(0)
        shares = rearrange(log_weight, "n b T H W -> b T H W n").softmax(-1)
        chosen = rng.fold("chosen").categorical(shares)
        index = chosen[None, ..., None].expand(1, *candidates.shape[1:])
        effective = 1 / shares.square().sum(-1)
        return Prediction(values=candidates.gather(0, index)[0], effective_samples=effective)

    def data_prediction(
        self, out: Float[Tensor, "b T H W o"], state: State
    ) -> Float[Tensor, "b T H W d"]:
        """The mean of the mixture."""
        mixture = self.mixture(out)
        return (mixture.log_weight.exp()[..., None] * mixture.mean).sum(-2)
