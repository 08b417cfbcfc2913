"""Windows: the attention of a full matrix with a mask, at the cost of a window, and nothing from
outside: not even a rounding.
"""

import functools
import itertools
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex

from vidcomp.config import UserError
from vidcomp.nn.attention import AttentionBackend
from vidcomp.nn.blocks import Attention
from vidcomp.nn.embeddings import Rotary3d
from vidcomp.nn.windows import (
    Window,
    attend_in_blocks,
    attend_within,
    flex_blocks,
    num_products,
    tiles_of,
)
from vidcomp.seeding import initial_weights
from vidcomp.types import Grid

HEADS, WIDTH = 2, 8  # of a head
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}

# Multiples of the tile and not, wide and tall, clips and images, one axis alone.
GRIDS = (Grid(1, 8, 8), Grid(1, 5, 11), Grid(3, 7, 6), Grid(5, 1, 9), Grid(6, 1, 1), Grid(1, 1, 1))
RADII = ((0, 0), (0, 1), (1, 1), (2, 0), (1, 3), (None, 2), (1, None), (9, 99), (None, None))


def window_of(grid: Grid, radii: tuple[int | None, int | None]) -> Window:
    return Window.of(grid, frames=radii[0], cells=radii[1])


def heads(grid: Grid, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Random q, k and v, laid out as the block lays them out."""
    generator = torch.Generator().manual_seed(grid.size)
    shape = (batch, grid.size, HEADS, WIDTH)
    return [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2) for _ in range(3)]


@functools.cache
def mask_of(grid: Grid, radii: tuple[int | None, int | None]) -> Tensor:
    """Pairs of positions within reach, one at a time."""
    places = list(itertools.product(*(range(size) for size in grid)))
    frames, cells = (10**6 if r is None else r for r in radii)
    return torch.tensor(
        [
            [abs(t - u) <= frames and max(abs(h - i), abs(w - j)) <= cells for u, i, j in places]
            for t, h, w in places
        ]
    )


def gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
    return torch.autograd.grad(out, leaves, upstream, materialize_grads=True)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "backend, dtype",
    [
        ("auto", torch.float32),
        ("plain", torch.float64),
        ("plain", torch.bfloat16),
        ("sdpa", torch.float64),
        ("sdpa", torch.bfloat16),
    ],
)
def test_it_is_attention_with_a_mask(
    backend: AttentionBackend, grid: Grid, dtype: torch.dtype
) -> None:
    leaves = [x.requires_grad_() for x in heads(grid, dtype)]
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for radii in RADII:
        out = attend_within(*leaves, window_of(grid, radii), backend=backend)
        assert out.dtype == dtype and out.shape == leaves[0].shape
        masked = F.scaled_dot_product_attention(*leaves, attn_mask=mask_of(grid, radii))
        torch.testing.assert_close(out, masked, **close)
        pairs = zip(gradients(out, leaves), gradients(masked, leaves), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("grid", [Grid(1, 9, 9), Grid(2, 5, 6)])
def test_each_clip_may_have_a_radius_of_its_own(grid: Grid) -> None:
    q, k, v = heads(grid, torch.float32, batch=8)
    of_clip = torch.tensor([0, 2, 1, 3])
    window = Window.of(grid, frames=1, cells=3, of_clip=of_clip)
    out = attend_within(q, k, v, window)
    for i, radius in enumerate(of_clip.repeat_interleave(2).tolist()):  # two rows for each clip
        one = (x[i : i + 1] for x in (q, k, v))
        alone = attend_within(*one, window_of(grid, (1, radius)))
        torch.testing.assert_close(out[i : i + 1], alone, rtol=1e-5, atol=1e-6)


def test_a_radius_of_0_is_a_place_of_ones_own_and_of_all_the_whole_grid() -> None:
    grid = Grid(2, 3, 4)
    q, k, v = heads(grid, torch.float32)
    assert torch.equal(attend_within(q, k, v, window_of(grid, (0, 0))), v)
    everywhere = window_of(grid, (1, 3))
    assert everywhere.everywhere and not window_of(grid, (0, 3)).everywhere
    torch.testing.assert_close(
        attend_within(q, k, v, everywhere), F.scaled_dot_product_attention(q, k, v)
    )
    assert window_of(grid, (0, 3)).on(Grid(1, 3, 4)).everywhere
    assert window_of(grid, (0, 3)).on(Grid(2, 1, 1)).own_place_only


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_outside_changes_no_bit(backend: AttentionBackend, dtype: torch.dtype) -> None:
    grid, radii = Grid(3, 7, 9), (1, 2)
    q, k, v = heads(grid, dtype)
    within = mask_of(grid, radii)
    window = window_of(grid, radii)
    before = attend_within(q, k, v, window, backend=backend)
    for position in (0, 31, 100, grid.size - 1):
        outside = ~within[position][:, None]
        others = [torch.where(outside, 50 * x.flip(2), x) for x in (k, v)]
        after = attend_within(q, *others, window, backend=backend)
        assert torch.equal(after[:, :, position], before[:, :, position])
        assert not torch.equal(after, before)


@pytest.mark.parametrize("radius, products", [(1, 6 * 6), (2, 8 * 8), (5, 20 * 20)])
def test_products_grow_linearly(radius: int, products: int) -> None:
    """For each token as many whatever the grid, where tiles divide it; else a few more."""
    for side in (20, 40, 80, 160):
        grid = Grid(1, side, side)
        assert num_products(grid, window_of(grid, (0, radius))) == products * grid.size
    for side in (31, 67, 127, 259):
        grid = Grid(1, side, side)
        assert num_products(grid, window_of(grid, (0, radius))) < 1.7 * products * grid.size


def test_products_are_those_of_the_tiles() -> None:
    for grid, radii in itertools.product(GRIDS, RADII):
        window = window_of(grid, radii)
        if not window.everywhere and not window.own_place_only:
            tiles = tiles_of(grid, window.radius, torch.device("cpu"))
            assert num_products(grid, window) == tiles.near.numel()
    clip = Grid(64, 8, 8)
    assert num_products(clip, window_of(clip, (1, 1))) == clip.size * 4 * 6 * 6
    assert num_products(clip, None) == num_products(clip, window_of(clip, (63, 7))) == clip.size**2
    assert num_products(clip, window_of(clip, (0, 0))) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_tiles_answer_every_position_once(grid: Grid) -> None:
    for radii in RADII:
        window = window_of(grid, radii)
        tiles = tiles_of(grid, window.radius, torch.device("cpu"))
        assert torch.equal(tiles.queries.flatten()[tiles.slot], torch.arange(grid.size))
        pairs = torch.zeros(grid.size, grid.size, dtype=torch.bool)
        queries = tiles.queries[:, :, None].expand_as(tiles.near)
        keys = tiles.keys[:, None].expand_as(tiles.near)
        pairs[queries[tiles.near], keys[tiles.near]] = True
        assert torch.equal(pairs, mask_of(grid, radii))
        for row in tiles.keys:
            assert len(row.unique()) == len(row), "no key counts twice"


def test_positions_are_relative_in_a_window_as_well() -> None:
    """Far from the borders, the same neighbourhood gives the same answer."""
    with initial_weights(0):
        attention = Attention(24, 2, "auto")
    grid = Grid(1, 12, 12)
    turns = Rotary3d(12).turns(grid, torch.device("cpu"))
    x = torch.randn(1, *grid, 24, generator=torch.Generator().manual_seed(0))

    def run(x: Tensor) -> Tensor:
        window = window_of(grid, (0, 2))
        return attention(x.flatten(1, 3), turns, window).detach().reshape(x.shape)

    moved = run(x.roll((1, 3), (2, 3)))
    inside = run(x).roll((1, 3), (2, 3))[:, :, 3:10, 5:10]
    torch.testing.assert_close(moved[:, :, 3:10, 5:10], inside, rtol=1e-4, atol=1e-5)


def test_a_block_without_radius_is_the_value_of_its_own_place() -> None:
    """With a gradient, though it be 0, for every weight: processes wait for all of them."""
    with initial_weights(0):
        attention = Attention(24, 2, "auto")
    grid = Grid(2, 3, 3)
    turns = Rotary3d(12).turns(grid, torch.device("cpu"))
    x = torch.randn(2, grid.size, 24)
    out = attention(x, turns, window_of(grid, (0, 0)))
    singly = attention(x.flatten(0, 1)[:, None], turns[:1]).reshape(out.shape)  # clips of one token
    torch.testing.assert_close(out, singly)
    out.sum().backward()
    assert all(p.grad is not None for p in attention.parameters())


@pytest.mark.slow  # it imports torch's compiler
@pytest.mark.parametrize("radii", [(0, 1), (1, 2), (None, 1)])
def test_flex_attention_agrees_forward_and_its_blocks_hold_every_pair(
    radii: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is compiled otherwise, and the annotations' checks with it, which takes as long again.
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    grid = Grid(3, 6, 10)
    q, k, v = heads(grid, torch.float32)
    for of_clip in (None, torch.tensor([0, 1])):
        window = Window.of(grid, frames=radii[0], cells=radii[1], of_clip=of_clip)
        with warnings.catch_warnings(action="ignore"):  # that it is slow like this
            out = attend_in_blocks(q, k, v, window, kernel=flex.flex_attention)
        torch.testing.assert_close(out, attend_within(q, k, v, window), rtol=1e-5, atol=1e-5)
    tiles = tiles_of(grid, window_of(grid, radii).radius, torch.device("cpu"))
    padded = F.pad(mask_of(grid, radii), (0, 2 * 128 - grid.size) * 2)
    assert torch.equal(flex_blocks(tiles), padded.reshape(2, 128, 2, 128).any(3).any(1))


def test_flex_attention_is_refused_off_cuda_in_one_line() -> None:
    q, k, v = heads(GRIDS[0], torch.float32)
    with pytest.raises(UserError, match=r"flex needs CUDA .* cpu.*use attention_backend=auto") as e:
        attend_within(q, k, v, window_of(GRIDS[0], (0, 1)), backend="flex")
    assert "\n" not in str(e.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_flex_attention_agrees_forward_and_backward() -> None:
    grid = Grid(2, 16, 16)
    leaves = [x.cuda().requires_grad_() for x in heads(grid, torch.float32)]
    blocked, tiled = (
        attend_within(*leaves, window_of(grid, (1, 2)), backend=backend)
        for backend in ("flex", "auto")
    )
    torch.testing.assert_close(blocked, tiled, rtol=2e-2, atol=2e-2)
    for ours, theirs in zip(gradients(blocked, leaves), gradients(tiled, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
