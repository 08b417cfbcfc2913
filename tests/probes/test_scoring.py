"""Scores: intervals agree with scipy, a perfect reader scores 1, a blind one scores chance."""

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import (
    UNREADABLE,
    ClipSet,
    Findings,
    Subject,
    agreement,
    mean_score,
    proportion,
)
from vidcomp.seeding import Rng
from vidcomp.world.concepts import SHAPES, choose
from vidcomp.world.factors import Factors
from vidcomp.world.splits import SplitConfig

FACTORS = choose(
    {"shape": ("circle", "square"), "colour": ("red", "blue"), "motion": ("up", "down")}
)
CLASSES = FACTORS.combinations().repeat(250, 1)


def clips(classes: torch.Tensor) -> ClipSet:
    """Black clips that are said to show `classes`."""
    return ClipSet(torch.zeros(len(classes), 3, 2, 8, 8), classes, FACTORS.prototypes(classes))


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 40), (40, 40), (1, 1), (7, 40), (399, 400)])
def test_wilson_agrees_with_scipy(hits: int, n: int) -> None:
    score = proportion(torch.arange(n) < hits, chance=0.25)
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (score.value, score.n, score.chance) == (hits / n, n, 0.25)
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.high > score.low  # all right is no proof: the interval stays open


def test_no_clips_is_no_number() -> None:
    score = proportion(torch.zeros(0, dtype=torch.bool))
    assert score.n == 0 and all(math.isnan(x) for x in score[:3])
    assert math.isnan(mean_score(torch.zeros(0)).value)


def test_shares_are_no_surer_than_coins_of_the_same_mean() -> None:
    shares = Rng.make(0, "shares", torch.arange(200)).uniform(1)[:, 0]
    wilson, student = proportion(shares), mean_score(shares)
    assert wilson.value == pytest.approx(student.value)
    assert wilson.high - wilson.low > student.high - student.low


def test_mean_agrees_with_scipy() -> None:
    values = Rng.make(0, "values", torch.arange(30)).normal(1)[:, 0]
    score = mean_score(values)
    expected = stats.ttest_1samp(values.double().numpy(), 0).confidence_interval(0.95)
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    one = mean_score(values[:1])
    assert one.value == pytest.approx(float(values[0])) and math.isnan(one.low)


def test_a_perfect_reader_scores_one() -> None:
    scores = base.score_verdicts(CLASSES[:, None].repeat(1, 5, 1), CLASSES, FACTORS)
    assert scores.pop("unreadable").value == 0
    assert all(score.value == 1 and score.n == len(CLASSES) for score in scores.values())
    assert {"joint", "frames", "factor/motion", "frame/4"} <= scores.keys()
    assert scores["joint"].chance == 1 / 8 and scores["factor/motion"].chance == 1 / 2


def test_a_blind_reader_scores_chance() -> None:
    guesses = CLASSES[torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(0))]
    scores = base.score_verdicts(guesses[:, None], CLASSES, FACTORS)
    assert scores.pop("unreadable").chance is None  # guessing is no way to read nothing
    for score in scores.values():
        assert score.chance is not None
        assert score.value == pytest.approx(score.chance, abs=0.04)  # n = 2000: 4 standard errors


def test_one_wrong_frame_spoils_the_joint_score_but_not_the_mean_over_frames() -> None:
    verdicts = CLASSES[:, None].repeat(1, 4, 1)
    verdicts[0, 2, 1] = UNREADABLE
    scores = base.score_verdicts(verdicts, CLASSES, FACTORS)
    n = len(CLASSES)
    assert scores["joint"].value == scores["factor/colour"].value == scores["frame/2"].value
    assert scores["joint"].value == pytest.approx(1 - 1 / n)
    assert scores["frames"].value == pytest.approx(1 - 1 / (4 * n))
    assert scores["factor/shape"].value == scores["frame/0"].value == 1
    assert scores["unreadable"].value == 0  # its shape was read
    verdicts[0, 2] = UNREADABLE
    scores = base.score_verdicts(verdicts, CLASSES, FACTORS)
    assert scores["unreadable"].value == pytest.approx(1 / (4 * n))


