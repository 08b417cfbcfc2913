"""Guidance: the terms of each kind and their weights; and that what comes out of sampling with them
is the distribution that they stand for, where that is known in closed form.

The network is replaced by one that knows the answer: each factor i moves a normal distribution by
SHIFT[i], alone or together. p(x|c_i) = N(m_i, s^2) and p(x) = N(0, s^2) compose to
prod_i (p(x|c_i) / p(x))^w_i p(x) = N(sum_i w_i m_i, s^2).
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ladder import Case, gaussians
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.models.guidance import Guidance, GuidanceConfig
from vidcomp.objectives.base import Noised, Objective
from vidcomp.objectives.givt import Givt
from vidcomp.objectives.mar import Mar
from vidcomp.objectives.maskgit import MaskGIT
from vidcomp.samplers.base import SAMPLERS
from vidcomp.schedules import MaskSchedule
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid, Latents, LatentSpec, Prediction, State
from vidcomp.world.concepts import choose

FACTORS = choose(
    {"shape": ["circle", "square"], "size": ["small", "large"], "motion": ["left", "up", "down"]}
)
SHIFT = torch.tensor([0.4, -0.9, 0.2])
STD = 0.5
LINE = LatentSpec(Grid(1, 8, 8), 1)
GRID = Grid(1, 2, 2)


def condition(batch: int = 4) -> Condition:
    classes = FACTORS.combinations()[torch.arange(batch) % FACTORS.num_combinations]
    return Condition.of(classes, FACTORS.prototypes(classes))


def terms(asked: Condition | None = None, **settings: Any) -> dict[tuple[bool, ...], float]:
    """The weight of each set of given factors."""
    asked = condition() if asked is None else asked
    guidance = Guidance.of(GuidanceConfig.model_validate(settings), asked, FACTORS)
    found: dict[tuple[bool, ...], float] = {}
    for term, weight in guidance.terms:
        given = tuple(term.given[0].tolist())
        assert term.given.eq(term.given[0]).all()
        found[given] = found.get(given, 0) + weight
    assert sum(found.values()) == pytest.approx(1)
    return found


ALL, NONE = (True, True, True), (False, False, False)


def test_classifier_free() -> None:
    assert terms(guidance_scale=3.0) == {ALL: 3.0, NONE: -2.0}
    assert terms(guidance_scale=1.0) == {ALL: 1.0}
    assert terms(guidance_scale=0.0) == {NONE: 1.0}


def test_weights_of_factors() -> None:
    found = terms(guidance_scale=2.0, factor_scales={"size": 3.0})
    assert found == {ALL: 4.0, (True, False, True): -2.0, NONE: -1.0}
    assert terms(guidance_scale=2.0, factor_scales={"size": 1.0, "shape": 1.0}) == {
        ALL: 2.0,
        NONE: -1.0,
    }


def test_composed() -> None:
    found = terms(compose=True, guidance_scale=1.5, factor_scales={"motion": 4.0})
    assert found == {
        (True, False, False): 1.5,
        (False, True, False): 1.5,
        (False, False, True): 4.0,
        NONE: -6.0,
    }
    assert terms(compose=True, guidance_scale=1.0, factor_scales={"size": 0.0}) == {
        (True, False, False): 1.0,
        (False, False, True): 1.0,
        NONE: -1.0,
    }


def test_weights_that_cancel_leave_no_term() -> None:
    third = {"shape": 0.1, "size": 0.2, "motion": 0.7}  # their float sum is not quite 1
    assert NONE not in terms(compose=True, factor_scales=third)


def test_negative_factors_stand_for_nothing() -> None:
    asked = condition().given_frames(1)
    config = GuidanceConfig(guidance_scale=3.0, negative={"motion": "up"})
    guidance = Guidance.of(config, asked, FACTORS)
    assert [weight for _, weight in guidance.terms] == [3.0, -2.0]
    avoided, _ = guidance.terms[1]
    assert avoided.given.tolist() == [[False, False, True]] * 4
    assert (avoided.classes[:, 2] == 1).all()
    prototype = FACTORS.prototypes(avoided.classes)[:, 2]
    assert torch.equal(avoided.values[:, 2], prototype)
    assert torch.equal(avoided.prefix_frames, asked.prefix_frames), "the prefix stays"
    assert torch.equal(asked.classes, condition().classes), "the request is left as it was"


def test_outside_the_interval_the_condition_is_asked_alone() -> None:
    asked = condition()
    config = GuidanceConfig(guidance_scale=3.0, guidance_interval=(0.25, 0.5))
    guidance = Guidance.of(config, asked, FACTORS)
    numbers = [len(guidance.at(level)) for level in (0.0, 0.24, 0.25, 0.4, 0.5, 0.51, 1.0)]
    assert numbers == [1, 1, 2, 2, 2, 1, 1]
    assert guidance.at(0.0) == ((asked, 1.0),)
    with pytest.raises(ValueError, match=r"guidance_interval: 0.5 is above 0.2"):
        GuidanceConfig(guidance_interval=(0.5, 0.2))


@pytest.mark.parametrize("key", ["factor_scales", "negative"])
def test_unknown_names_are_refused_in_one_line(key: str) -> None:
    wrong = {key: {"motoin": 2.0 if key == "factor_scales" else "up"}}
    with pytest.raises(UserError, match=r"no factor 'motoin'; did you mean 'motion'") as error:
        terms(**wrong)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no class 'upp'; did you mean 'up'"):
        terms(negative={"motion": "upp"})
    with pytest.raises(ValueError, match="compose and negative exclude each other"):
        terms(compose=True, negative={"motion": "up"})


def test_without_factors_there_is_nothing_to_guide() -> None:
    none = choose({"shape": ["circle"]})
    asked = Condition.of(torch.zeros(2, 0).long(), torch.zeros(2, 0, 0))
    empty = type(none)(())
    for compose in (True, False):
        guidance = Guidance.of(GuidanceConfig(guidance_scale=4.0, compose=compose), asked, empty)
        assert len(guidance.terms) == 1 and guidance.terms[0][1] == 1.0


# The distributions.


def generator(objective: dict[str, Any], spec: LatentSpec) -> Generator:
    config = GeneratorConfig.model_validate(
        {"objective": objective, "backbone": {"depth": 1, "width": 24, "heads": 2}}
    )
    with initial_weights(0):
        return config.build(spec, FACTORS)


def answers(objective: Objective) -> Callable[[State, Condition], Tensor]:
    """What a network says that knows the toy of the module's text."""

    def says(state: State, asked: Condition) -> Tensor:
        mean = (asked.given.float() @ SHIFT)[:, None, None, None, None]  # b 1 1 1 1
        x = state.latents.values
        if isinstance(objective, Noised):
            point = objective.path.at(state.level[:, None, None, None, None])
            variance = (point.alpha * STD).square() + point.sigma.square()
            data = mean + point.alpha * STD**2 / variance * (x - point.alpha * mean)
            return objective.answer(point, data, point.noise(x, data))
        if isinstance(objective, Givt):
            raw_std = torch.tensor(STD - objective.config.min_std).expm1().log().item()
            return gaussians(objective, mean.expand_as(x), raw_std=raw_std)
        return mean.expand(*x.shape[:-1], 24)  # MAR: its head gets the mean

    return says


