"""What every objective promises, on every kind of latents, on images and clips; and on an objective
that is made here.

Checks take a `Case`: an objective and latents that it was built for. Where one needs to know what
network output would be right, it asks `truth_out`, which knows the two kinds of targets there are.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vidcomp.objectives
from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition, ConditioningConfig
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.objectives.base import OBJECTIVES, Objective, combine
from vidcomp.objectives.flow import Flow
from vidcomp.objectives.maskgit import MaskGIT
from vidcomp.schedules import MaskSchedule
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Corrupted, Grid, Latents, LatentSpec, Prediction, State
from vidcomp.world.concepts import choose

VARIANTS = OBJECTIVES.names()
WIDTH = 48
STRIDES = Grid(4, 8, 8)
SPECS = {
    "codes": LatentSpec(STRIDES, 3, codebook_sizes=(12,)),
    "grouped codes": LatentSpec(STRIDES, 4, codebook_sizes=(5, 9)),
    "fsq": LatentSpec(STRIDES, 2, codebook_sizes=(15,), levels=(5, 3)),
    "continuous": LatentSpec(STRIDES, 4),
}
FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up", "down"]})

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


@dataclass(frozen=True)
class Case:
    """An objective with latents to be trained on."""

    name: str
    spec: LatentSpec
    grid: Grid

    @functools.cached_property
    def objective(self) -> Objective:
        with initial_weights(0):
            return OBJECTIVES.config(self.name).build(self.spec, WIDTH)

    def clean(self, *, batch: int = 4, seed: int = 0) -> Latents:
        rng = self.rng("clean", batch, seed)
        codes = None
        if self.spec.codebook_sizes is not None:
            drawn = [rng.fold(k).integers(k, *self.grid) for k in self.spec.codebook_sizes]
            codes = torch.stack(drawn, dim=-1)
        return Latents(rng.normal(*self.grid, self.spec.channels), codes)

    def given(self, share: float, *, batch: int = 4) -> Tensor:
        return self.rng("given", batch).bernoulli(share, *self.grid)

    def corrupted(self, share_given: float = 0.0) -> Corrupted:
        clean, given = self.clean(), self.given(share_given)
        return self.objective.corrupt(clean, given, self.rng("corrupt"))

    def some_out(self, *, batch: int = 4, seed: int = 0) -> Tensor:
        """An output of an untrained network."""
        hidden = self.rng("hidden", batch, seed).normal(*self.grid, WIDTH)
        out = self.objective.head(hidden)
        return out + self.rng("out", batch, seed).normal(*out.shape[1:])

    def rng(self, purpose: str, batch: int = 4, seed: int = 0) -> Rng:
        return Rng.make(seed, purpose, torch.arange(batch))


def fits(name: str, spec: LatentSpec) -> bool:
    try:
        OBJECTIVES.config(name).build(spec, WIDTH)
    except UserError:
        return False
    return True


def cases(name: str) -> list[Case]:
    grids = (Grid(1, 3, 3), Grid(3, 2, 3))
    return [Case(name, spec, grid) for spec in SPECS.values() if fits(name, spec) for grid in grids]


def truth_out(corrupted: Corrupted, spec: LatentSpec, *, sure: float = 1e4) -> Tensor:
    """What the network should say: the target itself, or logits that are `sure` of the codes."""
    if isinstance(corrupted.target, Tensor):
        return corrupted.target
    assert corrupted.target.codes is not None and spec.codebook_sizes is not None
    logits = [
        sure * torch.nn.functional.one_hot(codes, size).float()
        for codes, size in zip(corrupted.target.codes.unbind(-1), spec.codebook_sizes, strict=True)
    ]
    return torch.cat(logits, dim=-1)


# The contract.


def given_positions_stay_clean_and_are_never_predicted(case: Case) -> None:
    for share in (0.0, 0.4, 1.0):
        clean, given = case.clean(), case.given(share)
        made = case.objective.corrupt(clean, given, case.rng("corrupt"))
        assert not (made.predict & given).any() and not (made.predict & made.state.known).any()
        assert made.state.known[given].all()
        # Only noised positions may be neither known nor predicted, and there are none of them.
        assert (made.state.known | made.predict).all()
        assert torch.equal(made.state.latents.values[given], clean.values[given])
        if made.state.latents.codes is not None and clean.codes is not None:
            assert torch.equal(made.state.latents.codes[given], clean.codes[given])
        assert ((made.state.level >= 0) & (made.state.level <= 1)).all()


def nothing_to_predict_is_a_loss_of_zero(case: Case) -> None:
    made = case.corrupted(share_given=1.0)
    losses = case.objective.loss(case.some_out(), made, case.rng("loss"))
    assert torch.equal(losses.total(), torch.zeros(4))


def a_hidden_position_does_not_show_through(case: Case) -> None:
    """A masked objective hides the content; one that adds noise does not know of `start`'s."""
    clean, given = case.clean(), case.given(0.5)
    other = case.clean(seed=1)
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
        assert torch.equal(start.level, torch.zeros(4))
        assert torch.equal(start.latents.values[given], clean.values[given])


