"""The contract of the family `objectives`: how clean latents are corrupted, and what the network
must answer.

An objective owns the two ends of the network: `embed` turns a corrupted clip into hidden vectors,
`head` turns the trunk's hidden vectors into an output, and `read` turns outputs into what should
stand at each position. Which network lies between, which tokenizer made the latents, and in which
order positions are filled at sampling, it does not know.

Guidance happens in `read`: it gets one output for each condition, with weights that sum to 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vidcomp.config import Family, UserError, Variant
from vidcomp.schedules import MaskKind, MaskSchedule, NoisePath, PathPoint, Schedule
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where

OBJECTIVES = Family("vidcomp.objectives")

Lookup = Callable[[Int64[Tensor, "b T H W q"]], Latents]
"""A discrete tokenizer's: the latents that codes stand for."""


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

    def learn_codes(self, lookup: Lookup) -> None:
        """Called before training on a discrete tokenizer's latents, for losses that need to know
        how far codes are from each other."""
        return

    def clean(self, latents: Latents) -> State:
        """The state in which nothing is hidden and nothing is noised: what JEPA's target network
        sees.
        """
        known = latents.values.new_ones(latents.values.shape[:-1], dtype=torch.bool)
        return State(latents, known, latents.values.new_ones(len(latents)))


class MaskedConfig(Config, ABC):
    """`schedule`: the share that is masked, in training and sampling alike. `loss_on`: masked
    positions alone, or visible ones too."""

    schedule: MaskKind = "cosine"
    loss_on: Literal["masked", "all"] = "masked"


class Masked(Objective, ABC):
    """What masked objectives share: a share of the positions is hidden, whatever they hold."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.schedule = self.masking = MaskSchedule(config.schedule)
        self.loss_on = config.loss_on

    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        level = rng.fold("level").uniform()
        free = ~given.flatten(1)  # b n
        num_free = free.sum(1)
        num_masked = (self.masking.share(level) * num_free).ceil().long().clamp_min(1)
        # The masked positions are the first ones in a random order of the free ones.
        order = rng.fold("mask").uniform(free.shape[1]).masked_fill(~free, torch.inf)
        rank = order.argsort(dim=1, stable=True).argsort(1)
        masked = ((rank < num_masked[:, None]) & free).reshape(given.shape)
        predict = masked if self.loss_on == "masked" else ~given
        return Corrupted(State(clean, ~masked, level), target=clean, predict=predict)

    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        return State(known, given, known.values.new_zeros(len(known)))


class MaskedValues(Masked, ABC):
    """Masked objectives on continuous latents, or on the vectors of a discrete tokenizer's codes;
    of the codes themselves nothing is seen."""

    def __init__(self, config: MaskedConfig, channels: int, width: int) -> None:
        super().__init__(config)
        self.from_latents = nn.Linear(channels, width)
        self.hidden = nn.Parameter(0.02 * torch.randn(width))

    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        return super().corrupt(Latents(clean.values), given, rng)

    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        return super().start(Latents(known.values), given, rng)

    def embed(self, state: State) -> Float[Tensor, "b T H W c"]:
        known = self.from_latents(state.latents.values)
        return torch.where(state.known[..., None], known, self.hidden.to(known.dtype))


class Noised(Objective, ABC):
    """What objectives on a path from noise to latents share. A variant says at which levels it
    trains, what the network answers, and what data that answer means."""

    def __init__(self, channels: int, width: int, path: NoisePath) -> None:
        super().__init__()
        self.schedule = self.path = path
        self.from_latents = nn.Linear(channels, width)
        self.known = nn.Parameter(torch.zeros(width))  # tells clean positions from noised ones
        self.to_answer = nn.Linear(width, channels)
        nn.init.zeros_(self.to_answer.weight)
        nn.init.zeros_(self.to_answer.bias)

    @abstractmethod
    def levels(self, rng: Rng) -> Float[Tensor, " b"]:
        """The levels of a batch of training examples."""

    @abstractmethod
    def answer(self, point: PathPoint, data: Tensor, noise: Tensor) -> Tensor:
        """What the network should say."""

    @abstractmethod
    def data(self, point: PathPoint, x: Tensor, answer: Tensor) -> Tensor:
        """The latents that the network's answer at `x` means."""

    def weight(self, point: PathPoint) -> Float[Tensor, "..."]:
        """Of the squared error at a level."""
        return torch.ones_like(point.alpha)

    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        level = self.levels(rng.fold("level"))
        point = self._at(level)
        noise = rng.fold("noise").normal(*clean.values.shape[1:])
        seen = torch.where(given[..., None], clean.values, point.mix(clean.values, noise))
        answer = self.answer(point, clean.values, noise)
        return Corrupted(State(Latents(seen), given, level), target=answer, predict=~given)

    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        noise = rng.fold("noise").normal(*known.values.shape[1:])
        values = torch.where(given[..., None], known.values, noise)
        return State(Latents(values), given, values.new_zeros(len(values)))

    def embed(self, state: State) -> Float[Tensor, "b T H W c"]:
        return self.from_latents(state.latents.values) + state.known[..., None] * self.known

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W d"]:
        return self.to_answer(hidden)

    def loss(self, out: Float[Tensor, "b T H W d"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Tensor)
        weight = self.weight(self._at(corrupted.state.level))
        error = (weight * (out.float() - corrupted.target).square()).mean(-1)
        return Losses.of({"denoising": mean_where(error, corrupted.predict)})

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W d"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """`temperature` has no meaning here: the noise is in the start, and in the sampler."""
        return Prediction(values=self.data_prediction(combine(outs, weights), state))

    def data_prediction(
        self, out: Float[Tensor, "b T H W d"], state: State
    ) -> Float[Tensor, "b T H W d"]:
        """The latents that the answer means."""
        return self.data(self._at(state.level), state.latents.values, out.float())

    def _at(self, level: Float[Tensor, " b"]) -> PathPoint:
        """The path's points, shaped to multiply latents."""
        return self.path.at(level[:, None, None, None, None])


def require_codes(spec: LatentSpec, objective: str) -> tuple[int, ...]:
    """The codebook sizes of `spec`; raises if the tokenizer is continuous."""
    if spec.codebook_sizes is None:
        raise UserError(
            f"objective {objective} needs codes, but the tokenizer is continuous; "
            "use a discrete tokenizer (fsq, vq) or a continuous objective "
            "(flow, diffusion, givt, mar)"
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
