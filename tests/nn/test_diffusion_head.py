"""MAR's head: with the exact answer for a normal distribution in place of its network, it has the
least loss, and samples that distribution; compositions too.
"""

import functools

import pytest
import torch
from torch import Tensor

from vidcomp.nn.diffusion_head import DiffusionHead
from vidcomp.seeding import Rng, initial_weights

MANY = 4000


def exact(std: float) -> DiffusionHead:
    """Of normal data around the condition."""
    head = DiffusionHead(1, 1, width=8, depth=1)

    def v(noised: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        point = head.path.at(level)
        variance = (point.alpha * std).square() + point.sigma.square()
        gain = point.alpha * std**2 / variance
        data = condition + gain * (noised - point.alpha * condition)
        return point.v(data, point.noise(noised, data))

    head.v = v
    return head


def rng(count: int = MANY) -> Rng:
    return Rng.make(0, "head", torch.arange(count))


@pytest.mark.parametrize("std", [0.0, 0.5, 1.0, 2.0])
def test_the_loss_at_the_optimum_is_what_cannot_be_known(std: float) -> None:
    """Var(v | x) = std^2 / (alpha^2 std^2 + sigma^2), averaged over the timesteps."""
    condition = torch.linspace(-2, 2, MANY)[:, None, None]
    data = condition + std * rng().fold("data").normal(1, 1)
    head = exact(std)
    alphas = head.path.alphas[1:]
    left = std**2 / ((alphas * std).square() + 1 - alphas.square())
    losses = head.loss(data, condition, rng(), draws=4)
    assert losses.shape == (MANY, 1)
    error = 5 * float(losses.std()) / MANY**0.5
    assert float(losses.mean()) == pytest.approx(float(left.mean()), abs=error + 1e-5)
    shifted = head.loss(data, condition + 0.3, rng(), draws=4)
    assert shifted.mean() > losses.mean()


def test_an_untrained_head_is_right_about_unit_noise() -> None:
    """It says v = 0, the best that can be said of latents that are noise themselves."""
    with initial_weights(0):
        head = DiffusionHead(3, 4, width=8, depth=1)
    losses = head.loss(rng().normal(2, 3), rng().fold("c").normal(2, 4), rng(), draws=2)
    assert losses.shape == (MANY, 2)
    assert losses.mean().item() == pytest.approx(1.0, abs=0.03)


def test_several_draws_are_averaged_and_no_clip_sees_another() -> None:
    with initial_weights(0):
        head = DiffusionHead(2, 3, width=8, depth=2)
        torch.nn.init.normal_(head.to_v.weight)
    target, condition = rng(6).normal(4, 5, 2), rng(6).fold("c").normal(4, 5, 3)
    whole = head.loss(target, condition, rng(6), draws=3)
    assert whole.shape == (6, 4, 5)
    rows = torch.tensor([5, 1])
    part = head.loss(target[rows], condition[rows], rng(6)[rows], draws=3)
    torch.testing.assert_close(part, whole[rows])
    spread = [
        head.loss(target[:1].expand(6, 4, 5, 2), condition[:1].expand(6, 4, 5, 3), rng(6), draws=n)
        for n in (1, 64)
    ]
    assert spread[1].std(0).mean() < 0.3 * spread[0].std(0).mean()


def sampled(head: DiffusionHead, means: list[float], weights: list[float], **more: float) -> Tensor:
    conditions = [torch.full((MANY, 1, 1), mean) for mean in means]
    temperature = more.get("temperature", 1.0)
    where = torch.ones(MANY, 1, dtype=torch.bool)
    made = head.sample(
        conditions, weights, rng(), num_steps=60, temperature=temperature, where=where
    )
    assert made.shape == (MANY, 1, 1)
    return made


@pytest.mark.parametrize("std", [0.5, 1.0, 1.5])
def test_samples_are_normal_as_the_data(std: float) -> None:
    made = sampled(exact(std), [0.7], [1.0])
    assert float(made.mean()) == pytest.approx(0.7, abs=5 * std / MANY**0.5 + 0.01)
    assert float(made.std()) == pytest.approx(std, rel=0.06)


def test_compositions_are_made_inside_the_loop() -> None:
    """prod N(m_i, s^2)^w_i is N(sum w_i m_i, s^2) where the weights sum to 1."""
    made = sampled(exact(0.5), [0.8, -0.4, 0.1], [1.0, 1.0, -1.0])
    assert float(made.mean()) == pytest.approx(0.8 - 0.4 - 0.1, abs=0.05)
    assert float(made.std()) == pytest.approx(0.5, rel=0.06)


def test_a_lower_temperature_is_less_noise() -> None:
    spread = [
        float(sampled(exact(1.0), [0.0], [1.0], temperature=t).std()) for t in (0.0, 0.5, 1.0)
    ]
    assert spread == sorted(spread) and spread[0] < 0.5 * spread[2]


def test_what_is_drawn_at_a_place_does_not_depend_on_where_else_is_drawn() -> None:
    draw = functools.partial(
        exact(0.7).sample, [rng(6).normal(4, 5, 1)], [1.0], rng(6), num_steps=5, temperature=1.0
    )
    whole = draw(where=torch.ones(6, 4, 5, dtype=torch.bool))
    for share in (0.0, 0.3):
        where = rng(6).fold("where").uniform(4, 5) < share
        torch.testing.assert_close(draw(where=where), whole * where[..., None])


def test_the_mean_is_that_of_the_data_and_differentiable() -> None:
    condition = torch.linspace(-1, 1, 6).reshape(6, 1, 1).requires_grad_()
    mean = exact(0.7).mean(condition, rng(6), draws=4)
    torch.testing.assert_close(mean, condition, rtol=0, atol=1e-3)
    mean.sum().backward()
    torch.testing.assert_close(condition.grad, torch.ones(6, 1, 1), rtol=1e-3, atol=1e-3)


def test_nothing_may_be_left_to_draw() -> None:
    with initial_weights(0):
        head = DiffusionHead(2, 3, width=8, depth=2)
    made = head.sample(
        [rng(6).normal(4, 5, 3)],
        [1.0],
        rng(6),
        num_steps=3,
        temperature=1.0,
        where=torch.zeros(6, 4, 5, dtype=torch.bool),
    )
    assert made.shape == (6, 4, 5, 2) and not made.any()
