"""Soft MaskGIT: targets and heads have the limits, the probabilities and the order that they say.

The limits of soft targets are the ends of the ladder: tau to 0 is MaskGIT, tau to infinity teaches
nothing.
"""

import math

import pytest
import torch
from ladder import SPECS, WIDTH, Case
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.objectives.maskgit import MaskGIT
from vidcomp.objectives.soft_maskgit import (
    NUM_LOGISTICS,
    Factorised,
    Ordinal,
    PerLevel,
    Soft,
    log_p_of_intervals,
)
from vidcomp.tokenizers import fsq
from vidcomp.types import Grid

GRID = Grid(1, 3, 3)
LEVEL_COUNTS = [2, 3, 5, 8, 17, 64]


def case(spec: str = "codes", **settings: object) -> Case:
    return Case("soft_maskgit", SPECS[spec], GRID, settings)


def soft_head(made: Case) -> Soft:
    assert isinstance(made.objective, MaskGIT) and isinstance(made.objective.code_head, Soft)
    return made.objective.code_head


def codes(made: Case) -> Tensor:
    found = made.clean().codes
    assert found is not None
    return found


@pytest.mark.parametrize("spec", ["codes", "grouped codes"])
def test_targets_are_gaussian_in_the_distance_of_codes(spec: str) -> None:
    made = case(spec, tau=0.7)
    for i, size in enumerate(made.spec.codebook_sizes or ()):
        every = torch.zeros(size, 1, 1, 1, len(made.spec.codebook_sizes or ())).long()
        every[:, 0, 0, 0, i] = torch.arange(size)
        vectors = made.lookup(every).values[:, 0, 0, 0].double()
        squares = (vectors[:, None] - vectors[None]).square().sum(-1)
        expected = (-squares / 0.7).exp()
        expected = expected / expected.sum(-1, keepdim=True)
        targets = soft_head(made).log_targets(torch.arange(size), i).exp()
        torch.testing.assert_close(targets.double(), expected, rtol=1e-4, atol=1e-7)


def test_tau_of_zero_is_cross_entropy() -> None:
    made = case("grouped codes", tau=1e-4)
    out = made.some_out()
    loss = soft_head(made).cross_entropy(out, codes(made))
    parts = zip(out.split((5, 9), dim=-1), codes(made).unbind(-1), strict=True)
    plain = [F.cross_entropy(p.flatten(0, 3), c.flatten(), reduction="none") for p, c in parts]
    torch.testing.assert_close(loss.flatten(), torch.stack(plain).mean(0))


def test_tau_without_end_asks_for_the_uniform_distribution() -> None:
    made = case(tau=1e9)
    targets = soft_head(made).log_targets(codes(made)[..., 0], 0).exp()
    torch.testing.assert_close(targets, torch.full_like(targets, 1 / 12))


def test_near_codes_cost_less_than_far_ones_and_to_plain_maskgit_they_cost_the_same() -> None:
    made = case(tau=1.0)
    true = codes(made)[..., 0]
    log_targets = soft_head(made).log_targets(true, 0)
    others = log_targets.scatter(-1, true[..., None], -torch.inf)
    near = others.argmax(-1)
    far = log_targets.argmin(-1)
    wrong = [5 * F.one_hot(c, 12).float() for c in (near, far)]
    soft = [soft_head(made).cross_entropy(out, codes(made)) for out in wrong]
    assert (soft[0] < soft[1]).all()
    plain = Case("maskgit", SPECS["codes"], GRID, {"label_smoothing": 0.1}).objective
    assert isinstance(plain, MaskGIT)
    torch.testing.assert_close(*(plain.code_head.cross_entropy(out, codes(made)) for out in wrong))


def test_soft_targets_need_to_know_the_codes() -> None:
    untold = OBJECTIVES.config("soft_maskgit").build(SPECS["codes"], WIDTH)
    made = case()
    corrupted = made.corrupted()
    with pytest.raises(AssertionError, match="learn_codes"):
        untold.loss(made.some_out(), corrupted, made.rng("loss"))


def test_the_distances_are_those_of_a_tokenizers_normalised_latents() -> None:
    tokenizer = fsq.Config(levels=(5, 3), width=8, depth=1).build()
    tokenizer.latent_mean.copy_(torch.tensor([0.1, -0.2]))
    tokenizer.latent_std.copy_(torch.tensor([0.5, 2.0]))
    objective = OBJECTIVES.config({"name": "soft_maskgit", "tau": 0.3}).build(tokenizer.spec, WIDTH)
    objective.learn_codes(tokenizer.lookup)
    assert isinstance(objective, MaskGIT) and isinstance(objective.code_head, Soft)
    # Codes 0 and 1 differ by one of five levels of channel 0; 0 and 5 by one of three of channel 1.
    log_p = objective.code_head.log_targets(torch.tensor([0]), 0)[0]
    assert log_p[1] - log_p[0] == pytest.approx(-((0.5 / 0.5) ** 2) / 0.3, abs=1e-4)
    assert log_p[5] - log_p[0] == pytest.approx(-((1.0 / 2.0) ** 2) / 0.3, abs=1e-4)


# Heads for each level.


