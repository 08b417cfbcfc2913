"""Placement: nothing too near, everything in its room, and the law it promises."""

import math

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.world.physics import Corners
from vidcomp.world.placement import Manner, capacity, place

MANNERS: tuple[Manner, ...] = ("free", "mirrored")


def room_of(b: int, low: tuple[float, float], high: tuple[float, float]) -> Corners:
    return torch.tensor(low).float().expand(b, 2), torch.tensor(high).float().expand(b, 2)


def placed(
    count: Tensor | int,
    *,
    n: int = 10,
    b: int = 200,
    seed: int = 0,
    apart: float = 7.0,
    manner: Manner = "free",
    low: tuple[float, float] = (2.5, 2.5),
    high: tuple[float, float] = (29.5, 29.5),
) -> Tensor:
    present = torch.arange(n).expand(b, n) < torch.as_tensor(count).reshape(-1, 1)
    rng = Rng.make(seed, "test", torch.arange(b))
    return place(present, room_of(b, low, high), rng, apart=apart, manner=manner)


def nearest(centres: Tensor) -> float:
    """The least distance of two objects in any clip."""
    n = centres.shape[1]
    away = (centres[:, :, None] - centres[:, None]).norm(dim=-1)
    return float((away + 1e9 * torch.eye(n)).amin())


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_none_is_near_another_and_none_leaves_the_room(manner: Manner, count: int) -> None:
    centres = placed(count, n=count, manner=manner, low=(3.0, 5.0), high=(45.0, 30.0))
    assert nearest(centres) >= 7 - 1e-5
    assert (centres >= torch.tensor([3.0, 5.0])).all()
    assert (centres <= torch.tensor([45.0, 30.0])).all()


@pytest.mark.parametrize("manner", MANNERS)
def test_a_clip_is_the_same_in_any_batch(manner: Manner) -> None:
    """Some of these start again, and clips of other counts are beside them."""
    count, rng = torch.arange(300) % 11, Rng.make(3, "test", torch.arange(300))
    present = torch.arange(10).expand(300, 10) < count[:, None]
    low, high = torch.rand(2, 300, 2, generator=torch.Generator().manual_seed(0))
    room = (low, high + 26)
    whole = place(present, room, rng, apart=7.0, manner=manner)
    for rows in torch.randperm(300, generator=torch.Generator().manual_seed(1)).split(70):
        part = place(
            present[rows], (room[0][rows], room[1][rows]), rng[rows], apart=7.0, manner=manner
        )
        assert torch.equal(part, whole[rows])
    assert not whole[~present].any()


def test_one_object_is_uniform() -> None:
    where = placed(1, n=1, b=20_000)[:, 0]
    counts = torch.histogramdd(where, [6, 6], range=[2.5, 29.5, 2.5, 29.5]).hist
    assert counts.sum() == 20_000
    assert chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_more_objects_leave_the_first_ones_where_they_were() -> None:
    """So an object's place has one law, however many come after it."""
    few = placed(3, b=1000, apart=3.0)
    many = placed(10, b=1000, apart=3.0)
    assert torch.equal(few[:, :3], many[:, :3])


def test_in_a_crowd_the_first_is_uniform_and_the_last_near_the_edges() -> None:
    """What holds at ten objects of five pixels in 32 x 32: no object, the last included, strays far
    from uniform; as a share of clips that lie in other cells of 4 x 4."""
    b = 10_000
    centres = placed(10, b=b)

    def strays(where: Tensor) -> float:
        cells = torch.histogramdd(where, [4, 4], range=[2.5, 29.5, 2.5, 29.5]).hist
        return float((cells / len(where) - 1 / 16).abs().sum() / 2)

    assert strays(centres[:, 0]) < 0.03
    assert strays(centres[:, -1]) < 0.15
    assert strays(centres.flatten(0, 1)) < 0.08


