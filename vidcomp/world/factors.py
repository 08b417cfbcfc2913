"""Factors: the named concepts that a clip combines, their classes, and the continuous values inside
a class.

A factor has classes (``colour``: red, blue). A class has a prototype value (an RGB) and a spread:
the half-width of the box around the prototype that values are drawn from, as in the first paper's
Shapes2D (arXiv:2510.03075; so in an author's development code), where colour and size vary inside a
class. A factor whose classes have no number behind them (``shape``) has values of dimension 0.

`temporal` factors (motion) can only be read from neighbouring frames, never from one frame.

A dataset may have no factors at all: then there is one combination, the empty one.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest

Kind = Literal["categorical", "ordinal", "continuous"]


@dataclass(frozen=True)
class FactorClass:
    """One class. `prototype` and `spread` have the same length, 0 if there is no number."""

    name: str
    prototype: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Factor:
    """A named concept. `unit` says what the numbers of its classes are.

    `kind`: the classes of an ordinal factor stand in their order; those of a continuous one are
    ranges of one quantity.
    """

    name: str
    classes: tuple[FactorClass, ...]
    unit: str = ""
    temporal: bool = False
    kind: Kind = "categorical"

    @property
    def value_size(self) -> int:
        return len(self.classes[0].prototype)

    @property
    def min_frames(self) -> int:
        """The fewest frames that show it."""
        return 2 if self.temporal else 1

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def index(self, class_name: str) -> int:
        """The id of a class by name; raises, naming the legal ones."""
        if class_name not in self.class_names:
            raise UserError(
                f"factor {self.name!r} has no class {class_name!r}; "
                f"{nearest(class_name, self.class_names)}"
            )
        return self.class_names.index(class_name)


@dataclass(frozen=True)
class Factors:
    """The factors of a dataset, in a fixed order. Tables of ids and values follow this order."""

    items: tuple[Factor, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.items)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of classes of each factor."""
        return tuple(len(f.classes) for f in self.items)

    @property
    def value_size(self) -> int:
        """`v`: the most numbers that any factor's value has; shorter ones are padded with 0."""
        return max((f.value_size for f in self.items), default=0)

    @property
    def num_combinations(self) -> int:
        return math.prod(self.sizes)

    def combinations(self) -> Int64[Tensor, "n f"]:
        """Class ids of all combinations, the last factor fastest; row `i` is combination id `i`."""
        rows = list(itertools.product(*(range(size) for size in self.sizes)))
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(self))

    def combination_ids(self, classes: Int64[Tensor, "b f"]) -> Int64[Tensor, " b"]:
        """The row of `combinations()` that each row of `classes` is."""
        ids = torch.zeros(len(classes), dtype=torch.int64, device=classes.device)
        for column, size in enumerate(self.sizes):
            ids = ids * size + classes[:, column]
        return ids

    def prototypes(self, classes: Int64[Tensor, "b f"]) -> Float[Tensor, "b f v"]:
        """The prototypes of `classes`: what a generator is asked for when only names are given."""
        return self._values([[c.prototype for c in f.classes] for f in self.items], classes)

    def spreads(self, classes: Int64[Tensor, "b f"]) -> Float[Tensor, "b f v"]:
        """The half-widths of the boxes that values of `classes` are drawn from."""
        return self._values([[c.spread for c in f.classes] for f in self.items], classes)

    def without_spread(self) -> "Factors":
        """The same factors, where every value of a class is its prototype."""
        items: list[Factor] = []
        for factor in self.items:
            classes = [replace(c, spread=(0.0,) * len(c.spread)) for c in factor.classes]
            items.append(replace(factor, classes=tuple(classes)))
        return Factors(tuple(items))

    def _values(
        self, numbers: list[list[tuple[float, ...]]], classes: Int64[Tensor, "b f"]
    ) -> Float[Tensor, "b f v"]:
        table = torch.zeros(len(self), max(self.sizes, default=1), self.value_size)
        for f, of_factor in enumerate(numbers):
            for k, of_class in enumerate(of_factor):
                table[f, k, : len(of_class)] = torch.tensor(of_class)
        rows = torch.arange(len(self), device=classes.device)
        return table.to(classes.device)[rows, classes]

    def parse(self, named: Sequence[Mapping[str, str]]) -> Int64[Tensor, "b f"]:
        """Class ids from ``[{"shape": "circle", "colour": "red"}, ...]``; no factor may lack."""
        rows: list[list[int]] = []
        for entry in named:
            for key in entry:
                if key not in self.names:
                    raise UserError(f"no factor {key!r}; {nearest(key, self.names)}")
            missing = [name for name in self.names if name not in entry]
            if missing:
                legal = "; ".join(f"{f.name}: {', '.join(f.class_names)}" for f in self.items)
                raise UserError(f"the condition lacks {', '.join(missing)}; legal: {legal}")
            rows.append([f.index(entry[f.name]) for f in self.items])
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(self))

    def describe(self, classes: Int64[Tensor, " f"]) -> str:
        """``"circle red right"``."""
        return " ".join(f.class_names[int(k)] for f, k in zip(self.items, classes, strict=True))

    def to_json(self) -> list[dict[str, object]]:
        """Plain data, for the manifest of a dataset and for checkpoints."""
        return [
            {
                "name": f.name,
                "unit": f.unit,
                "temporal": f.temporal,
                "kind": f.kind,
                "classes": [
                    {"name": c.name, "prototype": list(c.prototype), "spread": list(c.spread)}
                    for c in f.classes
                ],
            }
            for f in self.items
        ]

    @classmethod
    def from_json(cls, items: list[dict[str, Any]]) -> "Factors":
        """The inverse of `to_json`."""
        factors: list[Factor] = []
        for item in items:
            classes: list[FactorClass] = []
            for c in item["classes"]:
                classes.append(FactorClass(c["name"], tuple(c["prototype"]), tuple(c["spread"])))
            kind = item.get("kind", "categorical")  # datasets rendered before kinds were told
            factor = Factor(item["name"], tuple(classes), item["unit"], item["temporal"], kind)
            factors.append(factor)
        return cls(tuple(factors))
