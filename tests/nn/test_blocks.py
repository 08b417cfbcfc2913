"""Blocks: the identity when fresh, and each attention reaches the positions that it should."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vidcomp.nn.blocks import Attention, Block, modulate
from vidcomp.nn.embeddings import Rotary3d
from vidcomp.seeding import initial_weights
from vidcomp.types import Grid

WIDTH, HEADS = 24, 2
GRID = Grid(3, 2, 2)

Run = Callable[[Tensor], Tensor]


def block_of(*, factorised: bool, fresh: bool = False) -> Block:
    """A block whose gates are open, unless it is to be `fresh`."""
    with initial_weights(0):
        block = Block(WIDTH, HEADS, factorised=factorised)
        if not fresh:
            torch.nn.init.normal_(block.modulation.weight, std=0.3)
            torch.nn.init.normal_(block.modulation.bias, std=0.3)
    return block


def close_gate(block: Block, branch: int) -> None:
    """Shut the branch: 0 attention (in space, if factorised), 1 MLP, 2 attention in time."""
    rows = slice((3 * branch + 2) * WIDTH, (3 * branch + 3) * WIDTH)
    with torch.no_grad():
        block.modulation.weight[rows] = 0
        block.modulation.bias[rows] = 0


def runner(block: Block, grid: Grid = GRID) -> Run:
    """The block as a function of ``b T H W c``, everything else held fixed."""
    turns = Rotary3d(WIDTH // HEADS).turns(grid, torch.device("cpu"))
    condition = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))

    def run(x: Tensor) -> Tensor:
        flat = x.flatten(1, 3)
        with torch.no_grad():
            return block(flat, condition.expand(len(x), -1), turns, grid).reshape(x.shape)

    return run


def influence(run: Run, grid: Grid = GRID) -> Tensor:
    """Which output positions change when one input position does; grid (input) x grid (output)."""
    x = torch.randn(1, *grid, WIDTH, generator=torch.Generator().manual_seed(2))
    before = run(x)
    rows: list[Tensor] = []
    for position in range(grid.size):
        changed = x.flatten(1, 3).clone()
        changed[0, position] += torch.linspace(-1, 1, WIDTH)
        after = run(changed.reshape(x.shape))
        rows.append(((after - before).abs().amax(-1) > 1e-6)[0])
    return torch.stack(rows).reshape(*grid, *grid)


def same(axes: tuple[int, ...], grid: Grid = GRID) -> Tensor:
    """Pairs of positions that agree in these axes; grid x grid."""
    where = torch.cartesian_prod(*(torch.arange(size) for size in grid)).reshape(-1, 3)
    agree = where[:, None, list(axes)] == where[None, :, list(axes)]
    return agree.all(-1).reshape(*grid, *grid)


@pytest.mark.parametrize("factorised", [False, True])
def test_a_fresh_block_is_the_identity(factorised: bool) -> None:
    x = torch.randn(2, *GRID, WIDTH)
    assert torch.equal(runner(block_of(factorised=factorised, fresh=True))(x), x)


def test_joint_attention_reaches_every_position() -> None:
    assert influence(runner(block_of(factorised=False))).all()


def test_factorised_attention_in_space_stays_within_the_frame() -> None:
    block = block_of(factorised=True)
    close_gate(block, 2)
    assert torch.equal(influence(runner(block)), same((0,)))


def test_factorised_attention_in_time_stays_at_the_place() -> None:
    block = block_of(factorised=True)
    close_gate(block, 0)
    assert torch.equal(influence(runner(block)), same((1, 2)))


def test_in_space_a_frame_is_an_image_and_in_time_a_place_is_a_clip() -> None:
    x = torch.randn(1, *GRID, WIDTH)
    block = block_of(factorised=True)
    close_gate(block, 2)
    image = runner(block, Grid(1, GRID.h, GRID.w))
    frames = [image(x[:, t : t + 1]) for t in range(GRID.t)]
    torch.testing.assert_close(torch.cat(frames, dim=1), runner(block)(x))
    block = block_of(factorised=True)
    close_gate(block, 0)
    clip = runner(block, Grid(GRID.t, 1, 1))
    for h, w in itertools.product(range(GRID.h), range(GRID.w)):
        place = x[:, :, h : h + 1, w : w + 1]
        torch.testing.assert_close(clip(place), runner(block)(x)[:, :, h : h + 1, w : w + 1])


@pytest.mark.parametrize("offset", [(2, 0, 0), (0, 1, 0), (0, 0, 3), (1, 2, 1)])
def test_attention_sees_differences_of_positions_only(offset: tuple[int, int, int]) -> None:
    with initial_weights(0):
        attention = Attention(WIDTH, HEADS, "auto")
    whole = Rotary3d(WIDTH // HEADS).turns(Grid(5, 5, 5), torch.device("cpu")).reshape(5, 5, 5, -1)
    x = torch.randn(2, GRID.size, WIDTH)

    def at(t: int, h: int, w: int) -> Tensor:
        block = whole[t : t + GRID.t, h : h + GRID.h, w : w + GRID.w]
        return attention(x, block.flatten(0, 2))

    torch.testing.assert_close(at(*offset), at(0, 0, 0), rtol=1e-4, atol=1e-5)


def test_space_then_time_reach_every_position_together() -> None:
    assert influence(runner(block_of(factorised=True))).all()


@pytest.mark.parametrize("factorised", [False, True])
def test_the_mlp_alone_mixes_no_positions(factorised: bool) -> None:
    block = block_of(factorised=factorised)
    close_gate(block, 0)
    if factorised:
        close_gate(block, 2)
    assert torch.equal(influence(runner(block)), same((0, 1, 2)))


def test_on_one_frame_factorised_is_joint_attention_and_a_mlp_of_each_place() -> None:
    grid = Grid(1, 2, 3)
    factorised, joint = block_of(factorised=True), block_of(factorised=False)
    close_gate(factorised, 2)
    joint.load_state_dict(
        {
            name: tensor[: 6 * WIDTH] if name.startswith("modulation") else tensor
            for name, tensor in factorised.state_dict().items()
            if not name.startswith("temporal")
        }
    )
    x = torch.randn(2, *grid, WIDTH)
    torch.testing.assert_close(runner(factorised, grid)(x), runner(joint, grid)(x))


@pytest.mark.parametrize("grid", [GRID, Grid(1, 2, 2), Grid(4, 1, 1), Grid(1, 1, 1)])
@pytest.mark.parametrize("factorised", [False, True])
def test_clips_do_not_see_each_other(factorised: bool, grid: Grid) -> None:
    run = runner(block_of(factorised=factorised), grid)
    x = torch.randn(3, *grid, WIDTH)
    singly = torch.cat([run(clip[None]) for clip in x])
    torch.testing.assert_close(run(x), singly, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factorised", [False, True])
def test_positions_matter_in_every_axis(factorised: bool) -> None:
    run = runner(block_of(factorised=factorised))
    x = torch.randn(1, *GRID, WIDTH)
    for axis in (1, 2, 3):  # without positions, attention commutes with any permutation
        assert not torch.allclose(run(x.roll(1, axis)), run(x).roll(1, axis), atol=1e-4)


@pytest.mark.parametrize("factorised", [False, True])
def test_bf16_autocast_agrees_with_float32(factorised: bool) -> None:
    run = runner(block_of(factorised=factorised))
    x = torch.randn(2, *GRID, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(x)
    assert mixed.dtype == torch.float32  # the residual stream is never rounded
    full = run(x)
    # Of the whole: single entries near zero may be off by much of themselves (bf16 has 8 bits).
    assert (mixed - full).norm() < 0.02 * full.norm()


def test_modulation_is_a_layer_norm_then_scale_and_shift() -> None:
    x = 3 + 5 * torch.randn(2, 4, 64)
    shift, scale = torch.randn(2, 2, 1, 64)
    normal = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    expected = normal * (1 + scale) + shift
    torch.testing.assert_close(modulate(x, shift, scale), expected, rtol=1e-4, atol=1e-4)
