"""The loss of the JEPA head: the formula, where it counts, block masks, controls, alarms."""

from typing import Any

import pytest
import torch
from jepa_studio import (
    ALARMS,
    BATCH,
    GRID,
    OBJECTIVE_NAMES,
    SPEC,
    WIDTH,
    Seen,
    clean,
    condition,
    generator_of,
    head_of,
    rng,
)
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.models.jepa import JepaConfig, JepaHead
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid


def states(seed: int) -> tuple[Tensor, ...]:
    made = Rng.make(seed, "states", torch.arange(BATCH)).normal(2, GRID.size, WIDTH)
    return tuple(made.unbind(1))


def head_alone(**options: Any) -> JepaHead:
    config = JepaConfig.model_validate({"layers": (0, 1), **options})
    with initial_weights(0):
        return JepaHead(config, nn.Linear(1, 1), depth=2, width=WIDTH, heads=2, channels=3)


EVERYWHERE = torch.ones(BATCH, *GRID, dtype=torch.bool)


def test_the_loss_counts_marked_positions_only() -> None:
    head, context, target = head_alone(), states(0), states(1)
    where = Rng.make(0, "predict", torch.arange(BATCH)).bernoulli(0.5, *GRID)
    where[0] = False
    loss = head.loss(context, target, where).terms["jepa"]
    assert loss[0] == 0 and (loss[1:] > 0).all()
    elsewhere = ~where.flatten(1)[..., None]
    noise = 100 * torch.randn(BATCH, GRID.size, WIDTH)
    context = tuple(x + noise * elsewhere for x in context)
    target = tuple(x + noise * elsewhere for x in target)
    torch.testing.assert_close(head.loss(context, target, where).terms["jepa"], loss)


DISTANCES = {
    "mse": lambda a, b: (a - b).square().mean(-1),
    "smooth_l1": lambda a, b: torch.where(
        (a - b).abs() < 1, 0.5 * (a - b) ** 2, (a - b).abs() - 0.5
    ).mean(-1),
    "cosine": lambda a, b: 1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)),
}


