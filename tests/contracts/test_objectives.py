"""What every objective promises, on every kind of latents, on images and clips; and on an objective
that is made here. What they promise of training is in `test_objectives_learn.py`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ladder import BATCH, SPECS, WIDTH, Case, cases, fits
from torch import Tensor

import vidcomp.objectives
from vidcomp.config import UserError
from vidcomp.objectives.base import OBJECTIVES, Noised, Objective
from vidcomp.objectives.givt import Givt
from vidcomp.samplers.base import SAMPLERS
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, Prediction, State

VARIANTS = OBJECTIVES.names()

TOY = '''
"""The smallest objective: regress the hidden latents, with a fixed half of them hidden."""
from torch import nn
from vidcomp.objectives import base
from vidcomp.schedules import MaskSchedule
from vidcomp.types import Corrupted, Losses, Prediction, State, mean_where

class Config(base.Config):
    def build(self, spec, width):
        return Toy(spec.channels, width)

class Toy(base.Objective):
    def __init__(self, channels, width):
        super().__init__()
        self.schedule = MaskSchedule("linear")
        self.into, self.out = nn.Linear(channels, width), nn.Linear(width, channels)

    def corrupt(self, clean, given, rng):
        hidden = (rng.uniform(*given.shape[1:]) < 0.5) & ~given
        level = clean.values.new_full((len(clean),), 0.5)
        return Corrupted(State(clean, ~hidden, level), clean.values, hidden)

    def start(self, known, given, rng):
        return State(known, given, known.values.new_zeros(len(known)))

    def embed(self, state):
        return self.into(state.latents.values * state.known[..., None])

    def head(self, hidden):
        return self.out(hidden)

    def loss(self, out, corrupted, rng):
        error = (out.float() - corrupted.target).square().mean(-1)
        return Losses.of({"regression": mean_where(error, corrupted.predict)})

    def read(self, outs, weights, state, *, temperature, rng):
        return Prediction(values=self.data_prediction(base.combine(outs, weights), state))

    def data_prediction(self, out, state):
        return out.float()
'''


# The contract.


def given_positions_stay_clean_and_are_never_predicted(case: Case) -> None:
    for share in (0.0, 0.4, 1.0):
        clean, given = case.clean(), case.given(share)
        made = case.objective.corrupt(clean, given, case.rng("corrupt"))
        assert not (made.predict & given).any() and made.state.known[given].all()
        if case.settings.get("loss_on") == "all":
            assert torch.equal(made.predict, ~given)
        else:
            assert not (made.predict & made.state.known).any()
        assert (made.state.known | made.predict).all()
        assert torch.equal(made.state.latents.values[given], clean.values[given])
        if made.state.latents.codes is not None and clean.codes is not None:
            assert torch.equal(made.state.latents.codes[given], clean.codes[given])
        assert ((made.state.level >= 0) & (made.state.level <= 1)).all()


def nothing_to_predict_is_a_loss_of_zero(case: Case) -> None:
    made = case.corrupted(share_given=1.0)
    losses = case.objective.loss(case.some_out(), made, case.rng("loss"))
    assert torch.equal(losses.total(), torch.zeros(BATCH))


def a_hidden_position_does_not_show_through(case: Case) -> None:
    """A masked objective hides the content; one that adds noise does not know of `start`'s."""
    clean, given, other = case.clean(), case.given(0.5), case.clean(seed=1)
    where = given[..., None]
    codes = None
    if clean.codes is not None and other.codes is not None:
        codes = torch.where(where, clean.codes, other.codes)
    mixed = Latents(torch.where(where, clean.values, other.values), codes)
    starts = [case.objective.start(known, given, case.rng("start")) for known in (clean, mixed)]
    embedded = [case.objective.embed(start) for start in starts]
    torch.testing.assert_close(*embedded, rtol=0, atol=0)
    for start in starts:
        assert torch.equal(start.known, given)
        assert torch.equal(start.level, torch.zeros(BATCH))
        assert torch.equal(start.latents.values[given], clean.values[given])


def known_and_hidden_positions_are_told_apart(case: Case) -> None:
    objective = case.opened()
    state = objective.clean(case.clean())
    assert state.known.all() and torch.equal(state.level, torch.ones(BATCH))
    hidden = State(state.latents, torch.zeros_like(state.known), state.level)
    differs = (objective.embed(state) - objective.embed(hidden)).abs().amax(-1) > 1e-6
    assert differs.all()


