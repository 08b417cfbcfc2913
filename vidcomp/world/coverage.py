"""Coverage: what a split leaves to train on and what it holds out, counted and as text.

A terminal shows no more than two factors at a time, so the text has a table for each pair of them,
with a count for each level. The picture is `vidcomp.report.coverage`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.world.splits import Split, level_name

_MOST_CLASSES = 24
"""Factors of more classes, such as a label for each video, make no table that one could read."""


@dataclass(frozen=True)
class Coverage:
    """How many clips, or combinations, of each combination id are at each level."""

    split: Split
    counts: Int64[Tensor, "combinations levels"]
    unit: str

    @property
    def total(self) -> str:
        """``split 9cdcf81f6255 of 4000 clips: 2000 seen, 1500 level-1, 500 level-2``."""
        of_level = self.counts.sum(0).tolist()
        said = [f"{n} {level_name(k)}" for k, n in enumerate(of_level) if n]
        total = f"split {self.split.digest} of {sum(of_level)} {self.unit}"
        return f"{total}: {', '.join(said)}" if said else total

    def by(self, columns: Sequence[int]) -> Int64[Tensor, "*classes levels"]:
        """The counts by the classes of these factors, in this order, summed over the others."""
        sizes, num_levels = self.split.factors.sizes, self.counts.shape[1]
        others = [f for f in range(len(sizes)) if f not in columns]
        grid = self.counts.reshape(*sizes, num_levels).permute(*columns, *others, len(sizes))
        return grid.reshape(*(sizes[f] for f in columns), -1, num_levels).sum(-2)


def coverage_of_clips(
    split: Split, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
) -> Coverage:
    """What the split makes of these clips."""
    levels = split.levels(classes, values)
    return Coverage(split, _counts(split, classes, levels), "clips")


def coverage_of_combinations(split: Split) -> Coverage:
    """What the split makes of all combinations; one of two levels counts at both."""
    classes, levels = split.occurrences
    return Coverage(split, _counts(split, classes, levels), "combinations")


def coverage_text(coverage: Coverage) -> str:
    """A line of totals, then a table for each pair of factors; a dot stands for none."""
    items = coverage.split.factors.items
    shown = [f for f, factor in enumerate(items) if len(factor.classes) <= _MOST_CLASSES]
    pairs = list(itertools.combinations(shown, 2)) or [(f,) for f in shown]
    lines = [coverage.total]
    for pair in pairs:
        rows, *columns = sorted(pair, key=lambda f: -len(items[f].classes))  # tall, not wide
        table = coverage.by((rows, *columns))
        heads = items[columns[0]].class_names if columns else ("",)
        cells = [
            ["/".join(str(n) if n else "." for n in counts) for counts in row]
            for row in table.reshape(len(table), len(heads), -1).tolist()
        ]
        levels = "/".join(level_name(k) for k in range(table.shape[-1]))
        names = " x ".join(items[f].name for f in (rows, *columns))
        lines += ["", f"{names}, {coverage.unit}: {levels}"]
        names_and_cells = zip(items[rows].class_names, cells, strict=True)
        lines += _aligned([["", *heads], *([name, *row] for name, row in names_and_cells)])
    left_out = [factor.name for f, factor in enumerate(items) if f not in shown]
    if left_out:
        lines += ["", f"no table for {', '.join(left_out)}: more than {_MOST_CLASSES} classes"]
    return "\n".join(lines)


def _counts(
    split: Split, classes: Int64[Tensor, "b f"], levels: Int64[Tensor, " b"]
) -> Int64[Tensor, "combinations levels"]:
    num_levels = int(split.occurrences.levels.amax()) + 1
    if len(levels):
        num_levels = max(num_levels, int(levels.amax()) + 1)
    ids = split.factors.combination_ids(classes) * num_levels + levels
    return torch.bincount(ids, minlength=split.factors.num_combinations * num_levels).reshape(
        -1, num_levels
    )


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns of equal width, the first to the left and the others to the right."""
    first, *widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines: list[str] = []
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(["", name.ljust(first), *padded]).rstrip())
    return lines