def test_rows_by_level_is_a_partition_in_order() -> None:
    split = SplitConfig(
        novel={"shape": ("square",), "colour": ("blue",), "motion": ("down",)}
    ).build(FACTORS)
    rows = base.rows_by_level(split, clips(CLASSES))
    assert list(rows) == ["seen", "level-1", "level-2"]
    assert torch.equal(torch.stack(list(rows.values())).sum(0), torch.ones(len(CLASSES)).long())
    assert torch.equal(rows["seen"], split.seen(CLASSES, clips(CLASSES).values))
    assert list(base.rows_by_level(split, clips(CLASSES[rows["level-2"]]))) == ["level-2"]


@pytest.mark.parametrize("name", ["factors", "oracle"])
def test_without_factors_there_is_nothing_to_judge(name: str) -> None:
    with pytest.raises(UserError, match="no factors, so a judge has nothing to read"):
        base.PROBES.config(name).build(Factors(()))


def test_rows_by_level_look_at_the_clips_own_numbers() -> None:
    sized = choose({"size": ("large", "small")})
    split = SplitConfig(novel={"size": "x < 0.19"}, max_novel=0).build(sized)
    values = torch.tensor([0.18, 0.2, 0.28]).reshape(3, 1, 1)
    classes = torch.tensor([[1], [1], [0]])
    rows = base.rows_by_level(split, ClipSet(torch.zeros(3, 3, 1, 8, 8), classes, values))
    assert {level: of_level.tolist() for level, of_level in rows.items()} == {
        "seen": [False, True, True],
        "level-1": [True, False, False],
    }


def test_agreement_is_symmetric_by_level_and_unreadable_agrees_with_nothing() -> None:
    novel = {"shape": ("square",), "colour": ("blue",)}
    classes = CLASSES[[0, 1, 2, 7]]  # three seen ones, and a blue square
    subject = Subject(
        {"real": clips(classes)},
        SplitConfig(novel=novel).build(FACTORS),
    )
    verdicts = classes[:, None].repeat(1, 2, 1)
    other = verdicts.clone()
    other[0, 1, 2] = 1 - other[0, 1, 2]
    blind = verdicts.clone()
    blind[0, 0, 0] = UNREADABLE
    one, two, three = (Findings(arrays={"real/verdicts": v}) for v in (verdicts, other, blind))

    def shares(a: Findings, b: Findings) -> dict[str, float]:
        return {key: score.value for key, score in agreement(a, b, subject).items()}

    assert shares(one, one) == {"real/seen": 1, "real/level-1": 1}
    assert shares(one, two) == shares(two, one)
    assert shares(one, two) == pytest.approx({"real/seen": 5 / 6, "real/level-1": 1})
    assert shares(three, three) == pytest.approx({"real/seen": 5 / 6, "real/level-1": 1})
    assert agreement(one, two, subject)["real/seen"].n == 3
    assert shares(one, Findings(arrays={"samples/verdicts": verdicts})) == {}


def test_other_factors_are_refused_by_name_or_by_number() -> None:
    with pytest.raises(UserError, match=r"motion: up, down.*motion: up"):
        base.refuse_other_factors(FACTORS, choose({"motion": ("up",)}))
    colours = choose({"colour": ("red",)})
    other = type(colours).from_json(
        [
            {"name": "colour", "unit": "rgb in [0, 1]", "temporal": False}
            | {
                "classes": [
                    {"name": "red", "prototype": [1.0, 0.0, 0.0], "spread": [0.0, 0.0, 0.0]}
                ]
            }
        ]
    )
    with pytest.raises(UserError, match="numbers behind them do not"):
        base.refuse_other_factors(colours, other)


