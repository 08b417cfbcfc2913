"""Diffusion against `diffusers`: the paths, what is added and predicted, every sampling step, and
the weights of the loss.
"""

import math
from typing import Any

import pytest
import torch
from ladder import SPECS, Case
from torch import Tensor

from vidcomp.objectives.base import OBJECTIVES
from vidcomp.objectives.diffusion import Diffusion
from vidcomp.samplers.base import SAMPLERS
from vidcomp.schedules import DiffusionPath
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, Prediction, State

diffusers = pytest.importorskip("diffusers")

GRID = Grid(1, 2, 2)
BATCH = 4
THEIRS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SETTINGS: list[dict[str, Any]] = [
    {"predict": "eps"},
    {"predict": "v"},
    {"predict": "x0"},
    {"predict": "v", "zero_terminal_snr": True},
    {"predict": "x0", "zero_terminal_snr": True},
    {"predict": "v", "num_timesteps": 1000, "betas": "cosine"},
    {"predict": "eps", "num_timesteps": 1000},
]


def case(**settings: Any) -> Case:
    return Case("diffusion", SPECS["continuous"], GRID, settings)


def objective_of(**settings: Any) -> Diffusion:
    made = case(**settings).objective
    assert isinstance(made, Diffusion)
    return made


def scheduler(kind: str, **settings: Any) -> Any:
    """Theirs, with our settings; `trailing` timesteps are those of equal steps of the level."""
    config = objective_of(**settings).config
    return getattr(diffusers, kind)(
        num_train_timesteps=config.num_timesteps,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[config.betas],
        prediction_type=THEIRS[config.predict],
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing",
        clip_sample=False,
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_path_is_theirs(settings: dict[str, Any]) -> None:
    theirs = scheduler("DDIMScheduler", **settings)
    alphas = objective_of(**settings).path.alphas
    assert alphas[0] == 1
    torch.testing.assert_close(
        alphas[1:].square().float(), theirs.alphas_cumprod, rtol=2e-4, atol=2e-7
    )


def test_where_the_papers_path_ends() -> None:
    assert DiffusionPath(500).alphas[-1].square().item() == pytest.approx(0.0064, abs=5e-5)
    rescaled = DiffusionPath(500, zero_terminal_snr=True)
    assert rescaled.alphas[-1] == 0 and rescaled.at(torch.zeros(1)).alpha == 0
    torch.testing.assert_close(rescaled.alphas[1], DiffusionPath(500).alphas[1])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_noising_and_targets_are_theirs(settings: dict[str, Any]) -> None:
    made, theirs = case(**settings), scheduler("DDIMScheduler", **settings)
    clean, given = made.clean().values, made.given(0.0)
    corrupted = made.objective.corrupt(Latents(clean), given, made.rng("corrupt"))
    noise = made.rng("corrupt").fold("noise").normal(*GRID, 4)
    timestep = ((1 - corrupted.state.level) * theirs.config.num_train_timesteps).round().long() - 1
    noised = theirs.add_noise(clean, noise, timestep)
    torch.testing.assert_close(corrupted.state.latents.values, noised, rtol=1e-3, atol=1e-3)
    targets = {"eps": noise, "x0": clean, "v": theirs.get_velocity(clean, noise, timestep)}
    target = targets[settings["predict"]]
    torch.testing.assert_close(corrupted.target, target, rtol=1e-3, atol=1e-3)


def network(x: Tensor, level: float) -> Tensor:
    """Any function will do."""
    return 0.6 * x.tanh() + 0.3 * (x.roll(1, -1) + level).sin()


def trajectory(settings: dict[str, Any], sampler: dict[str, Any]) -> tuple[list[Tensor], Rng]:
    """Our states, from the start on."""
    objective = objective_of(**settings)
    rng = Rng.make(0, "sample", torch.arange(BATCH))
    x = rng.fold("start").normal(*GRID, 4)
    state = State(Latents(x), torch.zeros(BATCH, *GRID, dtype=torch.bool), torch.zeros(BATCH))

    def denoise(state: State, rng: Rng) -> Prediction:
        out = network(state.latents.values, float(state.level[0]))
        return objective.read([out], [1.0], state, temperature=1.0, rng=rng)

    steps = SAMPLERS.config(sampler).build(objective.path)(denoise, state, rng)
    return [x, *(state.latents.values for state in steps)], rng


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_of_ddim_is_theirs(settings: dict[str, Any], eta: float) -> None:
    num_steps = 25
    ours, rng = trajectory(settings, {"name": "ddim", "num_steps": num_steps, "eta": eta})
    theirs = scheduler("DDIMScheduler", **settings)
    theirs.set_timesteps(num_steps)
    for step, timestep in enumerate(theirs.timesteps):
        out = network(ours[step], step / num_steps)
        fresh = rng.fold(f"noise {step}").normal(*GRID, 4)
        moved = theirs.step(out, timestep, ours[step], eta=eta, variance_noise=fresh).prev_sample
        if step == 0 and eta == 1 and settings.get("zero_terminal_snr"):
            assert moved.isnan().all(), "theirs takes the root of a rounded zero"
            continue
        torch.testing.assert_close(ours[step + 1], moved, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if "zero_terminal_snr" not in s], ids=str)
