"""The JEPA head: targets without gradient, a loss on predicted positions, no trace at sampling."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig, Guidance, Network
from vidcomp.models.jepa import JepaConfig, JepaHead
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid, Latents, LatentSpec
from vidcomp.world.concepts import choose

FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up"]})
SPEC = LatentSpec(Grid(4, 8, 8), 3, codebook_sizes=(11,))
GRID = Grid(3, 2, 2)
BATCH = 4


def generator_of(objective: str = "maskgit", **jepa: Any) -> Generator:
    config = GeneratorConfig.model_validate(
        {
            "objective": objective,
            "backbone": {"depth": 4, "width": 24, "heads": 2},
            "jepa": jepa,
        }
    )
    with initial_weights(0):
        return config.build(SPEC, FACTORS)


def clean() -> Latents:
    rng = Rng.make(0, "clean", torch.arange(BATCH))
    return Latents(rng.normal(*GRID, 3), rng.integers(11, *GRID, 1))


def condition() -> Condition:
    classes = FACTORS.combinations()[:BATCH]
    return Condition.of(classes, FACTORS.prototypes(classes))


def rng(step: int = 0) -> Rng:
    return Rng.make(0, "train", torch.arange(BATCH), step=step)


def train(generator: Generator, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in generator.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        generator(clean(), condition(), rng(step)).total().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        generator.after_step()


def head_of(generator: Generator) -> JepaHead:
    assert generator.jepa is not None
    return generator.jepa


@pytest.mark.parametrize(
    "depth, layers",
    [(1, (0,)), (2, (1,)), (4, (2, 3)), (6, (3, 4, 5)), (12, (7, 9, 11)), (24, (15, 19, 23))],
)
def test_default_layers_are_late_ones(depth: int, layers: tuple[int, ...]) -> None:
    assert JepaConfig().resolve_layers(depth) == layers


@pytest.mark.parametrize("layers", [[4], [-1], [1, 1], []])
def test_layers_that_do_not_exist_are_refused_in_one_line(layers: list[int]) -> None:
    with pytest.raises(UserError, match=r"jepa.layers=.* a trunk of depth 4 has 0 to 3") as error:
        generator_of(layers=layers)
    assert "\n" not in str(error.value)


def test_layers_may_be_named_in_any_order() -> None:
    assert head_of(generator_of(layers=[3, 0])).layers == (0, 3)


@pytest.mark.parametrize("objective", ["maskgit", "flow"])
def test_gradients_reach_predictors_and_network_but_never_the_target(objective: str) -> None:
    generator = generator_of(objective)
    train(generator, steps=2)  # opens the gates, behind which no gradient passes
    losses = generator(clean(), condition(), rng())
    losses.terms["jepa"].mean().backward()
    jepa = head_of(generator)
    assert all(p.grad is None and not p.requires_grad for p in jepa.target.parameters())
    for name, parameter in jepa.predictors.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for name, parameter in generator.network.backbone.blocks.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_target_starts_as_a_copy_and_follows_the_closed_form() -> None:
    generator = generator_of(ema_decay=0.9)
    jepa = head_of(generator)
    ours, theirs = dict(jepa.target.named_parameters()), dict(generator.network.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    first = {name: value.detach().clone() for name, value in theirs.items()}
    with torch.no_grad():
        for value in theirs.values():
            value.add_(1.0)
    for _ in range(3):
        generator.after_step()
    for name, value in ours.items():  # 1 - 0.9^3 of the way
        torch.testing.assert_close(value, first[name] + (1 - 0.9**3), rtol=1e-5, atol=1e-5)


def test_a_decay_of_zero_copies() -> None:
    generator = generator_of(ema_decay=0.0)
    train(generator, steps=2)
    for ours, theirs in zip(
        head_of(generator).target.parameters(), generator.network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def states(seed: int) -> tuple[Tensor, ...]:
    made = Rng.make(seed, "states", torch.arange(BATCH)).normal(2, GRID.size, 24)
    return tuple(made.unbind(1))


def head_alone() -> JepaHead:
    with initial_weights(0):
        return JepaHead(JepaConfig(layers=(0, 1)), nn.Linear(1, 1), depth=2, width=24)


def test_the_loss_counts_predicted_positions_only() -> None:
    head, context, target = head_alone(), states(0), states(1)
    predict = Rng.make(0, "predict", torch.arange(BATCH)).bernoulli(0.5, *GRID)
    predict[0] = False
    loss = head.loss(context, target, predict).terms["jepa"]
    assert loss[0] == 0 and (loss[1:] > 0).all()
    elsewhere = ~predict.flatten(1)[..., None]
    noise = 100 * torch.randn(BATCH, GRID.size, 24)
    context = tuple(x + noise * elsewhere for x in context)
    target = tuple(x + noise * elsewhere for x in target)
    torch.testing.assert_close(head.loss(context, target, predict).terms["jepa"], loss)


def test_the_loss_is_the_formula_and_blind_to_the_scale_of_targets() -> None:
    head, context, target = head_alone(), states(0), states(1)
    everywhere = torch.ones(BATCH, *GRID, dtype=torch.bool)
    loss = head.loss(context, target, everywhere).terms["jepa"]
    errors: list[Tensor] = []
    for predictor, source, goal in zip(head.predictors, context, target, strict=True):
        normal = (goal - goal.mean(-1, keepdim=True)) / goal.std(-1, keepdim=True, correction=0)
        errors.append((predictor(source) - normal).square().mean((1, 2)))
    torch.testing.assert_close(loss, torch.stack(errors).mean(0), rtol=1e-4, atol=1e-4)
    scaled = head.loss(context, tuple(7 * x + 2 for x in target), everywhere).terms["jepa"]
    torch.testing.assert_close(scaled, loss, rtol=1e-3, atol=1e-3)


def test_a_target_that_says_the_same_everywhere_raises_the_alarm() -> None:
    head, everywhere = head_alone(), torch.ones(BATCH, *GRID, dtype=torch.bool)
    alive = head.loss(states(0), states(1), everywhere).metrics["jepa_target_std"]
    torch.testing.assert_close(alive, torch.ones(BATCH), rtol=0, atol=0.2)
    collapsed = tuple(x[:, :1].expand_as(x) for x in states(1))
    dead = head.loss(states(0), collapsed, everywhere).metrics["jepa_target_std"]
    assert dead.max() < 1e-5
    one = Grid(1, 1, 1)
    single = head.loss(
        tuple(x[:, :1] for x in states(0)),
        tuple(x[:, :1] for x in states(1)),
        torch.ones(BATCH, *one, dtype=torch.bool),
    )
    assert single.metrics["jepa_target_std"].eq(0).all() and single.terms["jepa"].isfinite().all()


def test_the_weight_and_the_other_terms_add_up() -> None:
    with_jepa = generator_of(weight=0.6)(clean(), condition(), rng())
    without = generator_of(weight=0.6)
    without.jepa = None
    plain = without(clean(), condition(), rng()).total()
    torch.testing.assert_close(with_jepa.total(), plain + 0.6 * with_jepa.terms["jepa"])


def test_the_target_sees_the_clean_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of()
    teacher = head_of(generator).target
    assert isinstance(teacher, Network)
    seen: list[Tensor] = []
    embed = teacher.objective.embed
    monkeypatch.setattr(
        teacher.objective, "embed", lambda state: seen.append(state.known) or embed(state)
    )
    generator(clean(), condition(), rng())
    assert len(seen) == 1 and seen[0].all()


def test_sampling_needs_nothing_of_it() -> None:
    trained = generator_of()
    train(trained, steps=2)
    bare = trained.config.model_copy(update={"jepa": None}).build(SPEC, FACTORS)
    weights = {k: v for k, v in trained.state_dict().items() if not k.startswith("jepa.")}
    bare.load_state_dict(weights)  # strict: nothing is missing, nothing is left over
    data, given = clean(), torch.zeros(BATCH, *GRID, dtype=torch.bool)
    for generator in (trained, bare):
        generator.eval()
    start = trained.objective.start(data, given, rng())
    guidance = Guidance.scaled(condition(), 2.0)
    codes = [g.denoiser(guidance)(start, rng()).codes for g in (trained, bare)]
    assert codes[0] is not None and codes[1] is not None and torch.equal(codes[0], codes[1])
