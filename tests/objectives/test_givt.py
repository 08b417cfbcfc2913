"""GIVT: its density is torch's, and resampling gives the product of densities where that is known:
of Gaussians.
"""

import math

import pytest
import torch
from ladder import SPECS, STRIDES, Case, gaussians
from torch import Tensor, distributions

from vidcomp.objectives.base import OBJECTIVES
from vidcomp.objectives.givt import Givt
from vidcomp.types import Corrupted, Grid, Latents, LatentSpec, State

GRID = Grid(3, 2, 3)
LINE = LatentSpec(STRIDES, 1)
MANY = 200


def givt(case: Case) -> Givt:
    assert isinstance(case.objective, Givt)
    return case.objective


def reference(objective: Givt, out: Tensor) -> distributions.Distribution:
    mixture = objective.mixture(out)
    return distributions.MixtureSameFamily(
        distributions.Categorical(logits=mixture.log_weight),
        distributions.Independent(distributions.Normal(mixture.mean, mixture.std), 1),
    )


def test_the_density_is_that_of_torch() -> None:
    case = Case("givt", SPECS["continuous"], GRID)
    out, x = case.some_out(), case.clean().values
    mixture = givt(case).mixture(out)
    expected = reference(givt(case), out)
    torch.testing.assert_close(mixture.log_prob(x), expected.log_prob(x))
    several = torch.stack([x, x + 1, 2 * x])
    torch.testing.assert_close(mixture.log_prob(several), expected.log_prob(several))
    torch.testing.assert_close(
        givt(case).data_prediction(out, case.corrupted().state), expected.mean
    )


def test_no_gaussian_is_narrower_than_the_floor_and_far_values_are_finite() -> None:
    case = Case("givt", SPECS["continuous"], GRID)
    out = case.some_out() * 100
    mixture = givt(case).mixture(out)
    assert mixture.std.min() >= givt(case).config.min_std
    assert mixture.log_prob(1000 + case.clean().values).isfinite().all()


def line(mean: float, std: float, *, draws: int = MANY) -> tuple[Givt, Tensor, State]:
    """An objective on one number, and an output that says it is normal."""
    case = Case("givt", LINE, GRID, {"num_mixtures": 2, "num_candidates": 200})
    objective = givt(case)
    raw_std = math.log(math.expm1(std - objective.config.min_std))
    out = gaussians(objective, torch.full((draws, *GRID, 1), mean), raw_std=raw_std)
    known = torch.zeros(draws, *GRID, dtype=torch.bool)
    return objective, out, State(Latents(torch.zeros(draws, *GRID, 1)), known, torch.zeros(draws))


def test_the_loss_of_the_true_density_is_its_entropy() -> None:
    objective, out, state = line(0.3, 0.8)
    data = 0.3 + 0.8 * Case("givt", LINE, GRID).rng("data", MANY).normal(*GRID, 1)
    corrupted = Corrupted(state, Latents(data), ~state.known)
    rng = Case("givt", LINE, GRID).rng("loss", MANY)
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.8**2)
    loss = objective.loss(out, corrupted, rng).total().mean()
    assert loss.item() == pytest.approx(entropy, abs=4 * (0.5 / data.numel()) ** 0.5)
    for mean, std in ((0.5, 0.8), (0.3, 1.1), (0.3, 0.6)):
        worse = objective.loss(line(mean, std)[1], corrupted, rng).total().mean()
        assert worse > loss


def read(
    outs: list[Tensor],
    weights: list[float],
    state: State,
    objective: Givt,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    rng = Case("givt", LINE, GRID).rng("read", len(state.level))
    made = objective.read(outs, weights, state, temperature=temperature, rng=rng)
    assert made.values is not None and made.confidence is None
    return made.values, made.effective_samples


def assert_normal(x: Tensor, mean: float, std: float) -> None:
    """Within five standard errors, and a tenth of the standard deviation for the resampling."""
    error = 5 / x.numel() ** 0.5
    assert abs(x.mean().item() - mean) < std * error + 0.02
    assert x.std().item() == pytest.approx(std, rel=error + 0.02)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_the_temperature_scales_the_variance(temperature: float) -> None:
    objective, out, state = line(-0.7, 0.5)
    values, effective = read([out], [1.0], state, objective, temperature)
    assert effective is None
    assert_normal(values, -0.7, 0.5 * temperature**0.5)
    frozen, _ = read([out], [1.0], state, objective, 0.0)
    torch.testing.assert_close(frozen, torch.full_like(frozen, -0.7), rtol=0, atol=5e-3)


def test_samples_of_a_mixture_have_its_moments() -> None:
    case = Case("givt", SPECS["continuous"], Grid(1, 1, 1))
    objective, out = givt(case), case.some_out()[:1]
    many = Latents(torch.zeros(5000, *case.grid, 4))
    state = State(many, many.values[..., 0] > 0, torch.zeros(5000))
    values, _ = read([out.expand(5000, *out.shape[1:])], [1.0], state, objective)
    expected = reference(objective, out)
    error = 5 * (expected.variance / 5000).sqrt()
    assert ((values.mean(0) - expected.mean[0]).abs() < error[0]).all()
    torch.testing.assert_close(values.var(0), expected.variance[0], rtol=0.15, atol=0)


@pytest.mark.parametrize(
    "parts, weights",
    [
        ([(0.5, 0.8), (0.0, 1.0)], [2.0, -1.0]),  # classifier-free guidance
        ([(0.5, 0.8), (0.0, 1.0)], [0.4, 0.6]),
        ([(0.5, 0.8), (-0.3, 0.7), (0.0, 1.0)], [1.0, 1.0, -1.0]),  # two factors composed
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_resampling_gives_the_product_of_gaussians(
    parts: list[tuple[float, float]], weights: list[float], temperature: float
) -> None:
    made = [line(mean, std) for mean, std in parts]
    precision = sum(w / std**2 for w, (_, std) in zip(weights, parts, strict=True))
    mean = sum(w * m / s**2 for w, (m, s) in zip(weights, parts, strict=True)) / precision
    objective, _, state = made[0]
    outs = [out for _, out, _ in made]
    values, effective = read(outs, weights, state, objective, temperature)
    assert_normal(values, mean, (temperature / precision) ** 0.5)
    assert effective is not None and effective.shape == values.shape[:-1]
    assert (effective >= 1).all() and (effective <= 201).all()


def test_fewer_candidates_count_the_further_the_product_lies_from_them() -> None:
    objective, _, state = line(0.0, 1.0, draws=20)
    worth: list[float] = []
    for distance in (0.0, 0.5, 1.0, 2.0, 4.0):
        outs = [line(distance, 1.0, draws=20)[1], line(0.0, 1.0, draws=20)[1]]
        _, effective = read(outs, [2.0, -1.0], state, objective)
        assert effective is not None
        worth.append(effective.mean().item())
    assert worth == sorted(worth, reverse=True)
    assert worth[0] == pytest.approx(200, rel=1e-3) and worth[-1] < 10
    # exp(-distance^2) of the candidates, in the limit of many (the chi-square divergence)
    assert worth[1] == pytest.approx(200 * math.exp(-0.25), rel=0.05)


def test_at_least_64_candidates() -> None:
    with pytest.raises(ValueError, match="num_candidates"):
        OBJECTIVES.config({"name": "givt", "num_candidates": 63})
