"""Schedules: monotonous between exact ends, and each conversion undone by its inverse."""

import itertools
import math
from typing import get_args

import pytest
import torch

from vidcomp.schedules import (
    DiffusionPath,
    MaskKind,
    MaskSchedule,
    NoisePath,
    RectifiedPath,
    warmup_cosine,
)

KINDS: tuple[MaskKind, ...] = get_args(MaskKind)
DIFFUSIONS = [
    DiffusionPath(500),
    DiffusionPath(1000),
    DiffusionPath(1000, "cosine"),
    DiffusionPath(500, zero_terminal_snr=True),
    DiffusionPath(2, "cosine", zero_terminal_snr=True),
]
PATHS: list[NoisePath] = [RectifiedPath(), *DIFFUSIONS]


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


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_paths_go_from_noise_to_data_and_are_clean_at_level_one_alone(path: NoisePath) -> None:
    point = path.at(torch.linspace(0, 1, 401, dtype=torch.float64))
    assert point.alpha[-1] == 1 and point.sigma[-1] == 0
    assert (point.alpha.diff() > 0).all() and (point.sigma.diff() < 0).all()
    assert (point.sigma[:-1] > 0).all() and point.alpha[0] < 0.1


def test_rectified_path_is_straight() -> None:
    data, noise = torch.randn(2, 5, 1, dtype=torch.float64)
    x = RectifiedPath().at(torch.linspace(0, 1, 11, dtype=torch.float64)).mix(data, noise)  # 5 x 11
    assert torch.equal(x[:, 0], noise[:, 0]) and torch.equal(x[:, -1], data[:, 0])
    slopes = x.diff(dim=1) * 10
    torch.testing.assert_close(slopes, (data - noise).expand_as(slopes))


@pytest.mark.parametrize("path", DIFFUSIONS, ids=str)
def test_diffusion_paths_keep_the_variance(path: DiffusionPath) -> None:
    point = path.at(torch.linspace(0, 1, 777))
    torch.testing.assert_close(point.alpha.square() + point.sigma.square(), torch.ones(777))


@pytest.mark.parametrize("path", DIFFUSIONS, ids=str)
@pytest.mark.parametrize("num_steps", [1, 7, 50, 250, 500])
def test_float_levels_hit_the_timesteps_exactly(path: DiffusionPath, num_steps: int) -> None:
    """Levels come as float32 fractions, added up or not."""
    if path.num_timesteps % num_steps:
        return
    level = torch.arange(num_steps + 1) / num_steps
    every = path.num_timesteps // num_steps
    expected = path.alphas.flip(0)[::every].float()
    assert torch.equal(path.at(level).alpha, expected)
    assert torch.equal(path.at(level[:-1] + 1 / num_steps).alpha, expected[1:])


def test_zero_terminal_snr_is_algorithm_1_of_the_paper() -> None:
    """arXiv:2305.08891, written out: the last is shifted to zero, the first scaled back."""
    plain = DiffusionPath(500).alphas[1:].tolist()
    first, last = plain[0], plain[-1]
    expected = [(a - last) * first / (first - last) for a in plain]
    found = DiffusionPath(500, zero_terminal_snr=True).alphas[1:].tolist()
    assert found == pytest.approx(expected, abs=1e-12) and found[-1] == 0


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_conversions_undo_each_other(path: NoisePath) -> None:
    data, noise = torch.randn(2, 5, 1, dtype=torch.float64)
    point = path.at(torch.linspace(0.01, 0.99, 12, dtype=torch.float64))
    x = point.mix(data, noise)
    torch.testing.assert_close(point.noise(x, data), noise.expand_as(x))
    torch.testing.assert_close(point.data(x, noise), data.expand_as(x))
    if isinstance(path, DiffusionPath):
        v = point.v(data, noise)
        torch.testing.assert_close(point.data_from_v(x, v), data.expand_as(x))


def test_where_there_is_no_signal_the_mean_is_taken_for_the_data() -> None:
    point = RectifiedPath().at(torch.zeros(1))
    assert torch.equal(point.data(torch.randn(4), torch.randn(4)), torch.zeros(4))


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_renoising_keeps_the_marginals(path: NoisePath, eta: float) -> None:
    """In variance: of data and noise that are standard normal, what arrives has alpha'^2 from the
    data and sigma'^2 from the two noises together."""
    here, there = path.at(torch.tensor(0.25)), path.at(torch.tensor(0.5))
    zero, one = torch.zeros(1), torch.ones(1)
    of_data = here.renoised(there, one, zero, zero, eta=eta)
    of_implied = here.renoised(there, zero, one, zero, eta=eta)
    of_fresh = here.renoised(there, zero, zero, one, eta=eta)
    torch.testing.assert_close(of_data[0], there.alpha)
    torch.testing.assert_close((of_implied.square() + of_fresh.square())[0], there.sigma.square())
    assert (of_fresh > 0) == (eta > 0)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_the_last_renoising_leaves_the_data_alone(path: NoisePath) -> None:
    data, implied, fresh = torch.randn(3, 4)
    moved = path.at(torch.tensor(0.9)).renoised(
        path.at(torch.tensor(1.0)), data, implied, fresh, eta=1.0
    )
    assert torch.equal(moved, data)


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