def known_and_hidden_positions_are_told_apart(case: Case) -> None:
    objective = case.objective
    with torch.no_grad():  # a vector that tells them apart may start at zero
        for parameter in objective.parameters():
            parameter.add_(0.1)
    state = objective.clean(case.clean())
    assert state.known.all() and torch.equal(state.level, torch.ones(4))
    hidden = State(state.latents, torch.zeros_like(state.known), state.level)
    differs = (objective.embed(state) - objective.embed(hidden)).abs().amax(-1) > 1e-6
    assert differs.all()


def draws_do_not_depend_on_the_batch(case: Case) -> None:
    objective, rows = case.objective, torch.tensor([2, 0])
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
    read = objective.read([out], [1.0], state, temperature=1.0, rng=case.rng("read"))
    few = objective.read(
        [out[rows]], [1.0], part.state, temperature=1.0, rng=case.rng("read")[rows]
    )
    torch.testing.assert_close(content(read)[rows], content(few))


def shapes_are_those_of_the_contract(case: Case) -> None:
    made = case.corrupted()
    hidden = case.objective.embed(made.state)
    assert hidden.shape == (4, *case.grid, WIDTH)
    out = case.objective.head(hidden)
    losses = case.objective.loss(out, made, case.rng("loss"))
    assert losses.total().shape == (4,)
    for value in (*losses.terms.values(), *losses.metrics.values()):
        assert value.shape == (4,) and value.isfinite().all()
    prediction = case.objective.read(
        [out], [1.0], made.state, temperature=1.0, rng=case.rng("read")
    )
    assert (prediction.codes is None) != (prediction.values is None)
    if prediction.codes is not None:
        assert prediction.codes.shape == (4, *case.grid, len(case.spec.codebook_sizes or ()))
        assert prediction.codes.min() >= 0
        largest = prediction.codes.amax((0, 1, 2, 3))
        assert (largest < torch.tensor(case.spec.codebook_sizes)).all()
    if prediction.values is not None:
        assert prediction.values.shape == (4, *case.grid, case.spec.channels)
    if prediction.confidence is not None:
        assert (prediction.confidence <= 0).all()


def the_truth_has_no_loss(case: Case) -> None:
    made = case.corrupted(share_given=0.3)
    objective = case.objective
    if isinstance(objective, MaskGIT):
        objective.label_smoothing = 0.0  # a smoothed target is never met
    losses = objective.loss(truth_out(made, case.spec), made, case.rng("loss"))
    torch.testing.assert_close(losses.total(), torch.zeros(4))
    assert (objective.loss(case.some_out(), made, case.rng("loss")).total() > 0).all()


def the_loss_ignores_what_is_not_predicted(case: Case) -> None:
    made = case.corrupted(share_given=0.5)
    out = case.some_out().detach().requires_grad_()
    loss = case.objective.loss(out, made, case.rng("loss")).total()
    noise = 100 * torch.where(made.predict[..., None], 0, case.some_out(seed=1))
    torch.testing.assert_close(
        case.objective.loss(out + noise, made, case.rng("loss")).total(), loss
    )
    (gradient,) = torch.autograd.grad(loss.sum(), out)
    assert torch.equal(gradient.abs().sum(-1) > 0, made.predict)


