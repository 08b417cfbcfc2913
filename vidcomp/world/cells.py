"""Cells: how a split divides clips. Each factor is divided into its classes, and where a predicate
tells novel numbers from others, each class into two: base and novel.

A clip lies in one cell along each factor, and so in one cell of their grid. Cells have ids, the
last factor fastest; without predicates these are combination ids.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors
from vidcomp.world.predicates import Predicate

_MOST_CELLS = 1_000_000
_CANDIDATES = 4096
"""Values drawn in a class's box, among which requests find novel and base ones. As many again have
some numbers moved to the edge of the box, where clips lie if it was drawn around them."""


@dataclass(frozen=True)
class Cells:
    """The division by `factors` and, for some of them, a predicate that is true of novel
    numbers."""

    factors: Factors
    predicates: tuple[Predicate | None, ...]

    @classmethod
    def of(cls, factors: Factors, texts: Mapping[str, str]) -> "Cells":
        """The division by predicates given as text, by the name of their factor."""
        predicates = [
            Predicate.of(factor, texts[factor.name]) if factor.name in texts else None
            for factor in factors.items
        ]
        cells = cls(factors, tuple(predicates))
        if math.prod(cells.sizes) > _MOST_CELLS:
            raise UserError(
                f"{', '.join(factors.names)} have {math.prod(cells.sizes)} combinations, more than "
                f"a split can list ({_MOST_CELLS}); give the dataset fewer factors or classes"
            )
        return cells

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of cells along each factor."""
        return tuple(
            size * (2 if predicate else 1)
            for size, predicate in zip(self.factors.sizes, self.predicates, strict=True)
        )

    def ids(
        self, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
    ) -> Int64[Tensor, " b"]:
        """The cell of each clip."""
        self._refuse_strangers(classes, values)
        ids = torch.zeros(len(classes), dtype=torch.int64, device=classes.device)
        for f, (size, predicate) in enumerate(zip(self.sizes, self.predicates, strict=True)):
            along = classes[:, f]
            if predicate is not None:
                along = 2 * along + predicate(along, values[:, f])
            ids = ids * size + along
        return ids

    def along(self, ids: Int64[Tensor, " n"]) -> Int64[Tensor, "n f"]:
        """Where cells lie along each factor."""
        columns = [ids.new_zeros(len(ids), 0)]
        for size in reversed(self.sizes):
            columns.insert(0, (ids % size)[:, None])
            ids = ids // size
        return torch.cat(columns, dim=1)

    def classes(self, ids: Int64[Tensor, " n"]) -> Int64[Tensor, "n f"]:
        """The class ids of clips in these cells."""
        parts = [2 if predicate else 1 for predicate in self.predicates]
        return self.along(ids) // torch.tensor(parts, dtype=torch.int64)

    def values(self, ids: Int64[Tensor, " n"]) -> Float[Tensor, "n f v"]:
        """Values that lie in these cells: prototypes, and where there is a predicate, numbers drawn
        in the box of the class."""
        values, along = self.factors.prototypes(self.classes(ids)), self.along(ids)
        for f, of_factor in enumerate(self._drawn):
            for cell, drawn in enumerate(of_factor):
                rows = (along[:, f] == cell).nonzero()[:, 0]
                if len(rows):
                    values[rows, f, : drawn.shape[1]] = drawn[rows % len(drawn)]
        return values

    @cached_property
    def possible(self) -> Bool[Tensor, " n"]:
        """In which cells clips can lie: a class's box may hold no novel number, or no other."""
        possible = torch.ones(1, dtype=torch.bool)
        for size, of_factor in zip(self.sizes, self._drawn, strict=True):
            along = torch.tensor([len(drawn) > 0 for drawn in of_factor] or [True] * size)
            possible = (possible[:, None] & along).flatten()
        return possible

    @cached_property
    def _drawn(self) -> list[list[Float[Tensor, "n v"]]]:
        """For each factor with a predicate and each cell along it, numbers that lie there."""
        found: list[list[Tensor]] = [[] for _ in self.predicates]
        for of_factor, predicate in zip(found, self.predicates, strict=True):
            if predicate is None:
                continue
            for k, of_class in enumerate(predicate.factor.classes):
                purpose = f"numbers of {predicate.factor.name} {of_class.name}"
                rng = Rng.make(0, purpose, torch.arange(_CANDIDATES))
                box = torch.tensor([of_class.prototype, of_class.spread], dtype=torch.float64)
                prototype, spread = box.float()
                inside = prototype + spread * (rng.uniform(len(prototype)) * 2 - 1)
                side = rng.fold("edge").integers(3, len(prototype)) - 1
                edge = (box[0] + side * box[1]).float()  # exact: a box's ends are clips' numbers
                numbers = torch.cat([inside, inside.where(side == 0, edge)])
                novel = predicate(torch.full((len(numbers),), k), numbers)
                of_factor += [numbers[~novel], numbers[novel]]
        return found

    def _refuse_strangers(
        self, classes: Int64[Tensor, "b f"], values: Float[Tensor, "b f v"]
    ) -> None:
        """Raise UserError unless these are class ids and values of the factors."""
        sizes = torch.tensor(self.factors.sizes, dtype=torch.int64, device=classes.device)
        shapes_fit = classes.shape == values.shape[:2] and classes.shape[1] == len(sizes)
        if not shapes_fit or ((classes < 0) | (classes >= sizes)).any():
            raise UserError(
                f"these clips are not of the split's factors ({', '.join(self.factors.names)}): "
                f"class ids are 0 to {[size - 1 for size in self.factors.sizes]}, got "
                f"{classes.tolist()[:2]} ... with values of shape {tuple(values.shape)}"
            )
