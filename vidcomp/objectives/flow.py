"""Rectified flow: regress the velocity of the straight path from noise to latents
(arXiv:2209.03003).

Times are logit-normal (arXiv:2403.03206, section 3.1): most of the training at middle levels. Works
on the latents of any tokenizer, a discrete one's code vectors included.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidcomp.objectives import base
from vidcomp.schedules import RectifiedPath
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where


class Config(base.Config):
    """Rectified flow has no settings yet."""

    def build(self, spec: LatentSpec, width: int) -> "Flow":
        return Flow(spec.channels, width)


class Flow(base.Objective):
    """Unmasked, continuous."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.schedule = self.path = RectifiedPath()
        self.from_latents = nn.Linear(channels, width)
        self.known = nn.Parameter(torch.zeros(width))  # tells clean positions from noised ones
        self.to_velocity = nn.Linear(width, channels)
        nn.init.zeros_(self.to_velocity.weight)
        nn.init.zeros_(self.to_velocity.bias)

    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        level = rng.fold("level").normal().sigmoid()
        point = self.path.at(level[:, None, None, None, None])
        noise = rng.fold("noise").normal(*clean.values.shape[1:])
        mixed = point.alpha * clean.values + point.sigma * noise
        seen = torch.where(given[..., None], clean.values, mixed)
        velocity = point.velocity(clean.values, noise)
        return Corrupted(State(Latents(seen), given, level), target=velocity, predict=~given)

    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        noise = rng.fold("noise").normal(*known.values.shape[1:])
        values = torch.where(given[..., None], known.values, noise)
        return State(Latents(values), given, values.new_zeros(len(values)))

    def embed(self, state: State) -> Float[Tensor, "b T H W c"]:
        return self.from_latents(state.latents.values) + state.known[..., None] * self.known

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W d"]:
        return self.to_velocity(hidden)

    def loss(self, out: Float[Tensor, "b T H W d"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Tensor)
        error = (out.float() - corrupted.target).square().mean(-1)
        return Losses.of({"velocity": mean_where(error, corrupted.predict)})

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W d"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """`temperature` has no meaning here: an ODE's only noise is in its start."""
        return Prediction(values=self.data_prediction(base.combine(outs, weights), state))

    def data_prediction(
        self, out: Float[Tensor, "b T H W d"], state: State
    ) -> Float[Tensor, "b T H W d"]:
        """The latents that the velocity points at."""
        point = self.path.at(state.level[:, None, None, None, None])
        return point.data(state.latents.values, out.float())