def exact_head(objective: Mar) -> None:
    head = objective.diffusion

    def v(noised: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        point, mean = head.path.at(level), condition[..., :1]
        variance = (point.alpha * STD).square() + point.sigma.square()
        data = mean + point.alpha * STD**2 / variance * (noised - point.alpha * mean)
        return point.v(data, point.noise(noised, data))

    head.v = v


MANY = 500
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "classifier-free": ({"guidance_scale": 2.0}, 2 * float(SHIFT.sum())),
    "factor": ({"guidance_scale": 1.0, "factor_scales": {"size": 2.0}}, float(SHIFT.sum()) - 0.9),
    "composed": ({"compose": True, "guidance_scale": 1.0}, float(SHIFT.sum())),
    "weighted": (
        {"compose": True, "guidance_scale": 1.0, "factor_scales": {"shape": 2.0, "motion": 0.0}},
        2 * 0.4 - 0.9,
    ),
    "negative": ({"guidance_scale": 2.0, "negative": {"size": "large"}}, 2 * (-0.3) + 0.9),
}
CONTINUOUS: dict[str, dict[str, Any]] = {
    "flow": {"name": "flow"},
    "flow that predicts data": {"name": "flow", "predict": "data"},
    "diffusion": {"name": "diffusion", "predict": "v", "zero_terminal_snr": True},
    "givt": {"name": "givt", "num_candidates": 256, "num_mixtures": 1},
    "mar": {"name": "mar", "head_width": 8, "head_depth": 1, "head_steps": 60},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_are_of_the_product_of_gaussians(name: str, kind: str) -> None:
    settings, mean = KINDS[kind]
    made = generator(CONTINUOUS[name], LINE)
    made.network.forward = answers(made.objective)
    if isinstance(made.objective, Mar):
        exact_head(made.objective)
    config = GuidanceConfig.model_validate(settings)
    denoise = made.denoiser(Guidance.of(config, condition(MANY), FACTORS))
    rng = Rng.make(0, "guided", torch.arange(MANY))
    blank = Latents(torch.zeros(MANY, *GRID, 1))
    start = made.objective.start(blank, torch.zeros(MANY, *GRID, dtype=torch.bool), rng)
    masked = isinstance(made.objective.schedule, MaskSchedule)
    config = {"name": "unmask", "num_steps": 1} if masked else {"name": "heun", "num_steps": 40}
    *_, last = SAMPLERS.config(config).build(made.objective.schedule)(denoise, start, rng)
    values = last.latents.values
    error = 5 * STD / values.numel() ** 0.5
    assert values.mean().item() == pytest.approx(mean, abs=error + 0.03)
    assert values.std().item() == pytest.approx(STD, rel=0.08)


@pytest.mark.parametrize("heads", ["maskgit", "joint", "per_level", "ordinal"])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_of_the_product_of_probabilities(heads: str, kind: str) -> None:
    settings, _ = KINDS[kind]
    spec = LatentSpec(Grid(1, 8, 8), 2, codebook_sizes=(15,), levels=(5, 3))
    case = Case("maskgit", spec, GRID)
    if heads != "maskgit":
        case = Case("soft_maskgit", spec, GRID, {"heads": heads})
    made = generator(case.raw, spec)
    objective = made.objective
    assert isinstance(objective, MaskGIT)
    width = objective.head(torch.zeros(1, 1, 1, 1, 24)).shape[-1]
    of_factor = Rng.make(0, "outs", torch.arange(4)).normal(width)  # three factors, and none

    def says(state: State, asked: Condition) -> Tensor:
        out = asked.given.float() @ of_factor[:3] + of_factor[3]
        return out[:, None, None, None].expand(-1, *GRID, -1)

    made.network.forward = says
    guidance = Guidance.of(GuidanceConfig.model_validate(settings), condition(MANY), FACTORS)
    known = torch.zeros(MANY, *GRID, dtype=torch.bool)
    blank = Latents(torch.zeros(MANY, *GRID, 2), torch.zeros(MANY, *GRID, 1).long())
    rng = Rng.make(0, "guided", torch.arange(MANY))
    start = objective.start(blank, known, rng)

    wanted = torch.zeros(15)
    for asked, weight in guidance.terms:
        wanted += weight * objective.log_p(says(start, asked))[0, 0, 0, 0]
    wanted = wanted.softmax(0)
    read: Prediction = made.denoiser(guidance)(start, rng)
    assert read.codes is not None and read.confidence is not None
    often = read.codes.flatten().bincount(minlength=15) / read.codes.numel()
    error = 5 * (wanted * (1 - wanted) / read.codes.numel()).sqrt()
    assert ((often - wanted).abs() < error + 1e-4).all()
    torch.testing.assert_close(
        read.confidence, wanted.log()[read.codes[..., 0]], rtol=1e-3, atol=1e-3
    )


def test_givt_says_what_its_candidates_are_worth() -> None:
    made = generator(CONTINUOUS["givt"], LINE)
    made.network.forward = answers(made.objective)
    rng = Rng.make(0, "guided", torch.arange(8))
    blank = Latents(torch.zeros(8, *GRID, 1))
    start = made.objective.start(blank, torch.zeros(8, *GRID, dtype=torch.bool), rng)
    worth: list[float] = []
    for scale in (1.0, 1.5, 3.0):
        guidance = Guidance.of(GuidanceConfig(guidance_scale=scale), condition(8), FACTORS)
        effective = made.denoiser(guidance)(start, rng).effective_samples
        if scale == 1.0:
            assert effective is None, "nothing was resampled"
        else:
            assert effective is not None
            worth.append(effective.mean().item())
    assert 256 > worth[0] > worth[1] >= 1
