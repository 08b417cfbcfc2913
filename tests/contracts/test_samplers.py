"""What every sampler promises, with denoisers whose answers are known: a perfect one, noisy ones,
and one whose differential equation has a solution in closed form.
"""

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import vidcomp.samplers
from vidcomp.config import UserError
from vidcomp.samplers.base import SAMPLERS, Denoise
from vidcomp.samplers.unmask import halton_ranks, reveal
from vidcomp.schedules import (
    DiffusionPath,
    MaskKind,
    MaskSchedule,
    NoisePath,
    RectifiedPath,
    Schedule,
)
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, Prediction, State

VARIANTS = SAMPLERS.names()
PATHS: list[Schedule] = [
    RectifiedPath(),
    DiffusionPath(500),
    DiffusionPath(1000, "cosine"),
    DiffusionPath(500, zero_terminal_snr=True),
]
SCHEDULES: list[Schedule] = [*PATHS, MaskSchedule("cosine"), MaskSchedule("linear")]
GRIDS = (Grid(1, 1, 1), Grid(3, 2, 3))
NUM_CODES = 7

TOY = '''
"""The smallest sampler: everything at once."""
import torch
from vidcomp.samplers import base
from vidcomp.types import Latents, State

class Config(base.Config):
    num_steps: int = 1

    def build(self, schedule):
        def sampler(denoise, start, rng):
            state = start
            for step in range(self.num_steps):
                made = denoise(state, rng.fold(step))
                where = state.known[..., None]
                values, codes = start.latents.values, start.latents.codes
                if made.values is not None:
                    values = torch.where(where, values, made.values)
                if made.codes is not None:
                    codes = torch.where(where, codes, made.codes)
                level = torch.full_like(start.level, (step + 1) / self.num_steps)
                state = State(Latents(values, codes), start.known, level)
                yield state

        return sampler
'''


@dataclass
class Case:
    """A sampler's settings, the schedule of an objective, and what is to be made."""

    settings: dict[str, Any]
    schedule: Schedule
    grid: Grid
    share_given: float = 0.3
    calls: list[State] = field(default_factory=list[State])

    @property
    def discrete(self) -> bool:
        return isinstance(self.schedule, MaskSchedule)

    def rng(self, purpose: str, batch: int = 4) -> Rng:
        return Rng.make(0, purpose, torch.arange(batch))

    def data(self, batch: int = 4) -> Latents:
        rng = self.rng("data", batch)
        codes = rng.integers(NUM_CODES, *self.grid, 2) if self.discrete else None
        return Latents(rng.normal(*self.grid, 3), codes)

    def start(self, batch: int = 4) -> State:
        """Nothing (noise, or zeros) but where the data are given."""
        data, rng = self.data(batch), self.rng("start", batch)
        given = rng.bernoulli(self.share_given, *self.grid)
        values = torch.where(given[..., None], data.values, rng.normal(*self.grid, 3))
        codes = None if data.codes is None else data.codes * given[..., None]
        return State(Latents(values, codes), given, torch.zeros(batch))

    def perfect(self, batch: int = 4) -> Denoise:
        """Knows the data; is unsure of itself at random."""
        data = self.data(batch)

        def denoise(state: State, rng: Rng) -> Prediction:
            self.calls.append(state)
            return predicted(data, rng)

        return denoise

    def run(self, denoise: Denoise, start: State, rng: Rng) -> list[State]:
        return list(SAMPLERS.config(self.settings).build(self.schedule)(denoise, start, rng))


def predicted(data: Latents, rng: Rng) -> Prediction:
    """`data`, with a random confidence."""
    confidence = -rng.fold("confidence").uniform(*data.grid)
    if data.codes is not None:
        return Prediction(codes=data.codes, confidence=confidence)
    return Prediction(values=data.values, confidence=confidence)


