"""Embeddings: rotary scores see differences only, in all three axes; numbers are told apart."""

import itertools

import pytest
import torch
from torch import Tensor

from vidcomp.nn.embeddings import FourierEmbedding, Rotary3d, rotate
from vidcomp.seeding import initial_weights
from vidcomp.types import Grid

CPU = torch.device("cpu")


def scores_on(grid: Grid, rotary: Rotary3d, q: Tensor, k: Tensor) -> Tensor:
    """The score of the same query and key at every pair of positions; grid x grid."""
    turns = rotary.turns(grid, CPU)
    at_all = (x.expand(1, grid.size, 1, -1) for x in (q, k))
    queries, keys = (rotate(x, turns)[0, :, 0] for x in at_all)
    return (queries @ keys.T).reshape(*grid, *grid)


@pytest.mark.parametrize("head_width", [6, 10, 32])
def test_scores_depend_on_differences_only(head_width: int) -> None:
    grid, rotary = Grid(3, 2, 4), Rotary3d(head_width)
    scores = scores_on(grid, rotary, torch.randn(head_width), torch.randn(head_width))
    seen: dict[tuple[int, ...], float] = {}
    positions = list(itertools.product(*(range(size) for size in grid)))
    for a, b in itertools.product(positions, positions):
        difference = tuple(y - x for x, y in zip(a, b, strict=True))
        score = float(scores[(*a, *b)])
        assert score == pytest.approx(seen.setdefault(difference, score), abs=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_is_told_apart(axis: int) -> None:
    size = [1, 1, 1]
    size[axis] = 5
    scores = scores_on(Grid(*size), Rotary3d(6), torch.ones(6), torch.ones(6)).reshape(5, 5)
    assert scores[0].unique().numel() == 5


def test_rotation_keeps_lengths_and_the_origin() -> None:
    grid = Grid(2, 3, 3)
    x = torch.randn(2, grid.size, 4, 16)
    turned = rotate(x, Rotary3d(16).turns(grid, CPU))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0], rtol=0, atol=0)
    assert not torch.allclose(turned[:, 1:], x[:, 1:])


def test_rotation_agrees_with_sines_and_cosines() -> None:
    grid, rotary = Grid(2, 2, 2), Rotary3d(12)
    x = torch.randn(1, grid.size, 1, 12)
    angles = rotary.angles(grid, CPU)
    turned = rotate(x, rotary.turns(grid, CPU))[0, :, 0]
    even, odd = x[0, :, 0, ::2], x[0, :, 0, 1::2]
    torch.testing.assert_close(turned[:, ::2], even * angles.cos() - odd * angles.sin())
    torch.testing.assert_close(turned[:, 1::2], even * angles.sin() + odd * angles.cos())


def test_rotation_follows_the_dtype_and_rounds_once() -> None:
    grid = Grid(2, 2, 2)
    turns = Rotary3d(8).turns(grid, CPU)
    x = torch.randn(1, grid.size, 2, 8).bfloat16()
    turned = rotate(x, turns)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), turns).bfloat16())


@pytest.mark.parametrize("sub", [Grid(1, 3, 4), Grid(2, 1, 4), Grid(3, 3, 2), Grid(1, 1, 1)])
def test_angles_of_a_smaller_grid_are_its_block_of_the_larger(sub: Grid) -> None:
    grid, rotary = Grid(3, 3, 4), Rotary3d(16)
    whole = rotary.angles(grid, CPU).reshape(*grid, -1)
    block = whole[: sub.t, : sub.h, : sub.w].flatten(0, 2)
    assert torch.equal(rotary.angles(sub, CPU), block)


def test_a_head_without_a_pair_for_each_axis_is_refused() -> None:
    for head_width in (4, 7):
        with pytest.raises(AssertionError, match="rotated pair"):
            Rotary3d(head_width)


@pytest.mark.parametrize("size", [1, 3])
def test_fourier_features_tell_numbers_apart_clip_by_clip(size: int) -> None:
    with initial_weights(0):
        embed = FourierEmbedding(size, 8, max_frequency=4.0)
    x = torch.linspace(0, 1, 16 * size).reshape(16, size)
    vectors = embed(x)
    assert vectors.shape == (16, 8)
    distances = torch.cdist(vectors, vectors) + torch.eye(16)
    assert distances.min() > 1e-3
    torch.testing.assert_close(torch.cat([embed(row[None]) for row in x]), vectors)


def test_fourier_frequencies_run_from_one_to_the_highest_and_are_not_saved() -> None:
    embed = FourierEmbedding(1, 8, max_frequency=4.0)
    assert embed.frequencies[0] == pytest.approx(2 * torch.pi)
    assert embed.frequencies[-1] == pytest.approx(2 * torch.pi * 4)
    assert "frequencies" not in embed.state_dict()