def reading_the_truth_gives_the_truth(case: Case) -> None:
    clean, given = case.clean(), case.given(0.3)
    made = case.objective.corrupt(clean, given, case.rng("corrupt"))
    out = truth_out(made, case.spec)
    for temperature in (0.0, 1.0):
        read = case.objective.read(
            [out], [1.0], made.state, temperature=temperature, rng=case.rng("read")
        )
        if read.codes is not None:
            assert clean.codes is not None and torch.equal(read.codes, clean.codes)
        else:
            values = content(read)[~given]
            torch.testing.assert_close(values, clean.values[~given], rtol=1e-4, atol=1e-4)


def guidance_of_equals_is_none(case: Case) -> None:
    state, out = case.corrupted().state, case.some_out()

    def read(outs: list[Tensor], weights: list[float]) -> Tensor:
        prediction = case.objective.read(
            outs, weights, state, temperature=0.0, rng=case.rng("read")
        )
        return content(prediction)

    plain = read([out], [1.0])
    torch.testing.assert_close(read([out, out], [3.0, -2.0]), plain, rtol=1e-3, atol=1e-3)
    other = case.some_out(seed=1)
    torch.testing.assert_close(read([other, out], [0.0, 1.0]), plain)
    torch.testing.assert_close(
        read([out, other], [2.5, -1.5]), read([other, out], [-1.5, 2.5]), rtol=1e-3, atol=1e-3
    )
    with pytest.raises(AssertionError, match="sum to 1"):
        read([out, out], [1.0, 1.0])


def the_data_prediction_is_differentiable(case: Case) -> None:
    out = case.some_out().detach().requires_grad_()
    state = case.corrupted().state
    case.objective.data_prediction(out, state).square().sum().backward()
    assert out.grad is not None and out.grad.isfinite().all() and out.grad.abs().sum() > 0


def generator_for(case: Case) -> Generator:
    config = GeneratorConfig.model_validate(
        {
            "objective": {"name": case.name},
            "backbone": {"depth": 2, "width": WIDTH, "heads": 2},
            "conditioning": {"drop_factor": 0.3, "prefix": 0.5, "encode": {"motion": "exact"}},
        }
    )
    with initial_weights(0):
        return config.build(case.spec, FACTORS)


def condition(batch: int) -> Condition:
    classes = torch.arange(batch)[:, None] % torch.tensor(FACTORS.sizes)
    return Condition.of(classes, FACTORS.prototypes(classes))


def train(generator: Generator, clean: Latents, *, steps: int) -> None:
    optimizer = torch.optim.AdamW(generator.parameters(), lr=5e-3)
    index = torch.arange(len(clean))
    for step in range(steps):
        rng = Rng.make(0, "train", index, step=step)
        generator(clean, condition(len(clean)), rng).total().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        generator.after_step()


def gradients_reach_every_parameter(case: Case) -> None:
    """After two steps: the first opens the gates (adaLN-zero) and fills zero heads, behind which no
    gradient passes; the second lets what lies behind both move.
    """
    generator = generator_for(case)
    clean = case.clean(batch=16)
    train(generator, clean, steps=2)
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
    if isinstance(generator.objective, MaskGIT):
        generator.objective.label_smoothing = 0.0
    clips = torch.arange(32) % 2  # two clips, many levels
    clean = case.clean(batch=2)[clips]

    def loss() -> float:
        with torch.no_grad():
            losses = generator(clean, condition(2)[clips], case.rng("judge", len(clips)))
        return float(losses.total().mean())

    before = loss()
    train(generator, clean, steps=25)
    assert loss() < 0.7 * before


def autocast_leaves_the_loss_in_full_precision(case: Case) -> None:
    generator = generator_for(case)
    with torch.autocast("cpu", torch.bfloat16):
        loss = generator(case.clean(), condition(4), case.rng("train")).total()
    assert loss.dtype == torch.float32
    full = generator(case.clean(), condition(4), case.rng("train")).total()
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.05)
    loss.mean().backward()