def draws_do_not_depend_on_the_batch(case: Case) -> None:
    objective, rows = case.opened(), torch.tensor([2, 0])
    clean, given = case.clean(), case.given(0.3)
    whole = objective.corrupt(clean, given, case.rng("corrupt"))
    part = objective.corrupt(clean[rows], given[rows], case.rng("corrupt")[rows])
    assert torch.equal(whole.predict[rows], part.predict)
    assert torch.equal(whole.state.level[rows], part.state.level)
    assert torch.equal(whole.state.latents.values[rows], part.state.latents.values)
    start = objective.start(clean, given, case.rng("start")).latents.values[rows]
    alone = objective.start(clean[rows], given[rows], case.rng("start")[rows]).latents.values
    assert torch.equal(start, alone)
    out, state = case.some_out(), whole.state
    losses = objective.loss(out, whole, case.rng("loss")).total()[rows]
    torch.testing.assert_close(
        losses, objective.loss(out[rows], part, case.rng("loss")[rows]).total()
    )
    for outs, weights in ([out], [1.0]), ([out, out.roll(1, -1)], [2.0, -1.0]):
        read = objective.read(outs, weights, state, temperature=1.0, rng=case.rng("read"))
        outs = [out[rows] for out in outs]
        few = objective.read(outs, weights, part.state, temperature=1.0, rng=case.rng("read")[rows])
        torch.testing.assert_close(content(read)[rows], content(few), rtol=1e-4, atol=1e-4)


def shapes_are_those_of_the_contract(case: Case) -> None:
    made = case.corrupted()
    hidden = case.objective.embed(made.state)
    assert hidden.shape == (BATCH, *case.grid, WIDTH)
    out = case.objective.head(hidden)
    losses = case.objective.loss(out, made, case.rng("loss"))
    assert losses.total().shape == (BATCH,)
    for value in (*losses.terms.values(), *losses.metrics.values()):
        assert value.shape == (BATCH,) and value.isfinite().all()
    prediction = read_of(case.objective, [out], [1.0], made.state, case)
    assert (prediction.codes is None) != (prediction.values is None)
    if prediction.codes is not None:
        assert prediction.codes.shape == (BATCH, *case.grid, len(case.spec.codebook_sizes or ()))
        assert prediction.codes.min() >= 0
        largest = prediction.codes.amax((0, 1, 2, 3))
        assert (largest < torch.tensor(case.spec.codebook_sizes)).all()
    if prediction.values is not None:
        assert prediction.values.shape == (BATCH, *case.grid, case.spec.channels)
    if prediction.confidence is not None:
        assert (prediction.confidence <= 0).all()


def the_truth_has_the_least_loss(case: Case) -> None:
    """That is 0, but where labels are smoothed and of densities (`Case.least_loss`)."""
    clean = case.clean()
    made = case.corrupted(share_given=0.3)
    out, objective = case.right_out(clean, made.state), case.perfect()
    loss = objective.loss(out, made, case.rng("loss")).total()
    torch.testing.assert_close(loss, torch.full((BATCH,), case.least_loss), rtol=1e-4, atol=2e-4)
    out = out + 0.3 if isinstance(objective, Noised) else case.some_out()
    worse = objective.loss(out, made, case.rng("loss")).total()
    assert (worse > loss + 1e-3).all()


def the_loss_ignores_what_is_not_predicted(case: Case) -> None:
    objective, made = case.opened(), case.corrupted(share_given=0.5)
    out = case.some_out().requires_grad_()
    loss = objective.loss(out, made, case.rng("loss")).total()
    noise = 100 * torch.where(made.predict[..., None], 0, case.some_out(seed=1))
    torch.testing.assert_close(objective.loss(out + noise, made, case.rng("loss")).total(), loss)
    (gradient,) = torch.autograd.grad(loss.sum(), out)
    assert torch.equal(gradient.abs().sum(-1) > 0, made.predict)


def reading_the_truth_gives_the_truth(case: Case) -> None:
    clean, given = case.clean(), case.given(0.3)
    objective = case.perfect()
    state = objective.corrupt(clean, given, case.rng("corrupt")).state
    out = case.sure_out(clean, state)
    for temperature in (0.0, 1.0):
        read = objective.read([out], [1.0], state, temperature=temperature, rng=case.rng("read"))
        assert_is(read.codes, read.values, clean, ~state.known, case, temperature)


def perfect_answers_are_sampled_exactly(case: Case) -> None:
    """In any number of steps of every sampler that fits. (Of noise alone, where there is no signal
    at all, no data can be told: where noise is predicted on a path from pure noise, one step is not
    enough.)"""
    clean, given = case.clean(), case.given(0.3)
    objective = case.perfect()
    start = objective.start(clean, given, case.rng("start"))
    blind = case.settings.get("predict") == "noise"

    def denoise(state: State, rng: Rng) -> Prediction:
        out = case.sure_out(clean, state)
        return objective.read([out], [1.0], state, temperature=1.0, rng=rng)

    tried = 0
    for name in SAMPLERS.names():
        for num_steps in (2, 5) if blind else (1, 3):
            config = SAMPLERS.config({"name": name, "num_steps": num_steps})
            try:
                sampler = config.build(objective.schedule)
            except UserError:
                continue
            if blind and name == "heun":
                continue  # its first step is half the blind answer, whatever comes after
            *_, last = sampler(denoise, start, case.rng("sample"))
            tried += 1
            everywhere = torch.ones_like(given)
            assert_is(last.latents.codes, last.latents.values, clean, everywhere, case, 1.0)
    assert tried >= 2


