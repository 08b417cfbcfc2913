"""The contract of the family `objectives`: how clean latents are corrupted, and what the network
must answer.

An objective owns the two ends of the network: `embed` turns a corrupted clip into hidden vectors,
`head` turns the trunk's hidden vectors into an output, and `read` turns outputs into what should
stand at each position. Which network lies between, which tokenizer made the latents, and in which
order positions are filled at sampling, it does not know.

Guidance happens in `read`: it gets one output for each condition, with weights that sum to 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidcomp.config import Family, UserError, Variant
from vidcomp.schedules import Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State

OBJECTIVES = Family("vidcomp.objectives")


class Config(Variant, ABC):
    """Settings of an objective."""

    @abstractmethod
    def build(self, spec: LatentSpec, width: int) -> "Objective":
        """The objective for latents of `spec` and a trunk of `width` channels; raises UserError if
        they do not fit.
        """


class Objective(nn.Module, ABC):
    """See the module's text. `schedule` is the one that samplers read too."""

    schedule: Schedule

    @abstractmethod
    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        """A training example at a random level. `given` positions stay clean and carry no loss."""

    @abstractmethod
    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        """The state that sampling starts from: `known` at `given` positions, nothing elsewhere."""

    @abstractmethod
    def embed(self, state: State) -> Float[Tensor, "b T H W c"]: ...

    @abstractmethod
    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]: ...

    @abstractmethod
    def loss(self, out: Float[Tensor, "b T H W o"], corrupted: Corrupted, rng: Rng) -> Losses:
        """One value per clip, over the positions to predict alone."""

    @abstractmethod
    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W o"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """What should stand at each position, given one output for each guidance term."""

    @abstractmethod
    def data_prediction(
        self, out: Float[Tensor, "b T H W o"], state: State
    ) -> Float[Tensor, "b T H W *_"]:
        """What the network believes of the clean clip: the expected latents, or log-probabilities
        of codes. Differentiable; for analyses.
        """

    def clean(self, latents: Latents) -> State:
        """The state in which nothing is hidden and nothing is noised: what JEPA's target network
        sees.
        """
        known = latents.values.new_ones(latents.values.shape[:-1], dtype=torch.bool)
        return State(latents, known, latents.values.new_ones(len(latents)))


def require_codes(spec: LatentSpec, objective: str) -> tuple[int, ...]:
    """The codebook sizes of `spec`; raises if the tokenizer is continuous."""
    if spec.codebook_sizes is None:
        raise UserError(
            f"objective {objective} needs codes, but the tokenizer is continuous; "
            "use a discrete tokenizer (fsq, vq) or a continuous objective (flow)"
        )
    return spec.codebook_sizes


def combine(
    outs: Sequence[Float[Tensor, "b T H W o"]], weights: Sequence[float]
) -> Float[Tensor, "b T H W o"]:
    """The weighted sum of outputs, in float32: classifier-free guidance is weights (s, 1 - s)
    (arXiv:2207.12598, Eq. 6).
    """
    assert len(outs) == len(weights) and abs(sum(weights) - 1) < 1e-6, "weights must sum to 1"
    total = outs[0].float() * weights[0]
    for out, weight in zip(outs[1:], weights[1:], strict=True):
        total = total + weight * out.float()
    return total
