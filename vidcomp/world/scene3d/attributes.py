"""The class and the numbers that every solid of a clip has, factor by factor."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.factors import Factor, Factors


@dataclass(frozen=True)
class Attribute:
    """A factor of every solid: its class in the library, and its numbers."""

    ids: Int64[Tensor, "b n"]
    values: Float[Tensor, "b n v"]


def attribute_of(
    library: Factor,
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    rng: Rng,
    n: int,
) -> Attribute:
    """The class and value of every solid; of solid 0 those asked for, if they are controlled."""
    free = list(range(len(library.classes)))
    rng = rng.fold(library.name)
    if library.name not in factors.names:
        ids = rng.integers(len(free), n)
        return Attribute(ids, _values_in(library, ids, rng))
    column = factors.names.index(library.name)
    named = [library.index(name) for name in factors.items[column].class_names]
    others = torch.tensor([i for i in free if i not in named] or free)
    ids = others[rng.integers(len(others), n)]
    ids[:, 0] = torch.tensor(named)[classes[:, column]]
    numbers = _values_in(library, ids, rng)
    numbers[:, 0] = values[:, column, : library.value_size]
    return Attribute(ids, numbers)


def _values_in(library: Factor, ids: Int64[Tensor, "b n"], rng: Rng) -> Float[Tensor, "b n v"]:
    """Uniform in the boxes of the classes."""
    middle = torch.tensor([c.prototype for c in library.classes])[ids]
    half = torch.tensor([c.spread for c in library.classes])[ids]
    return middle + half * (rng.fold("values").uniform(*middle.shape[1:]) * 2 - 1)
