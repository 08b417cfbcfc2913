"""Conditions: what a clip should show, which of it is given, and how the network is told.

Two rates of dropping, never one: `drop_joint` drops all factors of a clip at once, which teaches
the unconditional model that guidance needs; `drop_factor` drops each factor alone, which is the
first paper's *incomplete conditioning* (arXiv:2510.03075, section 4.3 there). A dropped factor
becomes a learned null.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from vidcomp.config import Settings, UserError, nearest
from vidcomp.nn.embeddings import FourierEmbedding
from vidcomp.seeding import Rng
from vidcomp.types import Grid
from vidcomp.world.factors import Factors

Share = Annotated[float, Field(ge=0, le=1)]


class ConditioningConfig(Settings):
    """`encode`: by factor name, ``class`` (the default: a table) or ``exact`` (its continuous
    value).

    `prefix`: the share of training clips whose first latent frames are given, so that the model
    learns to continue clips.
    """

    encode: dict[str, Literal["class", "exact"]] = {}
    drop_joint: Share = 0.1
    drop_factor: Share = 0.0
    prefix: Share = 0.0


@dataclass(frozen=True)
class Condition:
    """What is asked of each clip of a batch.

    `prefix_frames` is the number of first latent frames that are given as they are.
    """

    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    given: Bool[Tensor, "b f"]
    prefix_frames: Int64[Tensor, " b"]

    @classmethod
    def of(cls, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]) -> "Condition":
        """Every factor given, no prefix."""
        given = torch.ones_like(classes, dtype=torch.bool)
        return cls(classes, values, given, classes.new_zeros(len(classes)))

    def keep(self, factors: Sequence[int]) -> "Condition":
        """Only the factors in these columns. The prefix stays."""
        kept = torch.zeros_like(self.given)
        kept[:, list(factors)] = True
        return replace(self, given=self.given & kept)

    def null(self) -> "Condition":
        """No factor at all: the unconditional model. The prefix stays."""
        return self.keep(())

    def dropped(self, config: ConditioningConfig, rng: Rng) -> "Condition":
        """Factors dropped as in training."""
        joint = rng.fold("drop_joint").bernoulli(config.drop_joint, 1)
        each = rng.fold("drop_factor").bernoulli(config.drop_factor, self.classes.shape[1])
        return replace(self, given=self.given & ~joint & ~each)

    def with_prefix(self, config: ConditioningConfig, grid: Grid, rng: Rng) -> "Condition":
        """Between 1 and T - 1 first frames given, to a share of the clips."""
        frames = (rng.fold("prefix length").uniform() * (grid.t - 1)).ceil().long()
        return replace(self, prefix_frames=frames * rng.fold("prefix").bernoulli(config.prefix))

    def given_frames(self, frames: int) -> "Condition":
        """The same number of first latent frames given to every clip."""
        return replace(self, prefix_frames=torch.full_like(self.prefix_frames, frames))

    def given_positions(self, grid: Grid) -> Bool[Tensor, "b T H W"]:
        """The positions of the prefix."""
        time = torch.arange(grid.t, device=self.classes.device)
        given = time[None] < self.prefix_frames[:, None]  # b T
        return given[:, :, None, None].expand(-1, *grid)

    def __getitem__(self, rows: "Tensor | slice") -> "Condition":
        return Condition(
            self.classes[rows], self.values[rows], self.given[rows], self.prefix_frames[rows]
        )

    def to(self, device: "torch.device | str") -> "Condition":
        return Condition(
            self.classes.to(device),
            self.values.to(device),
            self.given.to(device),
            self.prefix_frames.to(device),
        )

    @classmethod
    def cat(cls, conditions: Sequence["Condition"]) -> "Condition":
        """One batch after the other."""
        return Condition(
            torch.cat([c.classes for c in conditions]),
            torch.cat([c.values for c in conditions]),
            torch.cat([c.given for c in conditions]),
            torch.cat([c.prefix_frames for c in conditions]),
        )


class ConditionEmbedding(nn.Module):
    """One vector a clip, adaLN's input: the sum of embeddings of each factor and of the level."""

    def __init__(self, config: ConditioningConfig, factors: Factors, width: int) -> None:
        super().__init__()
        for name, encoding in config.encode.items():
            if name not in factors.names:
                raise UserError(
                    f"conditioning.encode: no factor {name!r}; {nearest(name, factors.names)}"
                )
            if encoding == "exact" and factors.items[factors.names.index(name)].value_size == 0:
                raise UserError(
                    f"conditioning.encode: factor {name!r} has no continuous value; use 'class'"
                )
        self.factors = factors
        self.exact = [config.encode.get(f.name, "class") == "exact" for f in factors.items]
        self.of_factor = nn.ModuleList(
            FourierEmbedding(f.value_size, width, max_frequency=4.0)
            if exact
            else nn.Embedding(len(f.classes), width)
            for f, exact in zip(factors.items, self.exact, strict=True)
        )
        self.null = nn.Parameter(torch.zeros(len(factors), width))
        self.of_level = FourierEmbedding(1, width, max_frequency=16.0)

    def forward(self, condition: Condition, level: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        total = self.of_level(level[:, None])
        for f, (embed, factor) in enumerate(zip(self.of_factor, self.factors.items, strict=True)):
            if self.exact[f]:
                vector = embed(condition.values[:, f, : factor.value_size])
            else:
                vector = embed(condition.classes[:, f])
            total = total + torch.where(condition.given[:, f, None], vector, self.null[f])
        return total