class Line:
    """Fits y = a x + b to y = 3 x - 1: what `fit` must get right."""

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1)
        nn.init.zeros_(self.network.weight)
        nn.init.zeros_(self.network.bias)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    def found(self) -> list[float]:
        return [p.item() for p in self.parameters()]

    def loss(self, sets: Mapping[str, ClipSet], rng: Rng) -> Tensor:
        x = rng.uniform(1)
        return (self.network(x) - (3 * x - 1)).square()[:, 0]


def test_the_loop_fits_and_is_a_function_of_the_seed() -> None:
    told: list[tuple[int, float]] = []
    one, same, other = Line(), Line(), Line()
    settings = {"steps": 300, "batch_size": 8, "learning_rate": 0.1}
    base.fit(one, {}, **settings, seed=0, progress=lambda step, loss: told.append((step, loss)))
    base.fit(same, {}, **settings, seed=0)
    base.fit(other, {}, **settings, seed=1)
    assert one.found() == pytest.approx([3, -1], abs=0.05)
    assert one.found() == same.found() != other.found()
    assert [step for step, _ in told] == list(range(1, 301)) and told[-1][1] < told[0][1]


def test_factors_that_fail_independently_multiply() -> None:
    """The joint accuracy is near the product of the marginals, clip by clip and frame by frame."""
    draws = Rng.make(0, "errors", torch.arange(len(CLASSES))).bernoulli(0.2, 1, 3)
    verdicts = torch.where(draws, 1 - CLASSES[:, None], CLASSES[:, None])
    scores = base.score_verdicts(verdicts, CLASSES, FACTORS)
    for joint, product in (("joint", "product"), ("frame/0", "frame/0/product")):
        assert scores[product].value == pytest.approx(0.8**3, abs=0.03)
        assert scores[product].low < scores[joint].value < scores[product].high
        assert scores[product].chance == scores[joint].chance and scores[product].n == len(CLASSES)


def test_factors_that_fail_together_leave_the_product_below_the_joint_accuracy() -> None:
    wrong = Rng.make(0, "errors", torch.arange(len(CLASSES))).bernoulli(0.5, 1, 1)
    verdicts = torch.where(wrong, 1 - CLASSES[:, None], CLASSES[:, None])
    scores = base.score_verdicts(verdicts, CLASSES, FACTORS)
    assert scores["joint"].value == pytest.approx(0.5, abs=0.05)
    assert scores["product"].high < scores["joint"].low
    other = torch.arange(len(CLASSES)) % 3  # each clip has one factor wrong: none is right jointly
    verdicts = CLASSES[:, None].repeat(1, 2, 1)
    verdicts[torch.arange(len(CLASSES)), 1, other] = UNREADABLE
    scores = base.score_verdicts(verdicts, CLASSES, FACTORS)
    assert scores["joint"].value == 0 and scores["product"].value == pytest.approx(8 / 27, abs=0.01)


def test_each_combination_has_its_score_unless_there_are_too_many() -> None:
    verdicts = CLASSES[:, None].repeat(1, 2, 1)
    blue_squares = (CLASSES[:, :2] == 1).all(1)
    verdicts[blue_squares, 1, 0] = 0
    scores = base.score_combinations(verdicts, CLASSES, FACTORS)
    assert len(scores) == 8 and all(score.n == 250 for score in scores.values())
    for key, score in scores.items():
        assert score.value == (0 if "square blue" in key else 1) and score.chance == 1 / 8
    few = base.score_combinations(verdicts[:3], CLASSES[:3], FACTORS)
    assert list(few) == [f"combination/circle red {m}" for m in ("up", "down")] + [
        "combination/circle blue up"
    ]
    many = choose({"shape": SHAPES, "colour": COLOURS, "motion": ("up", "down", "left")})
    assert many.num_combinations > 100
    assert base.score_combinations(verdicts, CLASSES, many) == {}


COLOURS = ("red", "blue", "green", "yellow", "magenta", "cyan")
