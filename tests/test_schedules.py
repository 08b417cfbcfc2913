"""Schedules: monotonous between exact ends, and each conversion undone by its inverse."""

import itertools
import math
from typing import get_args

import pytest
import torch

from vidcomp.schedules import MaskKind, MaskSchedule, RectifiedPath, warmup_cosine

KINDS: tuple[MaskKind, ...] = get_args(MaskKind)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_share_falls_from_one_to_exactly_zero(kind: MaskKind) -> None:
    share = MaskSchedule(kind).share(torch.linspace(0, 1, 1001))
    assert share[0] == 1 and share[-1] == 0
    assert (share.diff() < 0).all()


def test_masked_shares_are_those_of_the_formulas() -> None:
    level = torch.tensor([0.25, 0.5, 0.75])
    formulas = {
        "cosine": [math.cos(x * math.pi / 2) for x in level.tolist()],
        "arccos": [math.acos(x) * 2 / math.pi for x in level.tolist()],
        "linear": [0.75, 0.5, 0.25],
        "square": [1 - x * x for x in level.tolist()],
    }
    for kind in KINDS:
        torch.testing.assert_close(MaskSchedule(kind).share(level), torch.tensor(formulas[kind]))


def test_rectified_path_goes_straight_from_noise_to_data() -> None:
    data, noise = torch.randn(2, 5, 1, dtype=torch.float64)
    level = torch.linspace(0, 1, 11, dtype=torch.float64)
    point = RectifiedPath().at(level)
    x = point.alpha * data + point.sigma * noise  # 5 x 11
    assert torch.equal(x[:, 0], noise[:, 0]) and torch.equal(x[:, -1], data[:, 0])
    slopes = x.diff(dim=1) * 10
    torch.testing.assert_close(slopes, (data - noise).expand_as(slopes))
    velocity = point.velocity(data, noise)
    torch.testing.assert_close(velocity, (data - noise).expand_as(velocity))


def test_velocity_to_data_to_noise_is_the_identity() -> None:
    data, noise = torch.randn(2, 5, 1, dtype=torch.float64)
    level = torch.linspace(0, 0.99, 12, dtype=torch.float64)
    point = RectifiedPath().at(level)
    x = point.alpha * data + point.sigma * noise
    found = point.data(x, point.velocity(data, noise))
    torch.testing.assert_close(found, data.expand_as(x))
    torch.testing.assert_close(point.noise(x, found), noise.expand_as(x))


def test_data_is_defined_at_both_ends() -> None:
    x, velocity = torch.randn(2, 4)
    ends = RectifiedPath().at(torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(ends.data(x, velocity), torch.stack([x + velocity, x]))


def test_learning_rate_warms_up_then_falls_to_its_floor() -> None:
    factors = [warmup_cosine(step, num_steps=100, warmup_steps=10) for step in range(101)]
    torch.testing.assert_close(factors[:10], [(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1 == max(factors)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.05)
    assert factors[55] == pytest.approx((1 + 0.05) / 2)


@pytest.mark.parametrize("num_steps, warmup_steps", [(1, 0), (1, 100), (5, 5), (10, 0)])
def test_learning_rate_of_a_short_run_is_never_zero_or_above_one(
    num_steps: int, warmup_steps: int
) -> None:
    for step in range(num_steps + 1):
        assert 0 < warmup_cosine(step, num_steps=num_steps, warmup_steps=warmup_steps) <= 1
