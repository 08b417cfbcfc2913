"""Diffusion: DDPM's noising in discrete timesteps, and its reversal (arXiv:2006.11239).

The first paper's DiT predicts the noise over T = 500 linear timesteps (arXiv:2510.03075; the number
is from an author's development code). That path ends at alpha = 0.08, so 8 % of the signal's
amplitude is still there where sampling begins with pure noise; `zero_terminal_snr` is the control.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from vidcomp.objectives import base
from vidcomp.schedules import BetaKind, DiffusionPath, PathPoint
from vidcomp.seeding import Rng
from vidcomp.types import LatentSpec


class Config(base.Config):
    """`predict`: the noise (eps), the data (x0), or v = alpha * noise - sigma * data
    (arXiv:2202.00512, appendix D). What eps says of the data is divided by alpha, which is 5e-5 at
    the start of the cosine path: few steps need v or x0 there.

    `min_snr_gamma` weighs levels by min(SNR, gamma), in units of the data's error
    (arXiv:2303.09556); None weighs the errors of what is predicted alike. 5 is usual.
    """

    num_timesteps: int = Field(default=500, ge=2)
    betas: BetaKind = "linear"
    predict: Literal["eps", "v", "x0"] = "eps"
    zero_terminal_snr: bool = False
    min_snr_gamma: PositiveFloat | None = None

    @model_validator(mode="after")
    def _noise_tells_nothing_of_no_signal(self) -> "Config":
        if self.zero_terminal_snr and self.predict == "eps":
            raise ValueError(
                "zero_terminal_snr leaves no signal at the first step, and noise alone does not "
                "tell the data; set predict to v or x0"
            )
        return self

    def build(self, spec: LatentSpec, width: int) -> "Diffusion":
        return Diffusion(self, spec.channels, width)


class Diffusion(base.Noised):
    """Unmasked, continuous, in timesteps."""

    def __init__(self, config: Config, channels: int, width: int) -> None:
        path = DiffusionPath(config.num_timesteps, config.betas, config.zero_terminal_snr)
        super().__init__(channels, width, path)
        self.config = config

    def levels(self, rng: Rng) -> Float[Tensor, " b"]:
        timesteps = 1 + rng.integers(self.config.num_timesteps)
        return 1 - timesteps / self.config.num_timesteps

    def answer(self, point: PathPoint, data: Tensor, noise: Tensor) -> Tensor:
        match self.config.predict:
            case "eps":
                return noise
            case "v":
                return point.v(data, noise)
            case "x0":
                return data

    def data(self, point: PathPoint, x: Tensor, answer: Tensor) -> Tensor:
        match self.config.predict:
            case "eps":
                return point.data(x, answer)
            case "v":
                return point.data_from_v(x, answer)
            case "x0":
                return answer

    def weight(self, point: PathPoint) -> Float[Tensor, "..."]:
        gamma = self.config.min_snr_gamma
        if gamma is None:
            return super().weight(point)
        snr = (point.alpha / point.sigma).square()
        of_data = snr.clamp_max(gamma)
        match self.config.predict:  # an error e of the answer is an error of the data of ...
            case "eps":  # e / SNR
                return torch.where(snr > 0, of_data / snr.clamp_min(1e-12), 1)
            case "v":  # e / (SNR + 1)
                return of_data / (snr + 1)
            case "x0":
                return of_data