def guidance_of_equals_is_none(case: Case) -> None:
    state, out, other = case.corrupted().state, case.some_out(), case.some_out(seed=1)
    objective = case.opened()

    def read(outs: list[Tensor], weights: list[float]) -> Prediction:
        return objective.read(outs, weights, state, temperature=0.5, rng=case.rng("read"))

    plain, equals = read([out], [1.0]), read([out, out], [3.0, -2.0])
    if isinstance(objective, Givt):  # other draws of the same mixture, all equally good
        assert equals.effective_samples is not None
        all_of_them = torch.full_like(equals.effective_samples, objective.config.num_candidates)
        torch.testing.assert_close(equals.effective_samples, all_of_them, rtol=1e-3, atol=0)
    else:
        torch.testing.assert_close(content(equals), content(plain), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(content(read([other, out], [0.0, 1.0])), content(plain))
    one_way, other_way = read([out, other], [2.5, -1.5]), read([other, out], [-1.5, 2.5])
    torch.testing.assert_close(content(one_way), content(other_way), rtol=1e-3, atol=1e-3)
    with pytest.raises(AssertionError, match="sum to 1"):
        read([out, out], [1.0, 1.0])


def the_data_prediction_is_differentiable(case: Case) -> None:
    out, state = case.some_out().requires_grad_(), case.corrupted().state
    case.opened().data_prediction(out, state).square().sum().backward()
    assert out.grad is not None and out.grad.isfinite().all() and out.grad.abs().sum() > 0


CHECKS: tuple[Callable[[Case], None], ...] = (
    given_positions_stay_clean_and_are_never_predicted,
    nothing_to_predict_is_a_loss_of_zero,
    a_hidden_position_does_not_show_through,
    known_and_hidden_positions_are_told_apart,
    draws_do_not_depend_on_the_batch,
    shapes_are_those_of_the_contract,
    the_truth_has_the_least_loss,
    the_loss_ignores_what_is_not_predicted,
    reading_the_truth_gives_the_truth,
    guidance_of_equals_is_none,
    the_data_prediction_is_differentiable,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    for case in cases(name):
        check(case)


@pytest.mark.parametrize("name", VARIANTS)
def test_perfect_answers_are_sampled_exactly(name: str) -> None:
    for case in cases(name):
        perfect_answers_are_sampled_exactly(case)


def test_a_variant_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(
        vidcomp.objectives, "__path__", [*vidcomp.objectives.__path__, str(tmp_path)]
    )
    assert OBJECTIVES.names() == sorted([*VARIANTS, "toy"])
    try:
        assert all(fits("toy", spec) for spec in SPECS.values())
        case = Case("toy", SPECS["continuous"], Grid(3, 2, 3))
        for check in CHECKS:
            check(case)
    finally:
        sys.modules.pop("vidcomp.objectives.toy", None)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_comes_back_from_what_is_stored(name: str) -> None:
    for case in cases(name):
        config = OBJECTIVES.config(case.raw)
        assert OBJECTIVES.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", VARIANTS)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    for spec in SPECS.values():
        if fits(name, spec):
            continue
        assert spec.codebook_sizes is None, "every objective runs on codes"
        with pytest.raises(UserError, match=f"{name} needs codes.*fsq.*flow") as error:
            OBJECTIVES.config(name).build(spec, WIDTH)
        assert "\n" not in str(error.value)


def test_only_what_predicts_codes_needs_them() -> None:
    needs = {name for name in VARIANTS if not fits(name, SPECS["continuous"])}
    assert needs == {"maskgit", "soft_maskgit"}


def read_of(
    objective: Objective, outs: list[Tensor], weights: list[float], state: State, case: Case
) -> Prediction:
    return objective.read(outs, weights, state, temperature=1.0, rng=case.rng("read"))


def assert_is(
    codes: Tensor | None,
    values: Tensor | None,
    clean: Latents,
    where: Tensor,
    case: Case,
    temperature: float,
) -> None:
    """What was made is `clean`; of a density as narrow as its floor, within six of its widths."""
    if codes is not None:
        assert clean.codes is not None and torch.equal(codes[where], clean.codes[where])
        return
    assert values is not None
    objective = case.objective
    floor = 6 * objective.config.min_std * temperature if isinstance(objective, Givt) else 0.0
    torch.testing.assert_close(values[where], clean.values[where], rtol=1e-3, atol=max(floor, 1e-3))


def content(prediction: Prediction) -> Tensor:
    """Whichever of the two a prediction has."""
    chosen = prediction.codes if prediction.values is None else prediction.values
    assert chosen is not None
    return chosen
