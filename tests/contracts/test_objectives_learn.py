"""What every objective promises of training: gradients everywhere, and one batch is learned."""

from collections.abc import Callable

import pytest
import torch
from ladder import BATCH, FACTORS, WIDTH, Case, cases

from vidcomp.models.conditioning import Condition, ConditioningConfig
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Latents

VARIANTS = OBJECTIVES.names()


def generator_for(case: Case) -> Generator:
    config = GeneratorConfig.model_validate(
        {
            "objective": case.raw,
            "backbone": {"depth": 1, "width": WIDTH, "heads": 2},
            "conditioning": {"drop_factor": 0.3, "prefix": 0.5, "encode": {"motion": "exact"}},
        }
    )
    with initial_weights(0):
        generator = config.build(case.spec, FACTORS)
    if case.spec.codebook_sizes is not None:
        generator.objective.learn_codes(case.lookup)
    return generator


def condition(batch: int) -> Condition:
    classes = torch.arange(batch)[:, None] % torch.tensor(FACTORS.sizes)
    return Condition.of(classes, FACTORS.prototypes(classes))


def train(generator: Generator, clean: Latents, *, steps: int, learning_rate: float = 1e-2) -> None:
    optimizer = torch.optim.AdamW(generator.parameters(), lr=learning_rate)
    index = torch.arange(len(clean))
    for step in range(steps):
        rng = Rng.make(0, "train", index, step=step)
        generator(clean, condition(len(clean)), rng).total().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        generator.after_step()


def gradients_reach_every_parameter(case: Case) -> None:
    """After a few steps: each opens gates, or fills a head, that start at zero (adaLN-zero), behind
    which no gradient passes. MAR's head has its own gates, in front of the trunk's.
    """
    generator = generator_for(case)
    clean = case.clean(batch=16)
    train(generator, clean, steps=4 if case.name == "mar" else 2)
    generator(clean, condition(16), case.rng("train", 16)).total().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        if name == "network.objective.known" and case.grid.t == 1:
            continue  # an image has no given frames
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def one_batch_is_learned_by_heart(case: Case) -> None:
    generator = generator_for(case)
    undropped = ConditioningConfig(drop_joint=0.0)
    generator.config = generator.config.model_copy(update={"conditioning": undropped})
    clips = torch.arange(32) % 2  # two clips, many levels
    clean = case.clean(batch=2)[clips]

    def excess() -> float:
        with torch.no_grad():
            losses = generator(clean, condition(2)[clips], case.rng("judge", len(clips)))
        return float(losses.total().mean()) - case.least_loss

    before = excess()
    if case.name == "mar":  # its head must learn before the trunk hears of the loss
        train(generator, clean[:16], steps=45, learning_rate=5e-3)
    else:
        train(generator, clean, steps=25)
    assert excess() < 0.85 * before, f"{case}: {before} -> {excess()}"


def autocast_leaves_the_loss_in_full_precision(case: Case) -> None:
    generator = generator_for(case)
    with torch.autocast("cpu", torch.bfloat16):
        loss = generator(case.clean(), condition(BATCH), case.rng("train")).total()
    assert loss.dtype == torch.float32
    full = generator(case.clean(), condition(BATCH), case.rng("train")).total()
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.05)
    loss.mean().backward()


CHECKS: tuple[Callable[[Case], None], ...] = (
    gradients_reach_every_parameter,
    one_batch_is_learned_by_heart,
    autocast_leaves_the_loss_in_full_precision,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    for case in cases(name):
        check(case)