def noisy(state: State, rng: Rng) -> Prediction:
    """A denoiser that sees one clip at a time, and draws."""
    shape = state.latents.grid
    if state.latents.codes is not None:
        codes = rng.integers(NUM_CODES, *shape, state.latents.codes.shape[-1])
        return Prediction(codes=codes, confidence=-rng.fold("confidence").uniform(*shape))
    values = state.latents.values.tanh() + 0.1 * rng.normal(*state.latents.values.shape[1:])
    return Prediction(values=values)


def accepts(name: str, schedule: Schedule) -> bool:
    try:
        SAMPLERS.config(name).build(schedule)
    except UserError:
        return False
    return True


def cases(name: str) -> list[Case]:
    more: list[dict[str, Any]] = [{}]
    if name == "unmask":
        more = [{"order": order} for order in ("confidence", "random", "halton", None)]
    if name == "ddim":
        more = [{}, {"eta": 0.5}]
    made: list[Case] = []
    for schedule in SCHEDULES:
        if accepts(name, schedule):
            # Masked: fewer steps than positions, and more.
            numbers = (1, 4, 30) if isinstance(schedule, MaskSchedule) else (1, 5)
            for extra, steps, grid in itertools.product(more, numbers, GRIDS):
                settings = {"name": name, "num_steps": steps, **extra}
                made.append(Case(settings, schedule, grid))
    return made


# The contract.


def a_perfect_denoiser_recovers_the_data(case: Case) -> None:
    last = case.run(case.perfect(), case.start(), case.rng("sample"))[-1]
    data = case.data()
    if case.discrete:
        assert last.latents.codes is not None and data.codes is not None
        assert torch.equal(last.latents.codes, data.codes)
    else:
        torch.testing.assert_close(last.latents.values, data.values, rtol=1e-5, atol=1e-5)


def every_step_is_yielded_and_the_last_is_clean(case: Case) -> None:
    states = case.run(case.perfect(), case.start(), case.rng("sample"))
    assert len(states) == case.settings["num_steps"]
    levels = torch.stack([case.start().level, *(state.level for state in states)])
    assert (levels.diff(dim=0) > 0).all()
    assert torch.equal(levels[-1], torch.ones(4))
    if case.discrete and case.settings["name"] == "unmask":
        assert states[-1].known.all()


def the_network_is_never_asked_at_level_one(case: Case) -> None:
    case.run(case.perfect(), case.start(), case.rng("sample"))
    assert case.calls and all((state.level < 1).all() for state in case.calls)


def what_is_given_never_changes(case: Case) -> None:
    start = case.start()
    asked: list[State] = []

    def denoise(state: State, rng: Rng) -> Prediction:
        asked.append(state)
        return noisy(state, rng)

    for state in [*case.run(denoise, start, case.rng("sample")), *asked]:
        assert state.known[start.known].all()
        if state.latents.codes is not None and start.latents.codes is not None:
            assert torch.equal(state.latents.codes[start.known], start.latents.codes[start.known])
        else:
            assert torch.equal(state.latents.values[start.known], start.latents.values[start.known])


def all_given_leaves_nothing_to_do(case: Case) -> None:
    case.share_given = 1.0
    start = case.start()
    last = case.run(noisy, start, case.rng("sample"))[-1]
    assert torch.equal(content(last), content(start))


def draws_do_not_depend_on_the_batch(case: Case) -> None:
    start, rng = case.start(8), case.rng("sample", 8)
    few = State(start.latents[:4], start.known[:4], start.level[:4])
    whole = case.run(noisy, start, rng)[-1]
    part = case.run(noisy, few, rng[:4])[-1]
    assert torch.equal(content(whole)[:4], content(part))
    again = case.run(noisy, start, rng)[-1]
    assert torch.equal(content(whole), content(again))


def the_start_is_left_as_it_was(case: Case) -> None:
    start, before = case.start(), case.start()
    case.run(noisy, start, case.rng("sample"))
    assert torch.equal(content(start), content(before))
    assert torch.equal(start.known, before.known) and torch.equal(start.level, before.level)


