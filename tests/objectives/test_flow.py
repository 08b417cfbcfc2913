"""Flow: the distribution of its training times, and answers that convert into each other."""

import pytest
import torch
from ladder import SPECS, Case
from scipy import stats
from torch import Tensor

from vidcomp.objectives.base import OBJECTIVES
from vidcomp.objectives.flow import Flow
from vidcomp.types import Grid, Latents

PREDICT = ["velocity", "data", "noise"]
MANY = 2000
GRID = Grid(3, 2, 3)


def flow(**settings: object) -> Case:
    return Case("flow", SPECS["continuous"], GRID, settings)


def levels(**settings: object) -> Tensor:
    case = flow(**settings)
    assert isinstance(case.objective, Flow)
    return case.objective.levels(case.rng("levels", MANY))


def test_levels_are_logit_normal_and_the_noise_is_fresh() -> None:
    case = Case("flow", SPECS["continuous"], Grid(1, 1, 1))
    clean = Latents(torch.zeros(MANY, 1, 1, 1, 4))
    given = case.given(0.0, batch=MANY)
    made = case.objective.corrupt(clean, given, case.rng("corrupt", MANY))
    logit = made.state.level.logit()
    assert stats.kstest(logit.numpy(), "norm").pvalue > 1e-3
    assert isinstance(made.target, Tensor)
    noise = -made.target  # the data is zero
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.06
    correlation = torch.corrcoef(torch.cat([noise.flatten(1), logit[:, None]], dim=1).T)
    assert (correlation - torch.eye(5)).abs().max() < 0.12


def test_levels_are_uniform_if_asked() -> None:
    assert stats.kstest(levels(times="uniform").numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_shift_moves_times_as_the_paper_says(times: str, shift: float) -> None:
    noise_level = 1 - levels(times=times).double()  # the paper's t is 1 at noise
    expected = shift * noise_level / (1 + (shift - 1) * noise_level)  # Eq. 23
    shifted = 1 - levels(times=times, shift=shift).double()
    torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-5)


def test_all_answers_mean_the_same_data() -> None:
    """Each answer of a perfect network is read as the same data, from the same state."""
    read: list[Tensor] = []
    for predict in PREDICT:
        case = flow(predict=predict)
        made = case.corrupted()
        assert isinstance(made.target, Tensor)
        read.append(case.objective.data_prediction(made.target, made.state))
    for data in read:
        torch.testing.assert_close(data, flow().clean().values, rtol=1e-4, atol=1e-4)


def test_imperfect_answers_convert_into_each_other() -> None:
    """A network that is wrong about the data is as wrong through velocity, data or noise."""
    case = flow(predict="data")
    state = case.corrupted().state
    wrong = case.clean().values + 0.3 * case.rng("error").normal(*GRID, 4)
    level = state.level[:, None, None, None, None]
    noise = (state.latents.values - level * wrong) / (1 - level)
    answers = {"velocity": wrong - noise, "data": wrong, "noise": noise}
    for predict, answer in answers.items():
        found = flow(predict=predict).objective.data_prediction(answer, state)
        torch.testing.assert_close(found, wrong, rtol=1e-4, atol=1e-4)


def test_at_pure_noise_the_noise_tells_nothing_and_the_mean_is_taken() -> None:
    case = flow(predict="noise")
    start = case.objective.start(case.clean(), case.given(0.0), case.rng("start"))
    data = case.objective.data_prediction(start.latents.values, start)
    assert torch.equal(data, torch.zeros_like(data))


def test_it_works_on_the_values_of_codes() -> None:
    made = Case("flow", SPECS["fsq"], GRID).corrupted()
    assert made.state.latents.codes is None, "codes of noised values would be a lie"
    assert made.state.latents.values.isfinite().all()


@pytest.mark.parametrize("wrong", [{"shift": 0.0}, {"predict": "v"}, {"times": "normal"}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OBJECTIVES.config({"name": "flow", **wrong})