def test_the_digits_are_those_of_the_tokenizer() -> None:
    tokenizer = fsq.Config(levels=(5, 3, 4), width=8, depth=1).build()
    every = torch.arange(60).reshape(60, 1, 1, 1, 1)
    values = tokenizer.dequantize(every)[:, 0, 0, 0]
    head = Factorised(PerLevel((5, 3, 4)), WIDTH)
    for channel in range(3):
        # The values of a channel rise with its digit, and nothing else matters to them.
        ranks = values[:, channel].unique(return_inverse=True)[1]
        assert torch.equal(ranks, head.digits[:, channel])


@pytest.mark.parametrize("heads", ["per_level", "ordinal"])
def test_a_factorised_code_is_the_product_of_its_levels(heads: str) -> None:
    made = case("fsq", heads=heads)
    objective, out = made.objective, made.some_out()
    assert isinstance(objective, MaskGIT) and isinstance(objective.code_head, Factorised)
    first, second = objective.code_head.of_levels.log_p(out)  # 5 and 3
    joint = (second.exp()[..., :, None] * first.exp()[..., None, :]).flatten(-2)
    torch.testing.assert_close(objective.log_p(out).exp(), joint)
    torch.testing.assert_close(objective.log_p(out).exp().sum(-1), torch.ones(4, *GRID))
    nll = -joint.log().gather(-1, codes(made)).squeeze(-1)
    torch.testing.assert_close(objective.code_head.cross_entropy(out, codes(made)), nll)


def test_independent_levels_are_what_a_joint_head_can_say_too() -> None:
    """The two heads differ in what they can say, not in what it costs."""
    per_level, joint = case("fsq", heads="per_level"), Case("maskgit", SPECS["fsq"], GRID)
    assert isinstance(per_level.objective, MaskGIT) and isinstance(joint.objective, MaskGIT)
    joint.objective.code_head.label_smoothing = 0.0
    out = per_level.some_out()
    as_joint = per_level.objective.log_p(out)
    torch.testing.assert_close(
        per_level.objective.code_head.cross_entropy(out, codes(per_level)),
        joint.objective.code_head.cross_entropy(as_joint, codes(per_level)),
    )


@pytest.mark.parametrize("size", LEVEL_COUNTS)
def test_probabilities_of_levels_are_those_of_scipys_logistic(size: int) -> None:
    drawn = torch.randn(20, 1, 1, 1, 3 * NUM_LOGISTICS, generator=torch.Generator().manual_seed(0))
    logit, mean, log_scale = drawn.chunk(3, dim=-1)
    log_scale = log_scale - 1
    made = log_p_of_intervals(size, torch.cat([logit, mean, log_scale], dim=-1)).exp()
    assert made.shape[-1] == size
    torch.testing.assert_close(made.sum(-1), torch.ones(20, 1, 1, 1))
    edges = [-math.inf, *((2 * i - size) / (size - 1) for i in range(1, size)), math.inf]
    for row in range(20):
        weights, means, scales = (
            x[row, 0, 0, 0].double().numpy() for x in (logit.softmax(-1), mean, log_scale.exp())
        )
        for level in range(size):
            cdf = [stats.logistic.cdf(edges[level + k], means, scales) for k in (0, 1)]
            expected = float((weights * (cdf[1] - cdf[0])).sum())
            assert float(made[row, 0, 0, 0, level]) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("size", LEVEL_COUNTS)
def test_an_ordinal_head_can_be_sure_of_each_level(size: int) -> None:
    centres = torch.linspace(-1, 1, size)
    zero, narrow = torch.zeros(size), torch.full((size,), -50.0)  # below the floor of the scale
    parts = [x[:, None].expand(size, NUM_LOGISTICS) for x in (zero, centres, narrow)]
    parameters = torch.cat(parts, dim=-1)[:, None, None, None].requires_grad_()
    log_p = log_p_of_intervals(size, parameters)
    assert log_p[:, 0, 0, 0].diagonal().min() > -0.01
    log_p.sum().backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()


def test_the_order_of_levels_is_known_to_the_ordinal_head_alone() -> None:
    """Trained towards the levels beside it, the level between them becomes likely."""

    def likely(levels: PerLevel | Ordinal) -> Tensor:
        out = torch.zeros(1, 1, 1, 1, sum(levels.widths)).add_(0.01).requires_grad_()
        optimizer = torch.optim.Adam([out], lr=0.05)
        for _ in range(100):
            log_p = levels.log_p(out)[0]
            optimizer.zero_grad()
            (-log_p[..., 3] - log_p[..., 5]).sum().backward()
            optimizer.step()
        return levels.log_p(out)[0].exp().flatten()

    categorical, ordinal = likely(PerLevel((9,))), likely(Ordinal((9,)))
    assert categorical[4] < 1.2 * categorical[0] and ordinal[4] > 10 * ordinal[0]


def test_probabilities_far_from_every_level_are_finite_with_finite_gradients() -> None:
    parameters = torch.tensor([0.0, 1.0, -1.0, 500.0, -500.0, 30.0, -50.0, 3.0, -7.0])
    parameters = parameters.reshape(1, 1, 1, 1, 9).requires_grad_()
    log_p = log_p_of_intervals(8, parameters)
    assert log_p.isfinite().all()
    log_p.sum().backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()


@pytest.mark.parametrize("heads", ["per_level", "ordinal"])
def test_heads_for_levels_need_levels(heads: str) -> None:
    with pytest.raises(UserError, match=f"heads={heads} needs a tokenizer whose.*fsq") as error:
        OBJECTIVES.config({"name": "soft_maskgit", "heads": heads}).build(SPECS["codes"], WIDTH)
    assert "\n" not in str(error.value)