CHECKS: tuple[Callable[[Case], None], ...] = (
    given_positions_stay_clean_and_are_never_predicted,
    nothing_to_predict_is_a_loss_of_zero,
    a_hidden_position_does_not_show_through,
    known_and_hidden_positions_are_told_apart,
    draws_do_not_depend_on_the_batch,
    shapes_are_those_of_the_contract,
    the_truth_has_no_loss,
    the_loss_ignores_what_is_not_predicted,
    reading_the_truth_gives_the_truth,
    guidance_of_equals_is_none,
    the_data_prediction_is_differentiable,
    gradients_reach_every_parameter,
    one_batch_is_learned_by_heart,
    autocast_leaves_the_loss_in_full_precision,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    for case in cases(name):
        check(case)


def test_a_variant_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(
        vidcomp.objectives, "__path__", [*vidcomp.objectives.__path__, str(tmp_path)]
    )
    assert OBJECTIVES.names() == sorted([*VARIANTS, "toy"])
    try:
        assert len(cases("toy")) == 2 * len(SPECS)
        case = Case("toy", SPECS["continuous"], Grid(3, 2, 3))
        for check in CHECKS:
            check(case)
    finally:
        sys.modules.pop("vidcomp.objectives.toy", None)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_comes_back_from_what_is_stored(name: str) -> None:
    config = OBJECTIVES.config(name)
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


def test_maskgit_needs_codes_and_flow_does_not() -> None:
    assert not fits("maskgit", SPECS["continuous"])
    assert all(fits("flow", spec) for spec in SPECS.values())


# Single variants.


@pytest.mark.parametrize("schedule", ["cosine", "arccos", "linear", "square"])
@pytest.mark.parametrize("share_given", [0.0, 0.5])
def test_maskgit_masks_the_share_that_the_schedule_says(schedule: str, share_given: float) -> None:
    config = OBJECTIVES.config({"name": "maskgit", "schedule": schedule})
    case = Case("maskgit", SPECS["codes"], Grid(3, 2, 3))
    objective = config.build(case.spec, WIDTH)
    batch = 200
    given = case.given(share_given, batch=batch)
    made = objective.corrupt(case.clean(batch=batch), given, case.rng("corrupt", batch))
    num_free = (~given).flatten(1).sum(1)
    share = MaskSchedule(config.schedule).share(made.state.level)
    expected = (share * num_free).ceil().clamp_min(1).minimum(num_free)
    assert torch.equal(made.predict.flatten(1).sum(1), expected.long())
    level = made.state.level.sort().values  # uniform on [0, 1]: Kolmogorov and Smirnov at 1e-4
    steps = torch.arange(1, batch + 1) / batch
    assert (level - steps).abs().max() < 2.2 / batch**0.5


def test_maskgit_masks_every_position_equally_often() -> None:
    case = Case("maskgit", SPECS["codes"], Grid(3, 2, 3))
    given = torch.zeros(2000, *case.grid, dtype=torch.bool)
    made = case.objective.corrupt(case.clean(batch=2000), given, case.rng("corrupt", 2000))
    often = made.predict.float().mean(0)
    assert (often - often.mean()).abs().max() < 4 * (0.25 / 2000) ** 0.5


def test_maskgit_sees_nothing_of_a_masked_code() -> None:
    case = Case("maskgit", SPECS["grouped codes"], Grid(3, 2, 3))
    made = case.corrupted()
    other = Latents(case.clean(seed=1).values, case.clean(seed=1).codes)
    assert made.state.latents.codes is not None and other.codes is not None
    codes = torch.where(made.predict[..., None], other.codes, made.state.latents.codes)
    changed = State(Latents(other.values, codes), made.state.known, made.state.level)
    assert torch.equal(case.objective.embed(made.state), case.objective.embed(changed))


def test_maskgit_keeps_the_codebooks_apart() -> None:
    case = Case("maskgit", SPECS["grouped codes"], Grid(1, 3, 3))
    clean = case.clean()

    def embedded(first: int, second: int) -> Tensor:
        codes = torch.tensor([first, second]).expand(4, *case.grid, 2)
        return case.objective.embed(case.objective.clean(Latents(clean.values, codes)))

    assert not torch.allclose(embedded(0, 1), embedded(2, 1))
    assert not torch.allclose(embedded(0, 1), embedded(0, 2))
    assert not torch.allclose(embedded(0, 1), embedded(1, 0)), "which codebook it was is seen"
    out = case.some_out()
    log_p = case.objective.data_prediction(out, case.corrupted().state)
    total = torch.stack([part.exp().sum(-1) for part in log_p.split((5, 9), dim=-1)])
    torch.testing.assert_close(total, torch.ones_like(total))


def test_maskgit_reads_codes_as_often_as_they_are_likely() -> None:
    case = Case("maskgit", SPECS["codes"], Grid(1, 1, 1))
    logits = torch.linspace(-2, 2, 12)
    batch = 4000
    state = case.objective.start(
        case.clean(batch=batch), case.given(0.0, batch=batch), case.rng("start", batch)
    )
    for temperature in (1.0, 2.0):
        read = case.objective.read(
            [logits.expand(batch, 1, 1, 1, 12)],
            [1.0],
            state,
            temperature=temperature,
            rng=case.rng("read", batch),
        )
        assert read.codes is not None and read.confidence is not None
        often = read.codes.flatten().bincount(minlength=12) / batch
        p = (logits / temperature).softmax(0)
        assert ((often - p).abs() < 4.5 * (p * (1 - p) / batch).sqrt()).all()
        # The confidence is that of the network, whatever the temperature.
        expected = logits.log_softmax(0)[read.codes[..., 0]]
        torch.testing.assert_close(read.confidence, expected)


def test_maskgit_at_temperature_zero_takes_the_likeliest() -> None:
    case = Case("maskgit", SPECS["codes"], Grid(3, 2, 3))
    out = case.some_out()
    read = case.objective.read(
        [out], [1.0], case.corrupted().state, temperature=0.0, rng=case.rng("read")
    )
    assert read.codes is not None and torch.equal(read.codes[..., 0], out.argmax(-1))


def test_maskgit_accuracy_is_the_share_of_right_codes() -> None:
    case = Case("maskgit", SPECS["grouped codes"], Grid(3, 2, 3))
    made, out = case.corrupted(), case.some_out()
    assert isinstance(made.target, Latents) and made.target.codes is not None
    likeliest = torch.stack([part.argmax(-1) for part in out.split((5, 9), dim=-1)], dim=-1)
    right = (likeliest == made.target.codes).float().mean(-1) * made.predict
    expected = right.flatten(1).sum(1) / made.predict.flatten(1).sum(1)
    measured = case.objective.loss(out, made, case.rng("loss")).metrics["code_accuracy"]
    torch.testing.assert_close(measured, expected)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0])
