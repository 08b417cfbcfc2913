"""Splits: which combinations a generator may train on, and how far the others are from them.

Level = the number of factors that must change to reach the nearest training combination
(arXiv:2510.03075, section 3): level 0 is called "seen", then "level-1", "level-2", ... A split has
a hash, which every run records, and `refuse_held_out`, through which every training batch of a
generator goes: leaking a held-out combination is impossible, not just unlikely.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import model_validator
from torch import Tensor

from vidcomp.config import Settings, UserError
from vidcomp.world.factors import Factors

LEVEL_COLOURS = ("tab:blue", "hotpink", "tab:red", "darkred")
"""The first paper's colours: blue seen, pink level-1, red level-2."""


class SplitConfig(Settings):
    """How combinations are held out.

    rule=base_novel: each factor has novel classes; a combination with more than `max_novel` of them
    is held out. Three bits with `max_novel: 1` give the paper's levels: {000, 100, 010, 001} seen,
    {011, 101, 110} level-1, {111} level-2.
    rule=explicit: `train` lists the training combinations, each a mapping factor: class.
    """

    rule: Literal["base_novel", "explicit"] = "base_novel"
    novel: dict[str, tuple[str, ...]] = {}
    max_novel: int = 1
    train: tuple[dict[str, str], ...] = ()

    @model_validator(mode="after")
    def _belongs_to_rule(self) -> "SplitConfig":
        if self.rule == "explicit" and (not self.train or self.novel):
            raise ValueError("rule=explicit takes a non-empty 'train' list and no 'novel'")
        if self.rule == "base_novel" and self.train:
            raise ValueError(
                "'train' belongs to rule=explicit; rule=base_novel takes 'novel' and 'max_novel'"
            )
        return self

    def build(self, factors: Factors) -> "Split":
        """The split; raises UserError if a name is unknown or nothing is left to train on."""
        combinations = factors.combinations()
        if self.rule == "explicit":
            trained = torch.zeros(len(combinations), dtype=torch.bool)
            trained[factors.combination_ids(factors.parse(self.train))] = True
        else:
            novel = torch.zeros(len(combinations), dtype=torch.int64)
            for name, classes in self.novel.items():
                if name not in factors.names:
                    raise UserError(
                        f"split.novel names no factor {name!r}; legal: {', '.join(factors.names)}"
                    )
                column = factors.names.index(name)
                ids = torch.tensor([factors.items[column].index(c) for c in classes])
                novel += torch.isin(combinations[:, column], ids)
            trained = novel <= self.max_novel
        if not trained.any():
            raise UserError(
                f"the split leaves no combination to train on (max_novel={self.max_novel})"
            )
        return Split(factors, tuple(trained.tolist()))


@dataclass(frozen=True)
class Split:
    """A set of training combinations. `trained[i]` says whether combination id `i` is one."""

    factors: Factors
    trained: tuple[bool, ...]

    @property
    def digest(self) -> str:
        """Twelve hex digits of what is trained and what is held out."""
        text = json.dumps([self.factors.to_json(), self.trained], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def combination_levels(self) -> Int64[Tensor, " n"]:
        """Of every combination id: the Hamming distance to the nearest training combination."""
        combinations = self.factors.combinations()
        seen = combinations[torch.tensor(self.trained)]
        return (combinations[:, None] != seen[None]).sum(-1).amin(1)

    def levels(self, classes: Int64[Tensor, "b f"]) -> Int64[Tensor, " b"]:
        """The level of each row of class ids: 0 is seen."""
        return self.combination_levels().to(classes.device)[self.factors.combination_ids(classes)]

    def seen(self, classes: Int64[Tensor, "b f"]) -> Bool[Tensor, " b"]:
        """Which rows a generator may train on."""
        return self.levels(classes) == 0

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels that occur, from seen upwards."""
        return tuple(level_name(k) for k in sorted(set(self.combination_levels().tolist())))

    def combinations_of(self, level: str) -> Int64[Tensor, "n f"]:
        """Class ids of the combinations of a level."""
        of_level = [level_name(k) == level for k in self.combination_levels().tolist()]
        return self.factors.combinations()[torch.tensor(of_level)]

    def requests(self, level: str, num_clips: int) -> Int64[Tensor, "n f"]:
        """`num_clips` requests for a level, evenly over its combinations, each at least once."""
        combinations = self.combinations_of(level)
        rows = torch.arange(max(num_clips, len(combinations)))
        return combinations[rows % len(combinations)]

    def refuse_held_out(self, classes: Int64[Tensor, "b f"]) -> None:
        """Raise UserError if any row is held out. Every batch of a generator passes here."""
        held_out = ~self.seen(classes)
        if held_out.any():
            example = self.factors.describe(classes[held_out][0])
            raise UserError(
                f"{int(held_out.sum())} of {len(classes)} training clips show held-out "
                f"combinations, such as '{example}' (split {self.digest}); a generator trains on "
                "seen combinations only: set combinations=seen, or change the split"
            )


def level_name(level: int) -> str:
    """``seen``, ``level-1``, ``level-2``, ..."""
    return "seen" if level == 0 else f"level-{level}"