def test_the_second_is_uniform_among_free_places() -> None:
    """On a segment of length 1 and half of it apart, what is free beside x is [0, x - 1/2] or
    [x + 1/2, 1]."""
    x, other = placed(2, n=2, b=5000, apart=0.5, low=(0, 0), high=(1, 0))[..., 0].unbind(1)
    right = x < 0.5
    free = (0.5 - x).abs()
    share = torch.where(right, other - x - 0.5, other) / free
    sure = free > 1e-3  # rounding
    assert kstest(share[sure].numpy(), "uniform").pvalue > 1e-3


def test_mirrored_pairs_mirror_each_other_and_free_ones_do_not() -> None:
    count = torch.arange(400) % 8
    x, y = placed(count, n=7, b=400, manner="mirrored").unbind(-1)
    for first in (0, 2, 4):
        pair = count > first + 1
        assert torch.allclose(x[pair, first] + x[pair, first + 1], torch.tensor(32.0), atol=1e-4)
        assert torch.equal(y[pair, first], y[pair, first + 1])
    gaps = torch.rand(400, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    rng = Rng.make(0, "test", torch.arange(400))
    room = room_of(400, (2.5, 2.5), (29.5, 29.5))
    some = place(gaps, room, rng, apart=7.0, manner="mirrored")
    assert (
        nearest(torch.where(gaps[..., None], some, 100.0 * torch.arange(1, 8)[:, None])) >= 7 - 1e-5
    )
    both = gaps[:, 2] & gaps[:, 3]
    assert torch.allclose(some[both, 2:4, 0].sum(1), torch.tensor(32.0), atol=1e-4)
    alone = placed(1, n=2, b=5000, manner="mirrored")[:, 0, 0]
    assert kstest(((alone - 2.5) / 27).numpy(), "uniform").pvalue > 1e-3
    free = placed(2, n=2, b=5000)
    heights = torch.corrcoef(free[..., 1].T)[0, 1]
    assert abs(float(heights)) < 0.3  # they keep apart, no more


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize(
    "width, height, apart", [(27.0, 27.0, 7.0), (20.0, 9.0, 4.0), (52.0, 52.0, 15.0)]
)
def test_what_fits_can_be_placed_and_no_theorem_is_broken(
    manner: Manner, width: float, height: float, apart: float
) -> None:
    fit = capacity(width, height, apart=apart, at_most=255, manner=manner)
    densest = 2 / math.sqrt(3) * width * height / apart**2 + (width + height) / apart + 1
    assert 0.3 * densest < fit <= densest
    assert capacity(width, height, apart=apart, at_most=3, manner=manner) == 3
    assert capacity(width, height, apart=apart, at_most=fit, manner=manner) == fit
    centres = placed(
        fit, n=fit, b=1000, seed=9, apart=apart, manner=manner, low=(0, 0), high=(width, height)
    )
    assert nearest(centres) >= apart - 1e-5


def test_capacity_at_its_limits() -> None:
    assert capacity(-1.0, 20.0, apart=5.0, at_most=10) == 0  # wider than the frame
    assert capacity(0.0, 20.0, apart=5.0, at_most=10) == 0
    assert capacity(0.1, 0.1, apart=5.0, at_most=10) == 1
    assert capacity(1.0, 0.1, apart=1.1, at_most=10) == 1
    assert capacity(1.0, 0.1, apart=0.6, at_most=10) == 2
    assert capacity(1.0, 0.1, apart=0.6, at_most=0) == 0


def test_too_many_are_refused() -> None:
    with pytest.raises(UserError, match="10 objects 20 apart find no room"):
        placed(10, b=2, apart=20.0)


def test_no_objects_need_no_room() -> None:
    nothing = torch.zeros(3, 0, dtype=torch.bool)
    rng = Rng.make(0, "test", torch.arange(3))
    assert place(nothing, room_of(3, (0, 0), (1, 1)), rng, apart=5.0).shape == (3, 0, 2)
    assert not placed(0, n=4).any()
