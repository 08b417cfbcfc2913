"""Conditions: what a clip should show, which of it is given, and how the network is told.

Two rates of dropping, never one: `drop_joint` drops all factors of a clip at once, which teaches
the unconditional model that guidance needs; `drop_factor` drops each factor alone, which is the
first paper's *incomplete conditioning* (arXiv:2510.03075, RQ3). Its sources have two
ways of that, and do not say which one made the figure: a learned null drawn for each sample, and
zeros drawn for a whole batch. Both are here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from vidcomp.config import Settings, UserError, nearest
from vidcomp.models.factor_embedding import Encoding, factor_embedding
from vidcomp.models.locations import LocationEmbedding, LocationsConfig
from vidcomp.nn.embeddings import FourierEmbedding
from vidcomp.seeding import Rng
from vidcomp.types import Grid
from vidcomp.world.factors import Factor, Factors
from vidcomp.world.locations import Locations

Share = Annotated[float, Field(ge=0, le=1)]


class ConditioningConfig(Settings):
    """`encode`: ``class`` (the default: a table), ``exact`` (a factor's continuous value) or
    ``quantized`` (that value in `bins` equal bins of its range; of two classes, 2 are the paper's
    binary labels), for all factors, or by factor's name. Factors without numbers stay classes.

    `tell`: the factors that the network is told at all; null means all. Where places are told, the
    number of objects should not be.

    `path`: factors are summed into adaLN, or stand before the clip as context tokens, or both.
    `locations`: the network is told where objects are, too.

    `drop_per`, `drop_to`: see the module's text. `prefix`: the share of training clips whose first
    latent frames are given, so that the model learns to continue clips.
    """

    encode: Encoding | dict[str, Encoding] = "class"
    bins: Annotated[int, Field(ge=2)] = 2
    tell: tuple[str, ...] | None = None
    path: Literal["adaln", "tokens", "both"] = "adaln"
    drop_joint: Share = 0.1
    drop_factor: Share = 0.0
    drop_per: Literal["sample", "batch"] = "sample"
    drop_to: Literal["learned", "zeros"] = "learned"
    prefix: Share = 0.0
    locations: LocationsConfig | None = None

    def told(self, factors: Factors) -> list[int]:
        """The columns of the factors that the network is told of."""
        names = factors.names if self.tell is None else self.tell
        for name in names:
            _require_factor("tell", name, factors)
        return [column for column, name in enumerate(factors.names) if name in names]

    def encoding_of(self, factor: Factor) -> Encoding:
        """How the network is told of a factor."""
        if isinstance(self.encode, dict):
            return self.encode.get(factor.name, "class")
        return self.encode if factor.value_size else "class"


@dataclass(frozen=True)
class Condition:
    """What is asked of each clip of a batch.

    `prefix_frames` is the number of first latent frames that are given as they are.

    `located`: whether a clip is told of places at all; there with `locations`. To be told that
    there is nothing anywhere is another thing than not to be told.
    """

    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    given: Bool[Tensor, "b f"]
    prefix_frames: Int64[Tensor, " b"]
    locations: Locations | None = None
    located: Bool[Tensor, " b"] | None = None

    @classmethod
    def of(
        cls,
        classes: Int64[Tensor, "b f"],
        values: Float[Tensor, "b f v"],
        locations: Locations | None = None,
    ) -> "Condition":
        """Every factor given, no prefix; told of places if there are `locations`."""
        if locations is not None and len(locations) != len(classes):
            raise UserError(
                f"{len(classes)} clips are asked for, with the places of {len(locations)}"
            )
        given = torch.ones_like(classes, dtype=torch.bool)
        nothing = classes.new_zeros(len(classes))
        located = None if locations is None else torch.ones_like(nothing, dtype=torch.bool)
        return cls(classes, values, given, nothing, locations, located)

    def keep(self, factors: Sequence[int]) -> "Condition":
        """Only the factors in these columns. The prefix stays, and so do the places."""
        kept = torch.zeros_like(self.given)
        kept[:, list(factors)] = True
        return replace(self, given=self.given & kept)

    def null(self) -> "Condition":
        """No factor and not told of places: the unconditional model. The prefix stays."""
        return self._located(torch.zeros_like(self.prefix_frames, dtype=torch.bool)).keep(())

    def giving(self, which: Bool[Tensor, "*b n"]) -> "Condition":
        """Of the objects that are given, only these."""
        assert self.locations is not None, "this condition has no objects"
        told = replace(self.locations, given=self.locations.given & which)
        return replace(self, locations=told)

    def nowhere(self) -> "Condition":
        """Told that there is no object."""
        return self.alone(-1)

    def alone(self, k: int) -> "Condition":
        """Only the object in row `k` given; in clips where it is not, no object is."""
        assert self.locations is not None, "this condition has no objects"
        rows = torch.arange(self.locations.given.shape[1], device=self.classes.device)
        return self.giving(rows == k)

    def or_else(self, other: "Condition", here: Bool[Tensor, " b"]) -> "Condition":
        """This where `here`, elsewhere `other`."""
        rows = torch.arange(len(here), device=here.device)
        return Condition.cat([self, other])[torch.where(here, rows, rows + len(here))]

    def dropped(self, config: ConditioningConfig, rng: Rng) -> "Condition":
        """Factors and places dropped as in training."""
        joint = rng.fold("drop_joint").bernoulli(config.drop_joint, 1)
        alone = rng.fold("drop_factor")
        alone = alone.of_batch() if config.drop_per == "batch" else alone
        each = alone.bernoulli(config.drop_factor, self.classes.shape[1])
        return replace(self._located(~joint[:, 0]), given=self.given & ~joint & ~each)

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
        return self._each(lambda x: x[rows])

    def to(self, device: "torch.device | str") -> "Condition":
        return self._each(lambda x: x.to(device))

    @classmethod
    def cat(cls, conditions: Sequence["Condition"]) -> "Condition":
        """One batch after the other: all are told of places, or none is."""
        places = [c.locations for c in conditions if c.locations is not None]
        located = [c.located for c in conditions if c.located is not None]
        assert len(places) == len(located) and len(places) in (0, len(conditions))
        return Condition(
            torch.cat([c.classes for c in conditions]),
            torch.cat([c.values for c in conditions]),
            torch.cat([c.given for c in conditions]),
            torch.cat([c.prefix_frames for c in conditions]),
            Locations.cat(places) if places else None,
            torch.cat(located) if located else None,
        )

    def _located(self, where: Bool[Tensor, " b"]) -> "Condition":
        """Told of places only `where`; elsewhere no object is given, either."""
        if self.located is None:
            return self
        return replace(self.giving(where[:, None]), located=self.located & where)

    def _each(self, change: Callable[[Any], Any]) -> "Condition":
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(x) for name, x in parts.items() if x is not None})


@dataclass(frozen=True)
class Embedded:
    """What the trunk is told: `vector` goes into adaLN, `tokens` stand before the clip, `local` is
    added to the hidden vectors of its positions."""

    vector: Float[Tensor, "b c"]
    tokens: Float[Tensor, "b m c"] | None = None
    local: Float[Tensor, "b T H W c"] | None = None


class ConditionEmbedding(nn.Module):
    """Embeds each factor that is told, the places, and the level."""

    def __init__(self, config: ConditioningConfig, factors: Factors, width: int) -> None:
        super().__init__()
        if isinstance(config.encode, dict):
            _check_encodings(config.encode, factors)
        self.config = config
        self.factors = factors
        self.told = config.told(factors)
        items = [factors.items[column] for column in self.told]
        self.by_value = [config.encoding_of(factor) != "class" for factor in items]
        self.of_factor = nn.ModuleList(
            factor_embedding(config.encoding_of(f), f, config.bins, width) for f in items
        )
        learned, in_tokens = config.drop_to == "learned", config.path != "adaln"
        shape = (len(items), width)
        self.null = nn.Parameter(torch.zeros(shape)) if learned and items else None
        self.slot = nn.Parameter(0.02 * torch.randn(shape)) if in_tokens and items else None
        self.of_level = FourierEmbedding(1, width, max_frequency=16.0)
        places = config.locations
        self.of_places = None if places is None else LocationEmbedding(places, width)

    def forward(self, condition: Condition, level: Float[Tensor, " b"], grid: Grid) -> Embedded:
        vector, tokens, local = self.of_level(level[:, None]), None, None
        if self.told:
            told = self._factors(condition)
            if self.config.path != "tokens":
                vector = vector + told.sum(1)
            tokens = None if self.slot is None else told + self.slot
        if self.of_places is not None:
            if condition.locations is None or condition.located is None:
                raise UserError(
                    "this generator is told where objects are (conditioning.locations); ask with "
                    "Condition.of(classes, values, locations)"
                )
            places = self.of_places(condition.locations, condition.located, grid)
            if places.ndim == vector.ndim:
                vector = vector + places
            else:
                local = places
        return Embedded(vector, tokens, local)

    def _factors(self, condition: Condition) -> Float[Tensor, "b m c"]:
        """A vector for each factor that is told, its null where it is not given."""
        each: list[Tensor] = []
        for column, by_value, embed in zip(self.told, self.by_value, self.of_factor, strict=True):
            size = self.factors.items[column].value_size
            values, classes = condition.values[:, column, :size], condition.classes[:, column]
            each.append(embed(values if by_value else classes))
        told = torch.stack(each, dim=1)
        null = 0.0 if self.null is None else self.null.to(told.dtype)
        return torch.where(condition.given[:, self.told, None], told, null)


def _check_encodings(encode: dict[str, Encoding], factors: Factors) -> None:
    for name, encoding in encode.items():
        _require_factor("encode", name, factors)
        if encoding != "class" and not factors.items[factors.names.index(name)].value_size:
            raise UserError(
                f"conditioning.encode: factor {name!r} has no continuous value; use 'class'"
            )


def _require_factor(key: str, name: str, factors: Factors) -> None:
    if name not in factors.names:
        raise UserError(f"conditioning.{key}: no factor {name!r}; {nearest(name, factors.names)}")
