"""FSQ: a bijection between codes and values, and bins in closed form."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import TOKENIZERS
from vidcomp.tokenizers.fsq import Config, Fsq, bound

LEVELS = [(8, 5, 5, 5), (3, 4), (7,)]


def small(levels: tuple[int, ...]) -> Fsq:
    return Config(levels=levels, width=8, depth=1, strides=(1, 2, 2)).build()


def unbound(bounded: Tensor, levels: tuple[int, ...]) -> Tensor:
    """The features that `bound` maps to `bounded`; infinite at the ends of the range."""
    sizes = torch.tensor(levels)
    reach, offset = (sizes - 1) / 2, (sizes % 2 == 0) / 2
    return torch.atanh((bounded + offset) / reach) - torch.atanh(offset / reach)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_is_reachable_and_comes_back(levels: tuple[int, ...]) -> None:
    fsq = small(levels)
    size = int(torch.tensor(levels).prod())
    assert fsq.spec.codebook_sizes == (size,)
    codes = torch.arange(size).reshape(1, 1, 1, -1, 1)
    values = fsq.dequantize(codes)
    assert len(values.flatten(0, 3).unique(dim=0)) == size
    assert values.min() == -1
    assert values.max() <= 1
    features = unbound(values * (torch.tensor(levels) // 2), levels).clamp(-20, 20)
    made = fsq.bottleneck(features, None)
    assert torch.equal(made.values, values)
    assert torch.equal(torch.as_tensor(made.codes), codes)


@pytest.mark.parametrize("num_levels", [3, 4, 5, 8, 16])
def test_bins_change_where_the_formula_says(num_levels: int) -> None:
    """Between neighbouring levels k and k + 1 the code changes at the features of k + 1/2."""
    fsq = small((num_levels,))
    low = -(num_levels // 2)
    edges = torch.arange(low, low + num_levels - 1)[:, None] + 0.5
    at = unbound(edges, (num_levels,)).reshape(1, 1, 1, -1, 1)
    below, above = (fsq.bottleneck(at + shift, None).codes for shift in (-1e-3, 1e-3))
    assert torch.as_tensor(below).flatten().tolist() == list(range(num_levels - 1))
    assert torch.as_tensor(above).flatten().tolist() == list(range(1, num_levels))


def test_zero_stays_zero() -> None:
    assert torch.equal(small((8, 5)).bottleneck(torch.zeros(1, 1, 1, 1, 2), None).values.abs(),
                       torch.zeros(1, 1, 1, 1, 2))  # fmt: skip


def test_gradients_pass_straight_through_the_rounding() -> None:
    fsq = small((8, 5))
    features = Rng.make(0, "features", torch.arange(2)).normal(1, 2, 2, 2).requires_grad_()
    weight = Rng.make(0, "weight", torch.arange(2)).normal(1, 2, 2, 2)
    (through,) = torch.autograd.grad(
        (fsq.bottleneck(features, None).values * weight).sum(), features
    )
    smooth = bound(features, fsq.levels) / torch.tensor([4, 2])
    (expected,) = torch.autograd.grad((smooth * weight).sum(), features)
    torch.testing.assert_close(through, expected)


def test_too_few_levels_are_refused() -> None:
    for levels in ([], [8, 2]):
        with pytest.raises(ValidationError, match="at least 3 levels"):
            TOKENIZERS.config({"name": "fsq", "levels": levels})
    with pytest.raises(ValidationError, match="every stride is at least 1"):
        TOKENIZERS.config({"name": "fsq", "strides": [4, 0, 8]})


def test_only_saturated_features_are_drawn_back() -> None:
    fsq, rng = small((8, 5)), Rng.make(0, "train", torch.arange(2))
    features = torch.tensor([[1.9, -1.9], [5.0, -5.0]])[:, None, None, None].requires_grad_()
    term = fsq.bottleneck(features, rng).terms["saturation"]
    assert (term > 0).tolist() == [False, True]
    (pull,) = torch.autograd.grad(term.sum(), features)
    assert pull.sign().flatten(1).tolist() == [[0, 0], [1, -1]]