@pytest.mark.parametrize("num_steps", ["all", 50])
def test_every_step_of_the_ancestral_sampler_is_ddpms(
    settings: dict[str, Any], num_steps: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = objective_of(**settings).config.num_timesteps
    num = total if num_steps == "all" else int(num_steps)
    ours, rng = trajectory(settings, {"name": "ancestral", "num_steps": num})
    theirs = scheduler("DDPMScheduler", **settings)
    theirs.set_timesteps(num)
    module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    every = range(num) if num < 100 else [*range(0, num, 37), num - 2, num - 1]
    for step in every:
        fresh = rng.fold(f"noise {step}").normal(*GRID, 4)
        monkeypatch.setattr(module, lambda *_, made=fresh, **__: made)
        out = network(ours[step], step / num)
        moved = theirs.step(out, theirs.timesteps[step], ours[step])
        torch.testing.assert_close(ours[step + 1], moved.prev_sample, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("predict", ["eps", "v", "x0"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_their_training_scripts(predict: str, gamma: float) -> None:
    from diffusers.training_utils import compute_snr

    settings = {"predict": predict, "min_snr_gamma": gamma}
    objective, theirs = objective_of(**settings), scheduler("DDPMScheduler", **settings)
    timestep = torch.arange(500)
    snr = compute_snr(theirs, timestep)
    divisor = {"eps": snr, "v": snr + 1, "x0": torch.ones(())}[predict]
    expected = snr.clamp_max(gamma) / divisor
    weight = objective.weight(objective.path.at(1 - (timestep + 1) / 500))
    torch.testing.assert_close(weight, expected, rtol=2e-3, atol=0)
    plain = objective_of(predict=predict)
    assert torch.equal(plain.weight(plain.path.at(torch.rand(5))), torch.ones(5))


def test_weights_multiply_the_loss_of_a_clip() -> None:
    weighted, plain = (case(predict="v", min_snr_gamma=g) for g in (5.0, None))
    out, made = plain.some_out(), plain.corrupted()
    losses = [c.objective.loss(out, made, c.rng("loss")).total() for c in (weighted, plain)]
    snr = weighted.objective.path.at(made.state.level)
    snr = (snr.alpha / snr.sigma).square()
    torch.testing.assert_close(losses[0], losses[1] * snr.clamp_max(5) / (snr + 1))


def test_without_a_signal_weights_are_finite() -> None:
    for predict in ("v", "x0"):
        objective = objective_of(predict=predict, zero_terminal_snr=True, min_snr_gamma=5.0)
        assert objective.weight(objective.path.at(torch.zeros(1))).isfinite().all()


def test_levels_are_timesteps_all_equally_often_and_never_clean() -> None:
    many = 20_000
    objective = objective_of(num_timesteps=10)
    level = objective.levels(Rng.make(0, "levels", torch.arange(many)))
    counts = ((1 - level) * 10).round().long().bincount(minlength=11)
    assert counts[0] == 0
    assert (counts[1:] - many / 10).abs().max() < 5 * math.sqrt(many * 0.09)


def test_noise_alone_cannot_be_asked_of_a_path_that_starts_without_signal() -> None:
    with pytest.raises(ValueError, match="set predict to v or x0"):
        OBJECTIVES.config({"name": "diffusion", "zero_terminal_snr": True})
    with pytest.raises(ValueError, match="num_timesteps"):
        OBJECTIVES.config({"name": "diffusion", "num_timesteps": 1})
