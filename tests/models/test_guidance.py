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
from vidcomp.world.locations import Locations

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
    found = terms(compose="factors", guidance_scale=1.5, factor_scales={"motion": 4.0})
    assert found == {
        (True, False, False): 1.5,
        (False, True, False): 1.5,
        (False, False, True): 4.0,
        NONE: -6.0,
    }
    assert terms(compose="factors", guidance_scale=1.0, factor_scales={"size": 0.0}) == {
        (True, False, False): 1.0,
        (False, False, True): 1.0,
        NONE: -1.0,
    }


def test_weights_that_cancel_leave_no_term() -> None:
    third = {"shape": 0.1, "size": 0.2, "motion": 0.7}  # their float sum is not quite 1
    assert NONE not in terms(compose="factors", factor_scales=third)


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
        terms(compose="factors", negative={"motion": "up"})


def test_without_factors_there_is_nothing_to_guide() -> None:
    none = choose({"shape": ["circle"]})
    asked = Condition.of(torch.zeros(2, 0).long(), torch.zeros(2, 0, 0))
    empty = type(none)(())
    for compose in ("factors", None):
        guidance = Guidance.of(GuidanceConfig(guidance_scale=4.0, compose=compose), asked, empty)
        assert len(guidance.terms) == 1 and guidance.terms[0][1] == 1.0


# Objects.


def with_places() -> Condition:
    """None, one, three and two objects, in rows that are not always the first."""
    points = Rng.make(0, "places", torch.arange(4)).uniform(1, 5, 2)
    given = torch.tensor(
        [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 0], [0, 1, 0, 1, 0]]
    ).bool()
    places = Locations(points, points, points[:, 0], given, given)
    return Condition.of(condition().classes, condition().values, places)


def of_objects(asked: Condition, width: int) -> Tensor:
    """What a network says that adds up objects: of each what its place makes of it, beside what it
    says if there is none, or if it is not told."""
    assert asked.locations is not None and asked.located is not None
    points, given = asked.locations.points[:, 0], asked.locations.given
    waves = torch.arange(1, width + 1) / 3
    each = (points.sum(-1, keepdim=True) * waves).sin() * given[..., None]  # b n o
    nothing = torch.where(asked.located[:, None], waves.cos(), 0.3 * waves)
    return (each.sum(1) + nothing)[:, None, None, None].expand(-1, *GRID, -1)


def closed_form(
    says: Callable[[Condition], Tensor], asked: Condition, background: str, weight: float
) -> Tensor:
    """s_b + w sum_k (s(o_k) - s_b), clip by clip, over the objects that it has."""
    clips: list[Tensor] = []
    for clip in range(len(asked.classes)):
        one = asked[clip : clip + 1]
        assert one.locations is not None
        base = says(one.nowhere() if background == "empty" else one.null())
        alone = [
            says(one.alone(k)) - base for k in one.locations.given[0].nonzero().flatten().tolist()
        ]
        clips.append(base + weight * sum(alone, torch.zeros(())))
    return torch.cat(clips)


@pytest.mark.parametrize("weight", [1.0, 2.5])
@pytest.mark.parametrize("background", ["empty", "unconditional"])
def test_objects_compose_in_closed_form_however_many_a_clip_has(
    background: str, weight: float
) -> None:
    asked = with_places()
    config = GuidanceConfig(guidance_scale=weight, compose="objects", compose_background=background)
    guidance = Guidance.of(config, asked, FACTORS)
    assert len(guidance.terms) == 1 + 3, "one for each row in which an object is given"
    assert sum(w for _, w in guidance.terms) == pytest.approx(1)

    made = generator({"name": "flow", "predict": "data"}, LatentSpec(Grid(1, 8, 8), 5))
    made.network.forward = lambda state, asked: of_objects(asked, 5)
    nothing = torch.zeros(4, *GRID, dtype=torch.bool)
    state = State(Latents(torch.zeros(4, *GRID, 5)), nothing, torch.full((4,), 0.5))
    rng = Rng.make(0, "guided", torch.arange(4))
    found = made.denoiser(guidance)(state, rng).values
    wanted = closed_form(lambda one: of_objects(one, 5), asked, background, weight)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    if background == "empty" and weight == 1.0:  # what is linear is composed by itself
        torch.testing.assert_close(found, of_objects(asked, 5), rtol=1e-4, atol=1e-4)

    spec = LatentSpec(Grid(1, 8, 8), 1, codebook_sizes=(7,))
    made = generator({"name": "maskgit"}, spec)
    made.network.forward = lambda state, asked: of_objects(asked, 7)
    codes = Latents(torch.zeros(4, *GRID, 1), torch.zeros(4, *GRID, 1).long())
    read = made.denoiser(guidance)(made.objective.start(codes, nothing, rng), rng)
    log_p = closed_form(
        lambda one: of_objects(one, 7).log_softmax(-1), asked, background, weight
    ).log_softmax(-1)
    assert read.codes is not None and read.confidence is not None
    torch.testing.assert_close(
        read.confidence, log_p.gather(-1, read.codes)[..., 0], rtol=1e-3, atol=1e-3
    )


def test_guidance_by_factors_and_by_nothing_with_places() -> None:
    asked = with_places()
    free = Guidance.of(GuidanceConfig(guidance_scale=3.0), asked, FACTORS)
    assert [weight for _, weight in free.terms] == [3.0, -2.0]
    (_, _), (null, _) = free.terms
    assert not null.located.any() and not null.given.any()
    unnamed = Condition.of(torch.zeros(4, 0).long(), torch.zeros(4, 0, 0), asked.locations)
    found = Guidance.of(GuidanceConfig(guidance_scale=3.0), unnamed, type(FACTORS)(()))
    assert len(found.terms) == 2, "places can be guided where there are no factors"
    factors = Guidance.of(GuidanceConfig(compose="factors"), asked, FACTORS)
    assert len(factors.terms) == 4
    assert all(term.located.all() for term, _ in factors.terms), "places are in every term"
    nobody = asked.nowhere()
    (only,) = Guidance.of(GuidanceConfig(compose="objects"), nobody, FACTORS).terms
    assert only[1] == 1.0 and only[0].located.all()


def test_what_objects_cannot_be_composed_is_refused() -> None:
    with pytest.raises(UserError, match=r"compose=objects needs the places .*compose=factors"):
        terms(compose="objects")
    with pytest.raises(ValueError, match="compose=objects weighs every object by guidance_scale"):
        GuidanceConfig(compose="objects", factor_scales={"size": 2.0})
    with pytest.raises(ValueError, match="'factors' or 'objects'"):
        GuidanceConfig.model_validate({"compose": "places"})
    read = [GuidanceConfig.model_validate({"compose": x}).compose for x in (True, False, None)]
    assert read == ["factors", None, None], "as older runs have it"


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
    "composed": ({"compose": "factors", "guidance_scale": 1.0}, float(SHIFT.sum())),
    "weighted": (
        {
            "compose": "factors",
            "guidance_scale": 1.0,
            "factor_scales": {"shape": 2.0, "motion": 0.0},
        },
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