def test_maskgit_refuses_a_smoothing_that_is_no_share(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        OBJECTIVES.config({"name": "maskgit", "label_smoothing": smoothing})


def test_flow_levels_are_logit_normal_and_its_noise_is_fresh() -> None:
    case = Case("flow", SPECS["continuous"], Grid(1, 1, 1))
    objective = case.objective
    assert isinstance(objective, Flow)
    batch = 2000
    clean = Latents(torch.zeros(batch, 1, 1, 1, 4))
    made = objective.corrupt(clean, case.given(0.0, batch=batch), case.rng("corrupt", batch))
    logit = made.state.level.logit()
    assert abs(logit.mean()) < 4.5 / batch**0.5 and abs(logit.std() - 1) < 0.08
    assert isinstance(made.target, Tensor)
    noise = -made.target  # the data is zero
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.06
    correlation = torch.corrcoef(torch.cat([noise.flatten(1), logit[:, None]], dim=1).T)
    assert (correlation - torch.eye(5)).abs().max() < 0.12


def test_flow_works_on_the_values_of_codes() -> None:
    case = Case("flow", SPECS["fsq"], Grid(3, 2, 3))
    made = case.corrupted()
    assert made.state.latents.codes is None, "codes of noised values would be a lie"
    assert torch.equal(made.state.latents.values.isfinite().all(), torch.tensor(True))


def test_combine_is_linear_and_in_full_precision() -> None:
    a, b = torch.randn(2, 2, 1, 2, 2, 3).bfloat16()
    total = combine([a, b], [7.5, -6.5])
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, 7.5 * a.float() - 6.5 * b.float())


def content(prediction: Prediction) -> Tensor:
    """Whichever of the two a prediction has."""
    chosen = prediction.codes if prediction.values is None else prediction.values
    assert chosen is not None
    return chosen