CHECKS: tuple[Callable[[Case], None], ...] = (
    a_perfect_denoiser_recovers_the_data,
    every_step_is_yielded_and_the_last_is_clean,
    the_network_is_never_asked_at_level_one,
    what_is_given_never_changes,
    all_given_leaves_nothing_to_do,
    draws_do_not_depend_on_the_batch,
    the_start_is_left_as_it_was,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    assert cases(name), "a sampler that goes with no schedule"
    for case in cases(name):
        check(case)


def test_a_variant_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(vidcomp.samplers, "__path__", [*vidcomp.samplers.__path__, str(tmp_path)])
    assert SAMPLERS.names() == sorted([*VARIANTS, "toy"])
    try:
        for check in CHECKS:
            for case in cases("toy"):
                check(case)
    finally:
        sys.modules.pop("vidcomp.samplers.toy", None)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_comes_back_from_what_is_stored(name: str) -> None:
    config = SAMPLERS.config(name)
    assert SAMPLERS.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", VARIANTS)
def test_a_schedule_of_the_other_kind_is_refused_and_the_alternative_named(name: str) -> None:
    refused = [schedule for schedule in SCHEDULES if not accepts(name, schedule)]
    assert refused
    for schedule in refused:
        with pytest.raises(UserError, match=f"sampler {name} needs") as error:
            SAMPLERS.config(name).build(schedule)
        words = str(error.value).replace(",", " ").split()
        assert "\n" not in str(error.value)
        assert any(other in words and accepts(other, schedule) for other in VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("num_steps", [0, -3])
def test_no_steps_are_refused(name: str, num_steps: int) -> None:
    with pytest.raises(ValueError, match="num_steps"):
        SAMPLERS.config({"name": name, "num_steps": num_steps})


# Unmasking.


def unmask_case(order: str = "random", steps: int = 6, **more: Any) -> Case:
    settings = {"name": "unmask", "order": order, "num_steps": steps, **more}
    return Case(settings, MaskSchedule("cosine"), Grid(3, 4, 5))


@pytest.mark.parametrize("order", ["confidence", "random", "halton"])
@pytest.mark.parametrize("kind", get_args(MaskKind))
@pytest.mark.parametrize("steps", [1, 3, 8, 100])
def test_each_step_reveals_what_the_schedule_says_and_at_least_one(
    order: str, kind: MaskKind, steps: int
) -> None:
    case = unmask_case(order, steps)
    case.schedule = MaskSchedule(kind)
    start = case.start()
    num_free = (~start.known).flatten(1).sum(1)
    hidden = num_free
    for state in case.run(case.perfect(), start, case.rng("sample")):
        share = case.schedule.share(state.level)
        scheduled = (share * num_free).floor().long()
        expected = torch.minimum(scheduled, (hidden - 1).clamp_min(0))
        hidden = (~state.known).flatten(1).sum(1)
        assert torch.equal(hidden, expected)


def confident(state: State, rng: Rng) -> Prediction:
    """Codes and confidences that change with what is known already, clip by clip."""
    codes = state.latents.codes
    assert codes is not None
    seen = (codes * state.known[..., None]).flatten(1).sum(1)  # b
    place = torch.arange(state.latents.grid.size).reshape(state.latents.grid)
    mixed = (place * 37 + 11 * seen[:, None, None, None]) % 101
    return Prediction(
        codes=(mixed[..., None] + torch.arange(2)) % NUM_CODES,
        confidence=-(mixed.float() + 1).log(),
    )


def token_by_token(case: Case, start: State, rng: Rng, choice_temperature: float) -> Tensor:
    """Confidence decoding as a person would write it: clips, steps and positions in plain loops."""
    assert start.latents.codes is not None
    num_steps, out = case.settings["num_steps"], start.latents.codes.clone()
    known = start.known.clone()
    positions = list(itertools.product(*(range(size) for size in case.grid)))
    num_free = [sum(not known[(b, *p)] for p in positions) for b in range(len(out))]
    for step in range(num_steps):
        level = (step + 1) / num_steps
        state = State(Latents(start.latents.values, out), known, torch.full_like(start.level, 0))
        said = confident(state, rng)
        assert said.codes is not None and said.confidence is not None
        gumbel = rng.fold(f"order {step}").gumbel(*case.grid)
        new, seen = out.clone(), known.clone()
        for b in range(len(out)):
            hidden = [p for p in positions if not known[(b, *p)]]
            keep = math.floor(math.cos(math.pi / 2 * level) * num_free[b] + 1e-6)
            count = max(min(1, len(hidden)), len(hidden) - keep)
            noise = choice_temperature * (1 - level)
            score = {p: float(said.confidence[(b, *p)] + noise * gumbel[(b, *p)]) for p in hidden}
            for p in sorted(hidden, key=lambda p: -score[p])[:count]:
                new[(b, *p)] = said.codes[(b, *p)]
                seen[(b, *p)] = True
        out, known = new, seen
    return out


@pytest.mark.parametrize("choice_temperature", [0.0, 2.0])
@pytest.mark.parametrize("steps", [1, 5, 80])
def test_confidence_order_agrees_with_a_reference_token_by_token(
    steps: int, choice_temperature: float
) -> None:
    case = unmask_case("confidence", steps, choice_temperature=choice_temperature)
    start, rng = case.start(3), case.rng("sample", 3)
    fast = case.run(confident, start, rng)[-1].latents.codes
    assert fast is not None
    assert torch.equal(fast, token_by_token(case, start, rng, choice_temperature))


def test_confidence_order_needs_a_confidence() -> None:
    case = unmask_case("confidence")

    def unsure(state: State, rng: Rng) -> Prediction:
        return Prediction(codes=state.latents.codes)

    with pytest.raises(UserError, match=r"order=confidence needs.*random, halton") as error:
        case.run(unsure, case.start(), case.rng("sample"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sure", [True, False])
def test_without_an_order_confidence_decides_if_there_is_one(sure: bool) -> None:
    def denoise(state: State, rng: Rng) -> Prediction:
        made = confident(state, rng)
        return made if sure else Prediction(codes=made.codes)

    case = unmask_case("confidence" if sure else "random")
    named = case.run(denoise, case.start(), case.rng("sample"))[-1].latents.codes
    case.settings["order"] = None
    unnamed = case.run(denoise, case.start(), case.rng("sample"))[-1].latents.codes
    assert named is not None and unnamed is not None and torch.equal(named, unnamed)


def test_impossible_codes_are_revealed_too_and_last() -> None:
    known = torch.tensor([[True, False, False, False]]).reshape(1, 1, 2, 2)
    priority = torch.tensor([[9.0, -torch.inf, -1.0, -torch.inf]]).reshape(1, 1, 2, 2)
    order: list[list[int]] = []
    for left in (2, 1, 0):
        chosen = reveal(priority, known, torch.tensor([left]))
        order.append(chosen.flatten().nonzero().flatten().tolist())
        known = known | chosen
    assert order == [[2], [1], [3]]


def test_random_order_is_drawn_once_and_differs_between_clips() -> None:
    case = unmask_case("random", steps=60)
    case.share_given = 0.0
    states = case.run(case.perfect(2), case.start(2), case.rng("sample", 2))
    when = torch.stack([state.known for state in states]).int().argmax(0).flatten(1)
    expected = case.rng("sample", 2).fold("random order").uniform(case.grid.size)
    assert torch.equal(when.argsort(1), expected.argsort(1, descending=True))
    assert not torch.equal(when[0], when[1])


DEGENERATE = [Grid(1, 1, 1), Grid(1, 4, 4), Grid(3, 4, 4), Grid(5, 1, 7), Grid(9, 16, 16)]


@pytest.mark.parametrize("grid", [*DEGENERATE, Grid(1, 1, 2), Grid(2, 3, 5), Grid(4, 7, 3)])
def test_halton_reaches_every_position_once(grid: Grid) -> None:
    ranks = halton_ranks(grid)
    assert ranks.shape == grid
    assert torch.equal(ranks.flatten().sort().values, torch.arange(grid.size))


def test_halton_is_the_sequence_of_the_textbook() -> None:
    ranks = halton_ranks(Grid(5, 8, 9))  # bases 5, 2, 3
    points = [(1 / 5, 1 / 2, 1 / 3), (2 / 5, 1 / 4, 2 / 3), (3 / 5, 3 / 4, 1 / 9)]
    points += [(4 / 5, 1 / 8, 4 / 9), (1 / 25, 5 / 8, 7 / 9), (6 / 25, 3 / 8, 2 / 9)]
    for rank, (t, h, w) in enumerate(points):
        cell = (int(t * 5 + 1e-9), int(h * 8 + 1e-9), int(w * 9 + 1e-9))
        assert ranks[cell] == rank


def smallest_distances(order: Tensor, grid: Grid, count: int) -> float:
    """The mean distance of the first `count` positions to their nearest among them, in units of
    the grid's sides.
    """
    axes = [torch.linspace(0, 1, size) if size > 1 else torch.zeros(1) for size in grid]
    points = torch.cartesian_prod(*axes)[order[:count]]
    distances = torch.cdist(points, points) + 10 * torch.eye(count)
    return float(distances.amin(1).mean())


@pytest.mark.parametrize("grid", [Grid(1, 4, 4), Grid(3, 4, 4), Grid(5, 1, 7), Grid(1, 16, 16)])
def test_halton_spreads_its_first_positions(grid: Grid) -> None:
    """Nearest neighbours among the first k are further apart than in raster order, and than in
    the mean of 20 random orders.
    """
    halton = halton_ranks(grid).flatten().argsort()
    raster = torch.arange(grid.size)
    shuffled = Rng.make(0, "orders", torch.arange(20)).uniform(grid.size).argsort(1)
    count = grid.size // 4
    spread = smallest_distances(halton, grid, count)
    chance = sum(smallest_distances(order, grid, count) for order in shuffled) / 20
    assert spread > 1.2 * smallest_distances(raster, grid, count)
    assert spread > chance


# Solvers of a path.


STRAIGHT = RectifiedPath()
MEAN, STD = torch.tensor([1.0, -0.5, 0.0]), torch.tensor([0.3, 1.0, 2.5])


def gaussian_on(path: NoisePath) -> Denoise:
    """E[data | x] where the data are normal."""

    def denoise(state: State, rng: Rng) -> Prediction:
        alpha, sigma = path.at(state.level.double()[:, None, None, None, None])
        variance = (alpha * STD).square() + sigma.square()
        gain = alpha * STD.square() / variance
        return Prediction(values=MEAN + gain * (state.latents.values - alpha * MEAN))

    return denoise


def sampled(path: NoisePath, clips: int = 8, **settings: Any) -> tuple[Tensor, Tensor]:
    """Noise, and what a sampler makes of it with the perfect denoiser of normal data."""
    noise = Rng.make(0, "noise", torch.arange(clips)).normal(2, 2, 2, 3).double()
    known = torch.zeros(clips, 2, 2, 2, dtype=torch.bool)
    start = State(Latents(noise), known, torch.zeros(clips))
    sampler = SAMPLERS.config(settings).build(path)
    *_, last = sampler(gaussian_on(path), start, Rng.make(0, "sample", torch.arange(clips)))
    return noise, last.latents.values


def error_of(name: str, num_steps: int, path: NoisePath = STRAIGHT) -> float:
    """The distance to the exact end of the probability-flow path, on which a value keeps its place
    in the distribution."""
    noise, made = sampled(path, name=name, num_steps=num_steps)
    start = path.at(torch.zeros(1).double())
    spread = ((start.alpha * STD).square() + start.sigma.square()).sqrt()
    exact = MEAN + STD * (noise - start.alpha * MEAN) / spread
    return float((made - exact).square().mean().sqrt())


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("name, order", [("euler", 1), ("ddim", 1), ("heun", 2)])
def test_order_of_convergence_on_a_curved_path(name: str, order: int, path: NoisePath) -> None:
    """Heun's is what its last step, an Euler step, leaves of it where the path ends steeply."""
    coarse, fine = error_of(name, 64, path), error_of(name, 128, path)
    steep_end = name == "heun" and isinstance(path, DiffusionPath)
    assert math.log2(coarse / fine) > (1.4 if steep_end else order - 0.2)
    assert fine < (0.05 if order == 1 else 0.002)


@pytest.mark.parametrize("name, order", [("euler", 1), ("heun", 2)])
def test_order_of_convergence_on_the_straight_path(name: str, order: int) -> None:
    coarse, fine = error_of(name, 64), error_of(name, 128)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_on_the_straight_path_both_are_eulers_method(name: str) -> None:
    """Written out with the velocity data - noise."""
    noise, made = sampled(RectifiedPath(), name=name, num_steps=7)
    x, denoise = noise, gaussian_on(RectifiedPath())
    for step in range(7):
        level = torch.full((8,), step / 7)
        state = State(Latents(x), torch.zeros(8, 2, 2, 2, dtype=torch.bool), level)
        data = denoise(state, Rng.make(0, "none", torch.arange(8))).values
        assert data is not None
        x = x + (data - x) / (1 - step / 7) / 7
    torch.testing.assert_close(made, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS[:3], ids=str)
@pytest.mark.parametrize("settings", [{"name": "ancestral"}, {"name": "ddim", "eta": 0.5}], ids=str)
def test_fresh_noise_leaves_the_distribution_as_it_is(
    path: NoisePath, settings: dict[str, Any]
) -> None:
    noise, made = sampled(path, 300, num_steps=250, **settings)
    values = made.flatten(0, 3)
    torch.testing.assert_close(values.mean(0), MEAN.double(), rtol=0, atol=0.15)
    torch.testing.assert_close(values.std(0), STD.double(), rtol=0.06, atol=0)
    correlation = torch.corrcoef(torch.stack([noise[..., 1].flatten(), values[:, 1]]))[0, 1]
    assert correlation < 0.9, "the end is no longer a function of the start"


def test_ancestral_is_ddim_with_all_of_the_noise_fresh() -> None:
    path = DiffusionPath(500)
    ancestral = sampled(path, name="ancestral", num_steps=10)[1]
    torch.testing.assert_close(ancestral, sampled(path, name="ddim", num_steps=10, eta=1.0)[1])
    assert not torch.allclose(ancestral, sampled(path, name="ddim", num_steps=10)[1])
    with pytest.raises(ValueError, match="eta"):
        SAMPLERS.config({"name": "ddim", "eta": 1.5})
    with pytest.raises(ValueError, match=r"unknown key 'eta'"):
        SAMPLERS.config({"name": "ancestral", "eta": 0.5})


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_heun_is_closer_than_euler_for_as_many_evaluations(path: NoisePath) -> None:
    assert error_of("heun", 16, path) < 0.5 * error_of("euler", 32, path)


@pytest.mark.parametrize("name, evaluations", [("euler", 7), ("heun", 13)])
def test_number_of_evaluations(name: str, evaluations: int) -> None:
    case = Case({"name": name, "num_steps": 7}, RectifiedPath(), Grid(1, 2, 2))
    case.run(case.perfect(), case.start(), case.rng("sample"))
    assert len(case.calls) == evaluations


def content(state: State) -> Tensor:
    """The codes if there are any, else the values."""
    return state.latents.values if state.latents.codes is None else state.latents.codes
