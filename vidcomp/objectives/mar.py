"""MAR: masked continuous latents, each drawn by a small diffusion model of its own
(arXiv:2406.11838).

The first paper's third rung: GIVT's mixture replaced by a diffusion head for each token, still
masked (arXiv:2510.03075, RQ2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from vidcomp.nn.diffusion_head import DiffusionHead
from vidcomp.objectives import base
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where

_MEAN_DRAWS = 8


class Config(base.MaskedConfig):
    """`head_width`, `head_depth`: of the MLP. `draws`: noise levels for each token in a training
    step. `head_steps`: of the head's own sampling, at every step of the sampler.
    """

    head_width: PositiveInt = 192
    head_depth: PositiveInt = 3
    draws: PositiveInt = 4
    head_steps: PositiveInt = 25

    def build(self, spec: LatentSpec, width: int) -> "Mar":
        return Mar(self, spec.channels, width)


class Mar(base.MaskedValues):
    """Masked, continuous, without a density."""

    def __init__(self, config: Config, channels: int, width: int) -> None:
        super().__init__(config, channels, width)
        self.config = config
        size = {"width": config.head_width, "depth": config.head_depth}
        self.diffusion = DiffusionHead(channels, width, **size)

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W c"]:
        """The head's condition is the trunk's output itself."""
        return hidden

    def loss(self, out: Float[Tensor, "b T H W c"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Latents)
        draws = self.config.draws
        error = self.diffusion.loss(corrupted.target.values, out, rng, draws=draws)
        return Losses.of({"denoising": mean_where(error, corrupted.predict)})

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W c"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """`temperature` scales the noise of the head's steps. Drawn are hidden positions alone."""
        assert abs(sum(weights) - 1) < 1e-6, "weights must sum to 1"
        values = self.diffusion.sample(
            outs,
            weights,
            rng.fold("head"),
            num_steps=self.config.head_steps,
            temperature=temperature,
            where=~state.known if state.wanted is None else state.wanted,
        )
        return Prediction(values=values)

    def data_prediction(
        self, out: Float[Tensor, "b T H W c"], state: State
    ) -> Float[Tensor, "b T H W d"]:
        """The head's mean over fixed draws of noise."""
        rng = Rng.make(0, "mean of the head", torch.arange(len(out), device=out.device))
        return self.diffusion.mean(out, rng, draws=_MEAN_DRAWS)
