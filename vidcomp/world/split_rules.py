"""The rules of splits. Some choose whole combinations: they say of every combination id whether it
is seen. The others count, in every cell, how many factors are novel there.

`all_but_a_fraction` and `latin` promise that every class of every factor is seen somewhere, and
refuse what would break that.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.seeding import permutation
from vidcomp.world.cells import Cells
from vidcomp.world.factors import Factors


def num_novel(cells: Cells, novel: Mapping[str, Sequence[str]]) -> Int64[Tensor, " n"]:
    """The number of novel factors in every cell: by predicate, or by a list of classes."""
    counts = torch.zeros(1, dtype=torch.int64)
    for factor, predicate in zip(cells.factors.items, cells.predicates, strict=True):
        if predicate is not None:
            along = torch.arange(2).repeat(len(factor.classes))  # base, novel, base, novel, ...
        else:
            along = torch.zeros(len(factor.classes), dtype=torch.int64)
            along[[factor.index(name) for name in novel.get(factor.name, ())]] = 1
        counts = (counts[:, None] + along).flatten()
    return counts


def listed(factors: Factors, train: Sequence[Mapping[str, str]]) -> Bool[Tensor, " n"]:
    """Seen are those of a list."""
    seen = torch.zeros(factors.num_combinations, dtype=torch.bool)
    seen[factors.combination_ids(factors.parse(train))] = True
    return seen


def all_but_a_fraction(factors: Factors, held_out: float, *, seed: int) -> Bool[Tensor, " n"]:
    """A drawn share of the combinations is held out; a larger share holds out more of the same.

    First a diagonal is set apart and stays seen: as many combinations as the largest factor has
    classes, which show every class of every factor. Fewer cannot, so whatever is possible is done.
    """
    total, diagonal = factors.num_combinations, max(factors.sizes, default=1)
    num_held_out = round(held_out * total)
    if not 0 < num_held_out <= total - diagonal:
        raise UserError(
            f"split.held_out={held_out} of {total} combinations is {num_held_out}, but every class "
            f"must be seen and something held out; legal: 1 to {total - diagonal} combinations"
        )
    columns = [
        permutation(seed, f"diagonal {factor.name}", size)[torch.arange(diagonal) % size]
        for factor, size in zip(factors.items, factors.sizes, strict=True)
    ]
    apart = factors.combination_ids(torch.stack(columns, dim=1))
    order = permutation(seed, "held out", total)
    seen = torch.ones(total, dtype=torch.bool)
    seen[order[~torch.isin(order, apart)][:num_held_out]] = False
    return seen


def latin(factors: Factors, over: Sequence[str], symbols: Sequence[int]) -> Bool[Tensor, " n"]:
    """Seen are the combinations with certain symbols of a Latin square.

    The symbol of a combination is the sum of its class ids over the factors `over` (all, if it is
    empty), modulo the most classes that one of these has. With two factors of k classes this is the
    cyclic Latin square: each of the k symbols stands once in each row and in each column.
    """
    names = tuple(over) or factors.names
    require_factors(factors, names, "split.over")
    columns = sorted({factors.names.index(name) for name in names})
    if len(columns) < 2 or len(columns) < len(names):
        raise UserError(
            f"split.over: a Latin square is over two or more different factors, got "
            f"{', '.join(names) or 'none'}; legal: {', '.join(factors.names) or 'none'}"
        )
    num_symbols = max(factors.sizes[f] for f in columns)
    if not set(symbols) < set(range(num_symbols)):
        raise UserError(
            f"split.symbols={list(symbols)}: name some, but not all, of 0 to {num_symbols - 1}"
        )
    combinations = factors.combinations()
    symbol = combinations[:, columns].sum(1) % num_symbols
    seen = torch.isin(symbol, torch.tensor(sorted(set(symbols))))
    for f, factor in enumerate(factors.items):
        unseen = set(range(len(factor.classes))) - set(combinations[seen, f].tolist())
        if unseen:
            raise UserError(
                f"split.symbols={list(symbols)}: no seen combination has {factor.name} "
                f"{factor.class_names[min(unseen)]!r}; name more symbols of 0 to {num_symbols - 1}"
            )
    return seen


def require_factors(factors: Factors, names: Iterable[str], where: str) -> None:
    """Raise UserError unless there is a factor of each name."""
    for name in names:
        if name not in factors.names:
            raise UserError(f"{where} names no factor {name!r}; {nearest(name, factors.names)}")
