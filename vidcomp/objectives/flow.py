"""Rectified flow: regress the straight path from noise to latents (arXiv:2209.03003).

Training times are logit-normal by default (arXiv:2403.03206, section 3.1): most of the training at
middle levels. Works on the latents of any tokenizer, a discrete one's code vectors included.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from vidcomp.objectives import base
from vidcomp.schedules import PathPoint, RectifiedPath
from vidcomp.seeding import Rng
from vidcomp.types import LatentSpec


class Config(base.Config):
    """`times`: of the levels in training. `shift` moves them towards noise, as longer sequences
    need (arXiv:2403.03206, Eq. 23): 1 leaves them, 3 is usual at high resolution.

    `predict`: what the network answers; the loss is the squared error of that.
    """

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    shift: PositiveFloat = 1.0
    predict: Literal["velocity", "data", "noise"] = "velocity"

    def build(self, spec: LatentSpec, width: int) -> "Flow":
        return Flow(self, spec.channels, width)


class Flow(base.Noised):
    """Unmasked, continuous."""

    def __init__(self, config: Config, channels: int, width: int) -> None:
        super().__init__(channels, width, RectifiedPath())
        self.config = config

    def levels(self, rng: Rng) -> Float[Tensor, " b"]:
        logit_normal = self.config.times == "logit_normal"
        level = rng.normal().sigmoid() if logit_normal else rng.uniform()
        return level / (level + self.config.shift * (1 - level))

    def answer(self, point: PathPoint, data: Tensor, noise: Tensor) -> Tensor:
        match self.config.predict:
            case "velocity":
                return data - noise
            case "data":
                return data
            case "noise":
                return noise

    def data(self, point: PathPoint, x: Tensor, answer: Tensor) -> Tensor:
        match self.config.predict:
            case "velocity":
                return x + point.sigma * answer
            case "data":
                return answer
            case "noise":
                return point.data(x, answer)
