"""The JEPA head: targets without gradient, options that work, no trace at sampling."""

from pathlib import Path
from typing import Any

import pytest
import torch
from jepa_studio import (
    ALARMS,
    BATCH,
    FACTORS,
    GRID,
    OBJECTIVE_NAMES,
    SPEC,
    Seen,
    clean,
    condition,
    generator_of,
    head_of,
    open_gates,
    rng,
    train,
)
from safetensors.torch import load_file
from tiny import generator_run, metrics
from torch import nn

from vidcomp.config import UserError
from vidcomp.models.generator import Generator
from vidcomp.models.guidance import Guidance, GuidanceConfig
from vidcomp.models.jepa import JepaConfig, JepaHead
from vidcomp.objectives.base import Masked
from vidcomp.runs import GeneratorRun, newest_checkpoint
from vidcomp.training import trainer
from vidcomp.training.tasks import train as train_run


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


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"control": "regression", "predictor": "identity"}, "predictor=identity cannot"),
        ({"control": "no_masking", "block": [1, 0.5, 0.5]}, "hides nothing; drop block"),
        ({"target": "shared", "ema_decay": 0.5}, "follows train.ema_decay, so ema_decay has no"),
        ({"target": "shared", "ramp_steps": 5}, "so ramp_steps has no meaning"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JepaConfig.model_validate(keys)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_a_block_is_for_objectives_that_hide_positions(objective: str) -> None:
    build = lambda: generator_of(objective, block=[1, 0.5, 0.5])  # noqa: E731
    if isinstance(generator_of(objective).objective, Masked):
        assert build().jepa
    else:
        with pytest.raises(UserError, match=rf"jepa.block .* objective {objective} does not"):
            build()


# --- Gradients, with every objective and every option.


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_gradients_reach_predictors_and_network_but_never_the_target(objective: str) -> None:
    refuse_dead_weights(open_gates(generator_of(objective)))


@pytest.mark.parametrize("predictor", ["identity", "linear", "mlp", "transformer"])
@pytest.mark.parametrize("distance", ["mse", "smooth_l1", "cosine"])
def test_gradients_reach_every_predictor(predictor: str, distance: str) -> None:
    refuse_dead_weights(open_gates(generator_of(predictor=predictor, distance=distance)))


@pytest.mark.parametrize(
    "options",
    [
        {"target": "shared"},
        {"normalize_targets": False},
        {"reduce": "sum"},
        {"loss_on": "all"},
        {"block": [1, 0.5, 0.5]},
        {"ema_decay": 0.0},
        {"control": "no_masking"},
        {"control": "shuffled"},
        {"control": "regression"},
        {"control": "regression", "predictor": "transformer"},
    ],
)
@pytest.mark.parametrize("objective", ["maskgit", "flow"])
def test_gradients_reach_the_network_under_every_option(
    objective: str, options: dict[str, Any]
) -> None:
    if objective == "flow" and "block" in options:
        pytest.skip("refused")
    refuse_dead_weights(open_gates(generator_of(objective, **options)))


def refuse_dead_weights(generator: Generator) -> None:
    jepa = head_of(generator)
    generator.share_average(generator.without_jepa().requires_grad_(False))
    losses = generator(clean(), condition(), rng())
    assert losses.terms["jepa"].shape == (BATCH,) and losses.terms["jepa"].isfinite().all()
    losses.terms["jepa"].mean().backward()
    for name, parameter in jepa.predictors.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for name, parameter in generator.network.backbone.blocks.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    if jepa.config.control != "regression":
        target = list(jepa.target.parameters())
        assert target and all(p.grad is None and not p.requires_grad for p in target)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_the_loss_falls_with_every_objective(objective: str) -> None:
    generator = generator_of(objective, control="regression")
    before = generator(clean(), condition(), rng()).terms["jepa"].mean()
    train(generator, steps=25)
    assert generator(clean(), condition(), rng()).terms["jepa"].mean() < 0.9 * before


# --- The target network.


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


def test_the_ramp_is_the_closed_form() -> None:
    generator = generator_of(ema_decay=0.2, ema_decay_end=1.0, ramp_steps=4)
    jepa = head_of(generator)
    value = next(iter(generator.network.parameters()))
    follower = next(iter(jepa.target.parameters()))
    first = value.detach().clone()
    with torch.no_grad():
        value.add_(1.0)
    left, decays = 1.0, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    for decay in decays:
        assert jepa.decay() == pytest.approx(decay)
        generator.after_step()
        left *= decay
        torch.testing.assert_close(follower, first + (1 - left), rtol=1e-5, atol=1e-5)
    again = generator_of(ema_decay=0.2, ema_decay_end=1.0, ramp_steps=4)
    again.load_state_dict(generator.state_dict())
    assert head_of(again).decay() == 1.0, "a checkpoint knows how far the ramp is"


def test_a_decay_of_zero_copies() -> None:
    generator = generator_of(ema_decay=0.0)
    train(generator, steps=2)
    for ours, theirs in zip(
        head_of(generator).target.parameters(), generator.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_the_target_sees_the_clean_clip(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of(objective)
    seen = Seen(head_of(generator).target, monkeypatch)
    generator(clean(), condition(), rng())
    (state,) = seen.states
    assert state.known.all() and (state.level == 1).all() and seen.had_gradient == [False]
    assert torch.equal(state.latents.values, clean().values)


def test_a_shared_target_is_no_part_of_the_model_and_sees_the_clean_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = generator_of(target="shared", predictor="identity")
    assert not [name for name in generator.state_dict() if "jepa" in name and "updates" not in name]
    average = generator.without_jepa().requires_grad_(False)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.05)
    generator.share_average(average)
    assert head_of(generator).target is average.network
    seen = Seen(average.network, monkeypatch)
    generator(clean(), condition(), rng())
    generator.after_step()
    assert len(seen.states) == 1 and seen.states[0].known.all()


def shared_run(fsq: Path, **train: Any) -> GeneratorRun:
    network = {
        "objective": "maskgit",
        "backbone": {"depth": 2, "width": 24, "heads": 2},
        "jepa": {"target": "shared"},
    }
    return generator_run(fsq, top={"generator": network}, **train)


def test_a_shared_target_is_the_average_that_sampling_uses_also_after_a_resume(
    fsq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[JepaHead] = []
    share = Generator.share_average
    monkeypatch.setattr(
        Generator,
        "share_average",
        lambda self, average: heads.append(head_of(self)) or share(self, average),
    )
    once, twice = tmp_path / "once", tmp_path / "twice"
    train_run(shared_run(fsq), once)
    refuse_other_weights(heads[-1].target, once)

    save = trainer.save_checkpoint

    def save_then_stop(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            train_run(shared_run(fsq), twice)
    assert newest_checkpoint(twice).name == "checkpoint-2"
    train_run(shared_run(fsq), twice)
    refuse_other_weights(heads[-1].target, twice)
    assert metrics(once) == metrics(twice)
    assert len(heads) == 3, "each of the three trainings was told once"


def refuse_other_weights(target: nn.Module, run: Path) -> None:
    saved = load_file(newest_checkpoint(run) / "ema.safetensors")
    found = {f"network.{name}": value for name, value in target.state_dict().items()}
    assert found.keys() == saved.keys()
    assert [name for name in saved if not torch.equal(saved[name], found[name])] == []
    trained = load_file(newest_checkpoint(run) / "model.safetensors")
    assert any(not torch.equal(trained[name], found[name]) for name in found), "an average"


# --- In the whole.


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_the_weight_and_the_other_terms_add_up(objective: str) -> None:
    with_jepa = generator_of(objective, weight=0.6)(clean(), condition(), rng())
    without = generator_of(objective, weight=0.6)
    without.jepa = None
    plain = without(clean(), condition(), rng()).total()
    torch.testing.assert_close(with_jepa.total(), plain + 0.6 * with_jepa.terms["jepa"])


def test_the_log_has_the_loss_and_the_alarms(maskgit: Path) -> None:
    lines = metrics(maskgit)
    assert all({"jepa", *ALARMS} <= line.keys() for line in lines if "loss" in line)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
@pytest.mark.parametrize("predictor", ["mlp", "transformer"])
def test_sampling_needs_nothing_of_it(objective: str, predictor: str) -> None:
    trained = generator_of(objective, predictor=predictor)
    train(trained, steps=2)
    bare = trained.config.model_copy(update={"jepa": None}).build(SPEC, FACTORS)
    averaged = trained.without_jepa()
    assert averaged.state_dict().keys() == bare.state_dict().keys()
    bare.load_state_dict(averaged.state_dict())  # strict: nothing is missing, nothing is left over
    data, given = clean(), torch.zeros(BATCH, *GRID, dtype=torch.bool)
    start = trained.objective.start(data, given, rng())
    guidance = Guidance.of(GuidanceConfig(guidance_scale=2.0), condition(), FACTORS)
    made = [g.eval().denoiser(guidance)(start, rng()) for g in (trained, bare)]
    one, other = (m.values if m.codes is None else m.codes for m in made)
    assert one is not None and other is not None and torch.equal(one, other)


def test_the_averages_on_disk_hold_nothing_of_it(maskgit: Path) -> None:
    averages = load_file(newest_checkpoint(maskgit) / "ema.safetensors")
    trained = load_file(newest_checkpoint(maskgit) / "model.safetensors")
    assert not [name for name in averages if "jepa" in name]
    assert [name for name in trained if name.startswith("jepa.predictors")]
    assert [name for name in trained if name.startswith("jepa.copy")]
