"""Conditions: what a clip should show, which of it is given, and how the network is told.

Two rates of dropping, never one: `drop_joint` drops all factors of a clip at once, which teaches
the unconditional model that guidance needs; `drop_factor` drops each factor alone, which is the
first paper's *incomplete conditioning* (arXiv:2510.03075, RQ3). Its sources have two
ways of that, and do not say which one made the figure: a learned null drawn for each sample, and
zeros drawn for a whole batch. Both are here.
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
from vidcomp.world.factors import Factor, Factors

Share = Annotated[float, Field(ge=0, le=1)]
Encoding = Literal["class", "exact", "quantized"]


class ConditioningConfig(Settings):
    """`encode`: ``class`` (the default: a table), ``exact`` (a factor's continuous value) or
    ``quantized`` (that value in `bins` equal bins of its range; of two classes, 2 are the paper's
    binary labels), for all factors, or by factor's name. Factors without numbers stay classes.

    `path`: factors are summed into adaLN, or stand before the clip as context tokens, or both.

    `drop_per`, `drop_to`: see the module's text. `prefix`: the share of training clips whose first
    latent frames are given, so that the model learns to continue clips.
    """

    encode: Encoding | dict[str, Encoding] = "class"
    bins: Annotated[int, Field(ge=2)] = 2
    path: Literal["adaln", "tokens", "both"] = "adaln"
    drop_joint: Share = 0.1
    drop_factor: Share = 0.0
    drop_per: Literal["sample", "batch"] = "sample"
    drop_to: Literal["learned", "zeros"] = "learned"
    prefix: Share = 0.0

    def encoding_of(self, factor: Factor) -> Encoding:
        """How the network is told of a factor."""
        if isinstance(self.encode, dict):
            return self.encode.get(factor.name, "class")
        return self.encode if factor.value_size else "class"


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
        alone = rng.fold("drop_factor")
        alone = alone.of_batch() if config.drop_per == "batch" else alone
        each = alone.bernoulli(config.drop_factor, self.classes.shape[1])
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


@dataclass(frozen=True)
class Embedded:
    """What the trunk is told: `vector` goes into adaLN, `tokens` stand before the clip."""

    vector: Float[Tensor, "b c"]
    tokens: Float[Tensor, "b m c"] | None = None


class ConditionEmbedding(nn.Module):
    """Embeds each factor and the level."""

    def __init__(self, config: ConditioningConfig, factors: Factors, width: int) -> None:
        super().__init__()
        if isinstance(config.encode, dict):
            _check_encodings(config.encode, factors)
        self.config = config
        self.factors = factors
        self.of_factor = nn.ModuleList(
            _embedding(config.encoding_of(f), f, config.bins, width) for f in factors.items
        )
        learned, in_tokens = config.drop_to == "learned", config.path != "adaln"
        shape = (len(factors), width)
        self.null = nn.Parameter(torch.zeros(shape)) if learned and len(factors) else None
        self.slot = nn.Parameter(0.02 * torch.randn(shape)) if in_tokens and len(factors) else None
        self.of_level = FourierEmbedding(1, width, max_frequency=16.0)

    def forward(self, condition: Condition, level: Float[Tensor, " b"]) -> Embedded:
        vector = self.of_level(level[:, None])
        if not len(self.factors):
            return Embedded(vector)
        told = torch.stack(
            [
                embed(condition.values[:, f, : factor.value_size])
                if self.config.encoding_of(factor) != "class"
                else embed(condition.classes[:, f])
                for f, (embed, factor) in enumerate(
                    zip(self.of_factor, self.factors.items, strict=True)
                )
            ],
            dim=1,
        )  # b f c
        null = 0.0 if self.null is None else self.null.to(told.dtype)
        told = torch.where(condition.given[..., None], told, null)
        if self.config.path != "tokens":
            vector = vector + told.sum(1)
        return Embedded(vector, None if self.slot is None else told + self.slot)


class BinnedEmbedding(nn.Module):
    """The sum of a table's rows: one row for the bin that each number of a factor's value falls
    into.

    The widest range has `bins` bins. Narrower ones have as many as are needed for bins no wider
    than these, which may be one: with 2 bins, what is told of red and blue is which of them it is,
    and not whether the green in it is above the mean.
    """

    low: Tensor
    bin_width: Tensor
    num_bins: Tensor
    first_row: Tensor

    def __init__(self, factor: Factor, *, bins: int, width: int) -> None:
        super().__init__()
        prototypes = torch.tensor([c.prototype for c in factor.classes])
        spreads = torch.tensor([c.spread for c in factor.classes])
        low, high = (prototypes - spreads).amin(0), (prototypes + spreads).amax(0)
        extent = high - low
        shares = extent / extent.amax().clamp_min(1e-12)  # 1e-3: 1/3 of 3 bins is one bin
        num_bins = (shares * bins - 1e-3).ceil().long().clamp_min(1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("bin_width", extent / num_bins, persistent=False)
        self.register_buffer("num_bins", num_bins, persistent=False)
        self.register_buffer("first_row", num_bins.cumsum(0) - num_bins, persistent=False)
        self.table = nn.Embedding(int(num_bins.sum()), width)
        self._refuse_to_merge_classes(factor, prototypes)

    def bins_of(self, values: Float[Tensor, "b v"]) -> Int64[Tensor, "b v"]:
        """The bin of each number; those beyond the range fall into the outermost."""
        bins = ((values - self.low) / self.bin_width.clamp_min(1e-12)).floor().long()
        return torch.minimum(bins.clamp_min(0), self.num_bins - 1)

    def forward(self, values: Float[Tensor, "b v"]) -> Float[Tensor, "b c"]:
        return self.table(self.bins_of(values) + self.first_row).sum(1)

    def _refuse_to_merge_classes(self, factor: Factor, prototypes: Float[Tensor, "k v"]) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for name, bins in zip(factor.class_names, self.bins_of(prototypes).tolist(), strict=True):
            if (other := seen.setdefault(tuple(bins), name)) != name:
                raise UserError(
                    f"conditioning.bins={self.num_bins.amax()} puts {other!r} and {name!r} of "
                    f"factor {factor.name!r} into one bin; use more bins, or encode it as 'class'"
                )


def _embedding(encoding: Encoding, factor: Factor, bins: int, width: int) -> nn.Module:
    match encoding:
        case "class":
            return nn.Embedding(len(factor.classes), width)
        case "exact":
            return FourierEmbedding(factor.value_size, width, max_frequency=4.0)
        case "quantized":
            return BinnedEmbedding(factor, bins=bins, width=width)


def _check_encodings(encode: dict[str, Encoding], factors: Factors) -> None:
    for name, encoding in encode.items():
        if name not in factors.names:
            raise UserError(
                f"conditioning.encode: no factor {name!r}; {nearest(name, factors.names)}"
            )
        if encoding != "class" and not factors.items[factors.names.index(name)].value_size:
            raise UserError(
                f"conditioning.encode: factor {name!r} has no continuous value; use 'class'"
            )