@pytest.mark.parametrize("predictor", ["identity", "linear", "mlp", "transformer"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_loss_is_the_formula(
    predictor: str, distance: str, normalize: bool, reduce: str
) -> None:
    head = head_alone(
        predictor=predictor, distance=distance, normalize_targets=normalize, reduce=reduce
    )
    context, target = states(0), states(1)
    errors: list[Tensor] = []
    for of_layer, source, goal in zip(head.predictors, context, target, strict=True):
        if normalize:
            goal = (goal - goal.mean(-1, keepdim=True)) / goal.std(-1, keepdim=True, correction=0)
        errors.append(DISTANCES[distance](of_layer(source), goal).mean(1))
    expected = torch.stack(errors).mean(0) * (2 if reduce == "sum" else 1)
    loss = head.loss(context, target, EVERYWHERE).terms["jepa"]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_normalised_targets_are_blind_to_their_scale() -> None:
    for normalize in (True, False):
        head = head_alone(normalize_targets=normalize)
        loss, larger = (
            head.loss(states(0), tuple(k * x + 2 for x in states(1)), EVERYWHERE).terms["jepa"]
            for k in (1, 7)
        )
        assert torch.allclose(loss, larger, rtol=1e-3, atol=1e-3) == normalize


def test_an_identity_that_is_right_costs_nothing() -> None:
    head = head_alone(predictor="identity", normalize_targets=False)
    assert head.loss(states(0), states(0), EVERYWHERE).terms["jepa"].eq(0).all()
    assert not list(head.predictors.parameters())


def test_only_the_transformer_looks_at_other_positions() -> None:
    where = torch.zeros_like(EVERYWHERE)
    where[:, 0, 0, 0] = True
    changed = tuple(x.clone().index_fill_(1, torch.tensor([5]), 3.0) for x in states(0))
    for predictor in ("identity", "linear", "mlp", "transformer"):
        head = head_alone(predictor=predictor)
        one, other = (head.loss(c, states(1), where).terms["jepa"] for c in (states(0), changed))
        assert torch.equal(one, other) == (predictor != "transformer")


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
@pytest.mark.parametrize("loss_on", ["hidden", "all"])
def test_hidden_positions_are_predicted_and_given_frames_are_not(
    objective: str, loss_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generator_of(objective, {"prefix": 1.0}, loss_on=loss_on)
    seen = Seen(generator.network, monkeypatch)
    where = asked_where(generator, monkeypatch)
    generator(clean(), condition(), rng())
    known = seen.states[0].known
    assert known[:, 0].all() and not known.all()
    assert torch.equal(where[0], torch.ones_like(known) if loss_on == "all" else ~known)


def test_what_the_objective_predicts_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of({"name": "maskgit", "loss_on": "all"})
    seen = Seen(generator.network, monkeypatch)
    where = asked_where(generator, monkeypatch)
    generator(clean(), condition(), rng())
    assert torch.equal(where[0], ~seen.states[0].known) and not where[0].all()


def asked_where(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    found: list[Tensor] = []
    jepa = head_of(generator)
    loss = jepa.loss
    monkeypatch.setattr(
        jepa, "loss", lambda c, t, where: found.append(where.clone()) or loss(c, t, where)
    )
    return found


# --- Block masks.


def test_blocks_have_their_share_and_any_place() -> None:
    grid, many = Grid(4, 6, 5), 4000
    jepa = head_of(generator_of(block=[0.5, 1 / 3, 0.2]))
    block = jepa.hidden_block(grid, Rng.make(0, "blocks", torch.arange(many)))
    assert block.shape == (many, *grid)
    assert (block.sum((1, 2, 3)) == 2 * 2 * 1).all()
    firsts: list[Tensor] = []
    for axis, length in ((1, 2), (2, 2), (3, 1)):
        line = block.any(dim=[a for a in (1, 2, 3) if a != axis]).int()
        assert (line.sum(1) == length).all()
        first = line.argmax(1)
        last = line.shape[1] - 1 - line.flip(1).argmax(1)
        assert (last - first == length - 1).all(), "contiguous"
        places = line.shape[1] - length + 1
        shares = torch.bincount(first, minlength=places) / many
        torch.testing.assert_close(shares, torch.full((places,), 1 / places), atol=0.04, rtol=0)
        firsts.append(first.float())
    assert torch.corrcoef(torch.stack(firsts)).fill_diagonal_(0).abs().max() < 0.06
    again = jepa.hidden_block(grid, Rng.make(0, "blocks", torch.arange(many))[5:7])
    assert torch.equal(again, block[5:7])


def test_a_block_is_at_least_one_position_and_at_most_all() -> None:
    few = head_of(generator_of(block=[0.01, 0.01, 0.01]))
    assert (few.hidden_block(GRID, rng()).sum((1, 2, 3)) == 1).all()
    whole = head_of(generator_of(block=[1, 1, 1]))
    assert whole.hidden_block(GRID, rng()).all()


@pytest.mark.parametrize("objective", ["maskgit", "soft_maskgit", "givt", "mar"])
def test_a_block_is_hidden_and_predicted_but_given_frames_never_are(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditioning = {"prefix": 1.0, "drop_joint": 0.0}
    plain = generator_of(objective, conditioning)
    blocked = generator_of(objective, conditioning, block=[1, 0.5, 1])
    seen = [Seen(g.network, monkeypatch) for g in (plain, blocked)]
    where = asked_where(blocked, monkeypatch)
    predicted: list[Tensor] = []
    loss = blocked.objective.loss
    monkeypatch.setattr(
        blocked.objective,
        "loss",
        lambda out, corrupted, rng: (
            predicted.append(corrupted.predict) or loss(out, corrupted, rng)
        ),
    )
    for generator in (plain, blocked):
        generator(clean(), condition(), rng())
    before, after = (s.states[0] for s in seen)
    given = condition().with_prefix(blocked.config.conditioning, GRID, rng()).given_positions(GRID)
    block = head_of(blocked).hidden_block(GRID, rng().fold("jepa"))
    assert (block & given).any() and (block & ~given & before.known).any()
    assert torch.equal(after.known, before.known & ~(block & ~given))
    assert torch.equal(where[0], ~after.known) and torch.equal(predicted[0], ~after.known)
    assert torch.equal(after.level, before.level)


# --- Controls.


def test_without_masking_the_context_is_the_clean_clip_and_all_positions_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = generator_of(control="no_masking", ema_decay=0.0, predictor="identity")
    seen = Seen(generator.network, monkeypatch)
    where = asked_where(generator, monkeypatch)
    losses = generator(clean(), condition(), rng())
    corrupted, context = seen.states
    assert not corrupted.known.all(), "the objective still masks"
    assert context.known.all() and (context.level == 1).all() and seen.had_gradient[1]
    assert where[0].all()
    assert losses.terms["cross_entropy"].gt(0).all()
    raw = generator_of(control="no_masking", predictor="identity", normalize_targets=False)
    assert raw(clean(), condition(), rng()).terms["jepa"].eq(0).all(), "both see the same"


def test_shuffled_targets_are_those_of_another_clip() -> None:
    plain, shuffled = head_alone(), head_alone(control="shuffled")
    rolled = tuple(x.roll(1, 0) for x in states(1))
    expected = plain.loss(states(0), rolled, EVERYWHERE).terms["jepa"]
    found = shuffled.loss(states(0), states(1), EVERYWHERE)
    torch.testing.assert_close(found.terms["jepa"], expected)
    for alarm in ALARMS:
        assert torch.equal(
            found.metrics[alarm], plain.loss(states(0), states(1), EVERYWHERE).metrics[alarm]
        )


def test_one_clip_cannot_be_shuffled() -> None:
    head = head_alone(control="shuffled")
    one = [tuple(x[:1] for x in states(seed)) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"jepa.control=shuffled .* train.batch_size"):
        head.loss(*one, EVERYWHERE[:1])


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_regression_predicts_latents_without_a_target_network(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generator_of(objective, control="regression", predictor="linear")
    jepa = head_of(generator)
    assert jepa.copy is None
    assert sum(p.numel() for p in jepa.parameters()) == 2 * (WIDTH + 1) * SPEC.channels
    seen = Seen(generator.network, monkeypatch)
    losses = generator(clean(), condition(), rng())
    (state,) = seen.states
    hidden = generator.hidden(state, condition_of_training(generator), jepa.layers)
    errors = [
        (predict(h) - clean().values.flatten(1, 3)).square().mean(-1)
        for predict, h in zip(jepa.predictors, hidden, strict=True)
    ]
    where = ~state.known.flatten(1)
    expected = [(e * where).sum(1) / where.sum(1) for e in errors]
    torch.testing.assert_close(losses.terms["jepa"], torch.stack(expected).mean(0))
    generator.after_step()


def condition_of_training(generator: Generator) -> Condition:
    return condition().dropped(generator.config.conditioning, rng())


# --- Alarms.


def alarms_of(target: Tensor) -> list[Tensor]:
    """Standard deviation, rank, cosine of states ``b n c``, the same at both layers."""
    head, (b, n, c) = head_alone(), target.shape
    context = (torch.zeros(b, n, WIDTH),) * 2
    where = torch.ones(b, n, 1, 1, dtype=torch.bool)
    padded = F.pad(target, (0, WIDTH - c)) if c < WIDTH else target
    metrics = head.loss(context, (padded,) * 2, where).metrics
    return [metrics[name] for name in ALARMS]


def test_a_target_that_says_the_same_everywhere_raises_every_alarm() -> None:
    std, rank, cosine = alarms_of(states(1)[0][:, :1].expand(-1, 12, -1))
    assert std.max() < 1e-5 and rank.max() < 1e-3
    torch.testing.assert_close(cosine, torch.ones(BATCH))


@pytest.mark.parametrize("num_directions", [1, 2, 5, WIDTH])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_rank_counts_directions(num_directions: int, copies: int) -> None:
    """Plus and minus each of k orthogonal directions: k equal eigenvalues, mean 0."""
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0][:num_directions]
    target = torch.cat([basis, -basis] * copies)[None].expand(BATCH, -1, -1)
    std, rank, _ = alarms_of(3 * target)
    torch.testing.assert_close(rank, torch.full((BATCH,), float(num_directions)))
    torch.testing.assert_close(std, torch.full((BATCH,), 3 / WIDTH**0.5))
    _, ranked, _ = alarms_of(0.001 * target + 5)
    torch.testing.assert_close(ranked, rank, rtol=0.02, atol=0.02)


def test_the_cosine_is_that_to_the_mean() -> None:
    """Two orthogonal unit vectors lie 45 degrees from their mean."""
    _, rank, cosine = alarms_of(torch.eye(WIDTH)[None, :2].expand(BATCH, -1, -1))
    torch.testing.assert_close(cosine, torch.full((BATCH,), 0.5**0.5))
    torch.testing.assert_close(rank, torch.ones(BATCH))


def test_one_position_is_no_accident() -> None:
    std, rank, cosine = alarms_of(states(1)[0][:, :1])
    assert std.eq(0).all() and rank.eq(0).all()
    torch.testing.assert_close(cosine, torch.ones(BATCH))
