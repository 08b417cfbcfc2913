"""MaskGIT: what is masked, what is seen, and how often each code is read."""

import pytest
import torch
from ladder import SPECS, WIDTH, Case
from torch import Tensor

from vidcomp.objectives.base import OBJECTIVES, combine
from vidcomp.schedules import MaskSchedule
from vidcomp.types import Grid, Latents, State


@pytest.mark.parametrize("schedule", ["cosine", "arccos", "linear", "square"])
@pytest.mark.parametrize("share_given", [0.0, 0.5])
def test_it_masks_the_share_that_the_schedule_says(schedule: str, share_given: float) -> None:
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


def test_it_masks_every_position_equally_often() -> None:
    case = Case("maskgit", SPECS["codes"], Grid(3, 2, 3))
    given = torch.zeros(2000, *case.grid, dtype=torch.bool)
    made = case.objective.corrupt(case.clean(batch=2000), given, case.rng("corrupt", 2000))
    often = made.predict.float().mean(0)
    assert (often - often.mean()).abs().max() < 4 * (0.25 / 2000) ** 0.5


def test_it_sees_nothing_of_a_masked_code() -> None:
    case = Case("maskgit", SPECS["grouped codes"], Grid(3, 2, 3))
    made = case.corrupted()
    other = Latents(case.clean(seed=1).values, case.clean(seed=1).codes)
    assert made.state.latents.codes is not None and other.codes is not None
    codes = torch.where(made.predict[..., None], other.codes, made.state.latents.codes)
    changed = State(Latents(other.values, codes), made.state.known, made.state.level)
    assert torch.equal(case.objective.embed(made.state), case.objective.embed(changed))


def test_it_keeps_the_codebooks_apart() -> None:
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


def test_it_reads_codes_as_often_as_they_are_likely() -> None:
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


def test_at_temperature_zero_takes_the_likeliest() -> None:
    case = Case("maskgit", SPECS["codes"], Grid(3, 2, 3))
    out = case.some_out()
    read = case.objective.read(
        [out], [1.0], case.corrupted().state, temperature=0.0, rng=case.rng("read")
    )
    assert read.codes is not None and torch.equal(read.codes[..., 0], out.argmax(-1))


def test_its_accuracy_is_the_share_of_right_codes() -> None:
    case = Case("maskgit", SPECS["grouped codes"], Grid(3, 2, 3))
    made, out = case.corrupted(), case.some_out()
    assert isinstance(made.target, Latents) and made.target.codes is not None
    likeliest = torch.stack([part.argmax(-1) for part in out.split((5, 9), dim=-1)], dim=-1)
    right = (likeliest == made.target.codes).float().mean(-1) * made.predict
    expected = right.flatten(1).sum(1) / made.predict.flatten(1).sum(1)
    measured = case.objective.loss(out, made, case.rng("loss")).metrics["code_accuracy"]
    torch.testing.assert_close(measured, expected)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0])
def test_it_refuses_a_smoothing_that_is_no_share(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        OBJECTIVES.config({"name": "maskgit", "label_smoothing": smoothing})


def test_combine_is_linear_and_in_full_precision() -> None:
    a, b = torch.randn(2, 2, 1, 2, 2, 3).bfloat16()
    total = combine([a, b], [7.5, -6.5])
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, 7.5 * a.float() - 6.5 * b.float())
