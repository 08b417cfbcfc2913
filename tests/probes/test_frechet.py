"""Distances of distributions: closed forms, no bias where none is claimed, degenerate samples."""

import math

import pytest
import torch
from jaxtyping import Float
from scipy import linalg
from spaces import FACTORS, SPLIT, classes_of, normal, subject_of
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import frechet
from vidcomp.probes.frechet import frechet_distance, in_groups, kernel_distance, leaving_out


def with_moments(
    mean: Float[Tensor, " d"], root: Float[Tensor, "d d"], *, count: int = 50, seed: int = 0
) -> Float[Tensor, "n d"]:
    """Points whose *sample* mean is `mean` and whose sample covariance is root^T root, exactly."""
    points = normal(count, len(mean), seed=seed).double()
    centred = points - points.mean(0)
    covariance = centred.T @ centred / (count - 1)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    return white @ root.double() + mean.double()


def test_gaussians_have_their_closed_form() -> None:
    """With commuting covariances: |m1 - m2|^2 + sum of (s1 - s2)^2."""
    one = with_moments(torch.tensor([0.0, 1.0, 2.0]), torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    two = with_moments(
        torch.tensor([1.0, 1.0, 0.0]), torch.diag(torch.tensor([2.0, 2.0, 0.5])), seed=1
    )
    expected = (1 + 0 + 4) + (1 + 0 + 2.5**2)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-9)
    shift = torch.tensor([3.0, 0.0, 4.0])
    assert frechet_distance(one, one + shift) == pytest.approx(25, rel=1e-9)


def test_any_covariances_agree_with_the_matrix_root_of_scipy() -> None:
    roots = normal(12, 6, seed=5).double().reshape(2, 6, 6)
    one, two = (with_moments(torch.zeros(6), root, seed=k) for k, root in enumerate(roots))
    first, second = torch.cov(one.T), torch.cov(two.T)
    common = linalg.sqrtm((first @ second).numpy())
    expected = float(first.trace() + second.trace()) - 2 * float(common.real.trace())
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-7)


def test_degenerate_covariances_are_no_trouble() -> None:
    """Fewer points than dimensions, all points equal, one dimension constant."""
    few, other = normal(5, 40).double(), normal(7, 40, seed=1).double()
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, other) > 1
    same, others = torch.zeros(6, 3).double(), torch.ones(4, 3).double()
    assert frechet_distance(same, others) == pytest.approx(3)
    flat = normal(30, 3).double() * torch.tensor([1.0, 1.0, 0.0])
    assert frechet_distance(flat, flat + 2) == pytest.approx(12)


def test_the_kernel_distance_is_the_sum_over_pairs() -> None:
    one, two = normal(6, 3).double(), normal(5, 3, seed=1).double()

    def kernel(x: Tensor, y: Tensor) -> float:
        return float(x @ y / 3 + 1) ** 3

    def mean(pairs: list[float]) -> float:
        return sum(pairs) / len(pairs)

    own = mean([kernel(x, y) for i, x in enumerate(one) for j, y in enumerate(one) if i != j])
    others = mean([kernel(x, y) for i, x in enumerate(two) for j, y in enumerate(two) if i != j])
    expected = own + others - 2 * mean([kernel(x, y) for x in one for y in two])
    assert kernel_distance(one, two) == pytest.approx(expected, rel=1e-10)


def test_of_one_distribution_the_kernel_distance_is_zero_on_average_and_frechet_is_not() -> None:
    pairs = [
        (normal(30, 4, seed=2 * k).double(), normal(30, 4, seed=2 * k + 1).double())
        for k in range(300)
    ]
    kernel = torch.tensor([kernel_distance(a, b) for a, b in pairs])
    error = float(kernel.std() / math.sqrt(len(kernel)))
    assert abs(float(kernel.mean())) < 4 * error
    assert 0.3 < float((kernel > 0).float().mean()) < 0.7
    assert min(frechet_distance(a, b) for a, b in pairs[:50]) > 0.1  # the bias of small samples


def test_intervals_mostly_hold_the_kernel_distance() -> None:
    """The true distance is 0; of 100 intervals about 95 hold it."""
    held = 0
    for k in range(100):
        value, half = in_groups(normal(80, 4, seed=2 * k), normal(80, 4, seed=2 * k + 1))
        held += value - half <= 0 <= value + half
    assert held >= 88


def test_the_jackknife_knows_the_spread_of_the_frechet_distance() -> None:
    reference = normal(2000, 3, seed=999).double()
    runs = [leaving_out(normal(100, 3, seed=k).double() + 1, reference) for k in range(60)]
    values, halves = (torch.tensor(part) for part in zip(*runs, strict=True))
    assert float(halves.mean()) / 2.262 == pytest.approx(float(values.std()), rel=0.4)


def test_scores_stand_at_every_level_and_equal_sets_are_at_distance_zero() -> None:
    classes = classes_of(40)
    points = normal(160, 4)
    far = points + 10 * (classes == 1).all(1, keepdim=True)  # only level-1 is off
    sources = {"real": points, "reconstruction": points, "samples": far}
    found = (
        frechet.Config().build(FACTORS).run(subject_of(sources, dict.fromkeys(sources, classes)))
    )
    wanted = {f"{s}/{lv}/{k}" for s in sources for lv in SPLIT.level_names for k in KINDS}
    assert found.scores.keys() == wanted
    for level, n in (("seen", 120), ("level-1", 40)):
        assert found.scores[f"reconstruction/{level}/frechet"].value == pytest.approx(0, abs=1e-5)
        assert all(found.scores[f"{s}/{level}/frechet"].n == n for s in sources)
    assert found.scores["samples/seen/frechet"].value == pytest.approx(0, abs=1e-5)
    assert found.scores["samples/level-1/frechet"].value == pytest.approx(400, rel=1e-4)
    assert found.scores["real/seen/frechet"].value > 0  # two halves
    assert all(s.low <= s.value <= s.high for s in found.scores.values())
    assert not any(s.flag for s in found.scores.values())


KINDS = ("frechet", "kernel")


def test_fewer_clips_than_dimensions_are_flagged() -> None:
    classes = classes_of(12)
    points = normal(48, 12)
    found = (
        frechet.Config().build(FACTORS).run(subject_of({"real": points}, {"real": classes})).scores
    )
    assert found["real/level-1/frechet"].flag == "6 clips for 12 dimensions"
    assert found["real/seen/frechet"].flag == ""


def test_too_few_clips_are_refused_by_name() -> None:
    classes = torch.cat([classes_of(20), torch.tensor([[1, 1]]).repeat(9, 1)])
    asked = torch.tensor([[1, 1], [1, 1]])
    points = {"real": normal(len(classes), 3), "samples": normal(2, 3)}
    with pytest.raises(UserError, match=r"level-1: 2 of samples are too few.*clips_per_level"):
        frechet.Config().build(FACTORS).run(subject_of(points, {"real": classes, "samples": asked}))
    seen = classes[~(classes == 1).all(1)]
    points = {"real": normal(len(seen), 3), "samples": normal(2, 3)}
    with pytest.raises(UserError, match="no real clip at level-1"):
        frechet.Config().build(FACTORS).run(subject_of(points, {"real": seen, "samples": asked}))
