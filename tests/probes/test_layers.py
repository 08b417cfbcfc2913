"""Linear probes and additivity, on hidden states that were made of known parts."""

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_network import FACTORS, SPLIT, Toy, balanced, clips_of, found_by, noise, signs

from vidcomp.config import UserError
from vidcomp.probes.base import Score, Subject
from vidcomp.probes.layers import Config, ridge
from vidcomp.world.factors import Factors

CLASSES = balanced(40)
BASIS = torch.linalg.qr(noise(12, 12))[0]
PAIRS = ("shape+colour", "shape+motion", "colour+motion")


def parts(classes: Tensor = CLASSES) -> dict[str, Tensor]:
    """Every factor's sign, and the XOR of the first two."""
    s = signs(classes)
    return {"shape": s[:, 0], "colour": s[:, 1], "motion": s[:, 2], "xor": s[:, 0] * s[:, 1]}


def states(classes: Tensor = CLASSES, **lengths: float) -> Tensor:
    """An orthogonal direction for each part, so long."""
    return torch.stack([lengths.get(k, 0.0) * p for k, p in parts(classes).items()], 1) @ BASIS[:4]


def look(*layers: Tensor, classes: Tensor = CLASSES) -> dict[str, Score]:
    return found_by(Config().build(FACTORS), Toy(torch.stack(layers, dim=1)), classes)


def test_factors_that_add_up_leave_nothing_over() -> None:
    found = look(states(shape=1, colour=2, motion=0.5) + 7)
    for pair in PAIRS:
        score = found[f"layer/0/additivity/{pair}"]
        assert score.value == pytest.approx(0, abs=1e-9)
        assert score.chance is not None and score.chance > 0.05 and score.n == len(CLASSES)
        assert 0 <= score.low <= score.value <= score.high < 1e-6
    for name in FACTORS.names:
        assert found[f"layer/0/factor/{name}"].value == 1.0


def test_xor_is_all_interaction_and_no_linear_probe_reads_it() -> None:
    found = look(states(xor=1.0) + 0.1 * noise(len(CLASSES), 12))
    assert found["layer/0/additivity/shape+colour"].value == pytest.approx(1, abs=0.01)
    for name in ("shape", "colour"):
        score = found[f"layer/0/factor/{name}"]
        assert score.low < 0.5 < score.high


def test_the_share_is_that_of_the_squared_lengths() -> None:
    found = look(states(shape=3, colour=2, xor=1, motion=5))
    assert found["layer/0/additivity/shape+colour"].value == pytest.approx(1 / 14)
    assert found["layer/0/additivity/shape+motion"].value == pytest.approx(0, abs=1e-9)


def test_noise_has_the_interaction_of_chance_and_cannot_be_read() -> None:
    """Of the 3 degrees of freedom of 4 cells, 1 is interaction."""
    found = look(*noise(30, len(CLASSES), 12).unbind(0))
    shares = torch.tensor([found[f"layer/{i}/additivity/{PAIRS[0]}"].value for i in range(30)])
    assert float(shares.mean()) == pytest.approx(1 / 3, abs=0.06)
    chances = [found[f"layer/{i}/additivity/{PAIRS[0]}"].chance for i in range(30)]
    assert np.mean(np.array(chances, dtype=float)) == pytest.approx(1 / 3, abs=0.03)
    read = [found[f"layer/{i}/factor/shape"] for i in range(30)]
    assert np.mean([score.value for score in read]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(np.array([s.chance for s in read], dtype=float)) == pytest.approx(0.5, abs=0.02)


def test_what_was_learned_by_heart_does_not_count() -> None:
    """More channels than clips: the fit is perfect, on clips that do not count."""
    found = look(noise(len(CLASSES), 1000))
    assert all(found[f"layer/0/factor/{name}"].value < 0.62 for name in FACTORS.names)
    assert found["layer/0/factor/shape"].n == len(CLASSES) // 2


def test_each_layer_has_its_own_answer() -> None:
    found = look(states(shape=1) + 0.3 * noise(len(CLASSES), 12), states(colour=1))
    right = {
        (layer, name): found[f"layer/{layer}/factor/{name}"].value > 0.95
        for layer in (0, 1)
        for name in ("shape", "colour")
    }
    assert [key for key, is_right in right.items() if is_right] == [(0, "shape"), (1, "colour")]


def test_a_factor_of_three_classes_on_a_line_is_read() -> None:
    from vidcomp.world.concepts import choose

    factors = choose({"colour": ["red", "green", "blue"], "shape": ["circle", "square"]})
    classes = factors.combinations().repeat(30, 1)
    corners = torch.eye(3)[classes[:, 0]] @ BASIS[:3] + 0.05 * noise(len(classes), 12)
    found = found_by(Config().build(factors), Toy(corners[:, None]), classes)
    colour = found["layer/0/factor/colour"]
    assert colour.value == 1.0 and colour.chance == pytest.approx(1 / 3, abs=0.12)
    assert found["layer/0/additivity/colour+shape"].value < 0.05


def test_intervals_cover_the_share_of_many_clips() -> None:
    """Of 40 draws of clips, 95 % of the intervals should hold what infinitely many would give."""
    lengths = {"shape": 1.0, "colour": 1.0, "xor": 0.7}
    noisy = [states(**lengths) + 0.5 * noise(len(CLASSES), 12, seed=i) for i in range(40)]
    found = look(*noisy)
    truth = 0.7**2 / (2 + 0.7**2)
    scores = [found[f"layer/{i}/additivity/shape+colour"] for i in range(40)]
    assert sum(s.low <= truth <= s.high for s in scores) >= 34


def test_ridge_is_least_squares_with_rows_for_the_penalty() -> None:
    x, y, fresh = noise(30, 7).double(), noise(30, 2, seed=1).double(), noise(5, 7, seed=2).double()
    z, w = ((a - x.mean(0)) / x.std(0) for a in (x, fresh))
    penalty = np.sqrt(0.01 * 30) * np.eye(7)
    rows = np.concatenate([z.numpy(), penalty])
    goals = np.concatenate([(y - y.mean(0)).numpy(), np.zeros((7, 2))])
    solved = torch.from_numpy(np.linalg.lstsq(rows, goals, rcond=None)[0])
    torch.testing.assert_close(ridge(x, y, fresh), w @ solved + y.mean(0))


def test_the_network_is_told_nothing_at_the_level_that_was_asked() -> None:
    toy = Toy(states(shape=1)[:, None])
    found_by(Config(level=0.3).build(FACTORS), toy, CLASSES)
    assert toy.asked == [("hidden", 0.3, False)]


def test_a_pair_that_too_few_clips_show_is_left_out() -> None:
    lacking = CLASSES[~((CLASSES[:, 0] == 1) & (CLASSES[:, 1] == 1))]
    found = look(states(lacking, shape=1), classes=lacking)
    assert "layer/0/additivity/shape+colour" not in found
    assert {"layer/0/additivity/shape+motion", "layer/0/factor/shape"} <= found.keys()


def test_too_few_clips_and_no_factors_are_said() -> None:
    with pytest.raises(UserError, match="on 3 clips; give it more"):
        look(states()[:3], classes=CLASSES[:3])
    nothing = Config().build(Factors(()))
    subject = Subject({"real": clips_of(CLASSES)}, SPLIT, model=Toy(states()[:, None]))
    with pytest.raises(UserError, match="no factors"):
        nothing.run(subject)
