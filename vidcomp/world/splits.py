"""Splits: which clips a generator may train on, and how far the others are from them.

One idea holds all rules: a clip lies in a cell (`vidcomp.world.cells`: its combination and, where
the split looks at the clip's own numbers, which of them are novel), and a split is a set of cells
to train on. Level = the number of factors that must change to reach the nearest of these
(arXiv:2510.03075, the project page): level 0 is called "seen", then "level-1", "level-2", ...

A split has a hash, which every run records, and `refuse_held_out`, through which every training
batch of a generator goes: leaking a held-out clip is impossible, not just unlikely. Whoever asks a
split gives classes *and* values of clips, since classes alone do not tell the level under all
rules.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor

from vidcomp.config import Settings, UserError
from vidcomp.world.cells import Cells
from vidcomp.world.factors import Factors
from vidcomp.world.predicates import parse, require_one_number
from vidcomp.world.split_rules import (
    all_but_a_fraction,
    latin,
    listed,
    num_novel,
    require_factors,
)

LEVEL_COLOURS = ("tab:blue", "hotpink", "tab:red", "darkred")
"""The first paper's colours: blue seen, pink level-1, red level-2."""

_RULES: Mapping[str, tuple[str, ...]] = {  # the keys of each
    "base_novel": ("novel", "max_novel"),
    "range": ("seen",),
    "explicit": ("train",),
    "fraction": ("held_out", "seed"),
    "latin": ("symbols", "over"),
}


class SplitConfig(Settings):
    """How clips are held out.

    rule=base_novel: each factor has novel classes, or a predicate on the clip's own numbers that is
    true of novel ones: ``novel: {colour: [blue], size: "x < 0.2"}``. A clip with more than
    `max_novel` novel factors is held out. Three bits with `max_novel: 1` give the paper's levels:
    {000, 100, 010, 001} seen, {011, 101, 110} level-1, {111} level-2.
    rule=range: held out is a clip with a number outside its range: ``seen: {count: [1, 3]}``.
    rule=explicit: `train` lists the training combinations, each a mapping factor: class.
    rule=fraction: the share `held_out` of the combinations, drawn by `seed`; each class is seen.
    rule=latin: seen are the `symbols` of a Latin square `over` some factors (all, if none is
    named): the sum of their class ids, modulo the most classes of one of them; each class is seen.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # class names may be counts: [0, 1, 2]

    rule: Literal["base_novel", "range", "explicit", "fraction", "latin"] = "base_novel"
    novel: dict[str, str | tuple[str, ...]] = {}
    max_novel: int = Field(default=1, ge=0)
    seen: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    train: tuple[dict[str, str], ...] = ()
    held_out: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0
    symbols: tuple[int, ...] = ()
    over: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _belongs_to_rule(self) -> "SplitConfig":
        taken = _RULES[self.rule]
        for rule, keys in _RULES.items():
            for key in keys:
                is_given = getattr(self, key) != type(self).model_fields[key].default
                if is_given and rule != self.rule:
                    raise ValueError(
                        f"{key!r} belongs to rule={rule}; rule={self.rule} takes "
                        f"{', '.join(taken)}; {key}=null drops it"
                    )
        if self.rule != "base_novel" and not getattr(self, taken[0]):
            raise ValueError(f"rule={self.rule} takes a non-empty {taken[0]!r}")
        for text in self._predicates().values():
            parse(text)
        for name, (low, high) in self.seen.items():
            if low > high:
                raise ValueError(f"seen.{name}: the range [{low}, {high}] is empty")
        return self

    def _predicates(self) -> dict[str, str]:
        """What is true of a factor's novel numbers."""
        novel = {name: text for name, text in self.novel.items() if isinstance(text, str)}
        ranges = {name: f"not {low!r} <= x <= {high!r}" for name, (low, high) in self.seen.items()}
        return novel | ranges

    def build(self, factors: Factors) -> "Split":
        """The split; raises UserError if a name is unknown or nothing is left to train on."""
        require_factors(factors, self.novel, "split.novel")
        require_factors(factors, self.seen, "split.seen")
        for name in self.seen:
            require_one_number(factors.items[factors.names.index(name)])
        cells = Cells.of(factors, self._predicates())
        match self.rule:
            case "explicit":
                trained = listed(factors, self.train)
            case "fraction":
                trained = all_but_a_fraction(factors, self.held_out, seed=self.seed)
            case "latin":
                trained = latin(factors, self.over, self.symbols)
            case "range":
                trained = num_novel(cells, {}) == 0
            case "base_novel":
                listed_novel = {k: c for k, c in self.novel.items() if not isinstance(c, str)}
                trained = num_novel(cells, listed_novel) <= self.max_novel
        if not (trained & cells.possible).any():
            keys = ", ".join(f"{key}={getattr(self, key)}" for key in _RULES[self.rule])
            raise UserError(f"the split leaves no combination to train on ({keys})")
        return Split(cells, tuple(trained.tolist()))


class Requests(NamedTuple):
    """What clips are asked to show."""

    classes: Int64[Tensor, "n f"]
    values: Float[Tensor, "n f v"]


class Occurrences(NamedTuple):
    """Combinations, each with a level at which it can occur."""

    classes: Int64[Tensor, "n f"]
    levels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Split:
    """A set of cells to train on: `trained[i]` says whether the cell with id `i` is one."""

    cells: Cells
    trained: tuple[bool, ...]

    @property
    def factors(self) -> Factors:
        return self.cells.factors

    @property
    def digest(self) -> str:
        """Twelve hex digits of what is trained and what is held out."""
        content: list[object] = [self.factors.to_json(), self.trained]
        if any(self.cells.predicates):
            content.append([predicate and predicate.text for predicate in self.cells.predicates])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def levels(
        self, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
    ) -> Int64[Tensor, " b"]:
        """The level of each clip: 0 is seen."""
        return self._cell_levels.to(classes.device)[self.cells.ids(classes, values)]

    def seen(
        self, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
    ) -> Bool[Tensor, " b"]:
        """Which clips a generator may train on."""
        return self.levels(classes, values) == 0

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels that can occur, from seen upwards."""
        return tuple(level_name(k) for k in self.occurrences.levels.unique().tolist())

    @cached_property
    def occurrences(self) -> Occurrences:
        """Every combination with each level at which it can occur. Where no rule looks at a clip's
        own numbers, row i is combination id i."""
        possible = self.cells.possible.nonzero()[:, 0]
        ids = self.factors.combination_ids(self.cells.classes(possible))
        pairs = torch.stack([ids, self._cell_levels[possible]], dim=1).unique(dim=0)
        return Occurrences(self.factors.combinations()[pairs[:, 0]], pairs[:, 1])

    def combinations_of(self, level: str) -> Int64[Tensor, "n f"]:
        """Class ids of the combinations that can occur at a level."""
        of_level = [level_name(k) == level for k in self.occurrences.levels.tolist()]
        return self.occurrences.classes[torch.tensor(of_level)]

    def requests(self, level: str, num_clips: int) -> Requests:
        """`num_clips` requests for a level, evenly over its cells, each at least once."""
        if level not in self.level_names:
            raise UserError(
                f"no clip can be at {level!r} of this split; legal: {', '.join(self.level_names)}"
            )
        of_level = torch.tensor([level_name(k) == level for k in self._cell_levels.tolist()])
        cells = (of_level & self.cells.possible).nonzero()[:, 0]
        asked = cells[torch.arange(max(num_clips, len(cells))) % len(cells)]
        return Requests(self.cells.classes(asked), self.cells.values(asked))

    def refuse_held_out(
        self, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
    ) -> None:
        """Raise UserError if any clip is held out. Every batch of a generator passes here."""
        levels = self.levels(classes, values)
        held_out = levels > 0
        if held_out.any():
            worst = int(levels.argmax())
            example = self.factors.describe(classes[worst])
            for f, predicate in enumerate(self.cells.predicates):
                if predicate is not None:
                    example += f", {predicate.factor.name} {predicate.said_of(values[worst, f])}"
            raise UserError(
                f"{int(held_out.sum())} of {len(classes)} training clips show held-out "
                f"combinations, such as '{example}' ({level_name(int(levels[worst]))} of split "
                f"{self.digest}); a generator trains on seen combinations only: set "
                "combinations=seen, or change the split"
            )

    @cached_property
    def _cell_levels(self) -> Int64[Tensor, " n"]:
        """Of every cell: the Hamming distance to the nearest trained one that clips can lie in."""
        trained, axes = torch.tensor(self.trained), range(len(self.factors))
        levels = torch.where(trained, 0, -1)
        reached = (trained & self.cells.possible).reshape(self.cells.sizes)
        for level in range(1, len(self.factors) + 1):
            # Changing one factor: a line of the grid is reached from any of its cells.
            for line in [reached.any(axis, keepdim=True) for axis in axes]:
                reached = reached | line
            levels[reached.flatten() & (levels < 0)] = level
        return levels


def level_name(level: int) -> str:
    """``seen``, ``level-1``, ``level-2``, ..."""
    return "seen" if level == 0 else f"level-{level}"
