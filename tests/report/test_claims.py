"""The verdict rule in closed form, its hostile cases, and what a claim is decided on."""

import math
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import scipy.stats
from pydantic import ValidationError
from studio import Studio

from vidcomp.report.claims import Asked, Claim, Measure, judge, judge_claims, measured
from vidcomp.report.page import write_report
from vidcomp.report.questions import Place, Questions
from vidcomp.report.records import LevelRecord, RunRecord, ScoreRecord, TuningRecord
from vidcomp.report.rule import Interval, decide, t_interval, together
from vidcomp.report.verdicts import claim_rows

ASKED = Asked(200, ("a", "b", "c"))


def score(value: float | None, n: int = 200, chance: float | None = None) -> ScoreRecord:
    return ScoreRecord(value=value, low=0.0, high=1.0, n=n, chance=chance)


def run(cell: str, seed: int, value: float | None, *, n: int = 200, **more: Any) -> RunRecord:
    """A scored run; `value` is its joint accuracy on level-2."""
    level = LevelRecord(joint=score(value, n), per_factor={}, per_frame=[])
    fields: dict[str, Any] = {
        "name": f"{cell}-s{seed}",
        "cell": cell,
        "world": "w",
        "seed": seed,
        "steps": 1000,
        "scores": {"level-2": level},
    }
    return RunRecord(**(fields | more))


def claim(**changes: Any) -> Claim:
    raw = {"text": "a beats b", "higher": ["a"], "lower": ["b"], "min_effect": 0.1}
    return Claim.model_validate(raw | changes)


def verdict_of(runs: list[RunRecord], **changes: Any) -> str:
    (found,) = judge_claims({"1": claim(**changes)}, runs, {"w": ASKED})
    return found.verdict


def both(ours: list[float], theirs: list[float]) -> list[RunRecord]:
    return [run("a", s, v) for s, v in enumerate(ours)] + [
        run("b", s, v) for s, v in enumerate(theirs)
    ]


class TestInterval:
    def test_it_is_that_of_scipy(self) -> None:
        values = [0.1, 0.32, -0.05, 0.4, 0.21]
        theirs = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert t_interval(values)[1:] == pytest.approx((theirs.low, theirs.high), rel=1e-12)

    def test_two_values_in_closed_form(self) -> None:
        """t(0.975, 1) = tan(0.475 pi), and s / sqrt(2) is half the distance."""
        mean, low, high = t_interval([0.2, 0.4])
        half = math.tan(0.475 * math.pi) * 0.1
        assert (mean, low, high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))

    def test_it_moves_and_scales_with_the_values(self) -> None:
        plain = t_interval([0.0, 1.0, 3.0])
        moved = t_interval([2 * x + 5 for x in (0.0, 1.0, 3.0)])
        assert moved == pytest.approx([2 * x + 5 for x in plain])

    @pytest.mark.parametrize("values", [[], [0.7]])
    def test_fewer_than_two_have_none(self, values: list[float]) -> None:
        assert math.isnan(t_interval(values).low) and math.isnan(t_interval(values).high)

    def test_without_variance_it_is_a_point(self) -> None:
        assert t_interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.11, 0.3, "reproduced"),
        (-0.3, 0.09, "not reproduced"),
        (0.05, 0.3, "not decided"),
        (0.1, 0.3, "not decided"),  # touches the effect from above
        (-0.3, 0.1, "not decided"),  # and from below
        (0.1, 0.1, "not decided"),
        (math.nan, math.nan, "not decided"),
        (-math.inf, math.inf, "not decided"),
    ],
)
def test_the_rule(low: float, high: float, verdict: str) -> None:
    assert decide(Interval(0.2, low, high), 0.1) == verdict


def test_comparisons_together() -> None:
    yes, no, unknown = "reproduced", "not reproduced", "not decided"
    assert together([yes, yes]) == yes
    assert together([yes, unknown]) == unknown
    assert together([yes, unknown, no]) == no
    assert together([]) == unknown


class TestVerdicts:
    def test_pairs_are_by_seed_not_by_mean(self) -> None:
        """The seeds differ by far more than the cells; only their pairs tell."""
        theirs = [0.0, 0.3, 0.6, 0.1]
        ours = [v + 0.2 + d for v, d in zip(theirs, (0.01, -0.01, 0.02, 0.0), strict=True)]
        assert verdict_of(both(ours, theirs)) == "reproduced"
        shuffled = both([ours[1], ours[2], ours[3], ours[0]], theirs)
        assert verdict_of(shuffled) == "not decided"

    def test_a_claim_that_fails_is_reported_as_failing(self) -> None:
        assert verdict_of(both([0.1, 0.12, 0.11], [0.4, 0.39, 0.42])) == "not reproduced"
        assert verdict_of(both([0.0] * 5, [0.0] * 5)) == "not reproduced"

    def test_zero_variance_at_the_effect_itself(self) -> None:
        assert verdict_of(both([0.5] * 3, [0.25] * 3), min_effect=0.25) == "not decided"

    def test_one_seed_decides_nothing(self) -> None:
        runs = both([0.9], [0.0])
        assert verdict_of(runs) == "not decided"
        assert judge(claim(), ("a", "b"), runs, ASKED).notes == ["1 pair of seeds"]

    def test_seeds_that_are_not_paired_do_not_count(self) -> None:
        runs = [run("a", 0, 0.9), run("a", 1, 0.9), run("b", 1, 0.0), run("b", 2, 0.0)]
        found = judge(claim(), ("a", "b"), runs, ASKED)
        assert found.seeds == [1] and found.verdict == "not decided"

    def test_a_failed_run_is_left_out_and_told(self) -> None:
        failed = RunRecord(name="a-s2", cell="a", world="w", seed=2, reason="out of memory")
        runs = [*both([0.8, 0.82], [0.1, 0.11]), failed, run("b", 2, 0.1)]
        found = judge(claim(), ("a", "b"), runs, ASKED)
        assert found.seeds == [0, 1] and found.notes == ["a-s2: out of memory"]
        assert found.verdict == "reproduced"

    def test_a_number_that_is_none_is_no_zero(self) -> None:
        runs = [*both([0.8, 0.82], [0.1, 0.11]), run("a", 2, math.nan), run("b", 2, 0.1)]
        found = judge(claim(), ("a", "b"), runs, ASKED)
        assert found.seeds == [0, 1] and found.notes == ["a-s2: no number"]

    def test_a_cell_that_is_not_there(self) -> None:
        found = judge(claim(lower=["d"]), ("a", "d"), both([0.8, 0.9], []), ASKED)
        assert found.verdict == "not decided" and found.mean is None
        assert "d is not part of this study at this size" in found.notes

    def test_fewer_samples_than_asked(self) -> None:
        runs = [run(cell, s, v, n=64) for cell, v in (("a", 0.9), ("b", 0.1)) for s in range(3)]
        assert verdict_of(runs) == "not decided"
        (note, *_) = judge(claim(), ("a", "b"), runs, ASKED).notes[1:]
        assert note == "64 samples of level-2, 200 were asked for (6 runs)"

    def test_late_claims_wait_for_their_steps(self) -> None:
        runs = both([0.9, 0.91, 0.9], [0.1, 0.1, 0.12])
        assert verdict_of(runs, after_steps=1000) == "reproduced"
        assert verdict_of(runs, after_steps=1001) == "not decided"
        notes = judge(claim(after_steps=50_000), ("a", "b"), runs, ASKED).notes
        assert "trained 1,000 steps, the claim is about 50,000 and more (6 runs)" in notes

    def test_all_comparisons_must_hold(self) -> None:
        runs = both([0.9, 0.92, 0.91], [0.1, 0.1, 0.12])
        thirds = [run("c", s, v) for s, v in enumerate((0.9, 0.9, 0.92))]
        assert verdict_of([*runs, *thirds], higher=["a", "c"]) == "reproduced"
        worse = [run("c", s, v) for s, v in enumerate((0.0, 0.02, 0.01))]
        assert verdict_of([*runs, *worse], higher=["a", "c"]) == "not reproduced"

    def test_alike_is_two_comparisons_and_needs_a_floor(self) -> None:
        alike = {"higher": ["a", "b"], "lower": ["a", "b"], "min_effect": -0.15}
        assert len(claim(**alike).pairs) == 2
        assert verdict_of(both([0.8, 0.82, 0.81], [0.8, 0.79, 0.8]), **alike) == "reproduced"
        assert verdict_of(both([0.8, 0.82, 0.81], [0.2, 0.2, 0.22]), **alike) == "not reproduced"
        nothing = both([0.0] * 3, [0.01, 0.0, 0.0])
        assert verdict_of(nothing, **alike) == "reproduced"
        assert verdict_of(nothing, **alike, floor=0.25) == "not decided"

    def test_worlds_are_judged_apart(self) -> None:
        runs = both([0.9, 0.92], [0.1, 0.1])
        others = [r.model_copy(update={"world": "v"}) for r in both([0.1, 0.1], [0.9, 0.92])]
        found = judge_claims({"1": claim()}, [*runs, *others], {"w": ASKED, "v": ASKED})
        verdicts = {f.world: f.verdict for f in found}
        assert verdicts == {"w": "reproduced", "v": "not reproduced"}
        only = judge_claims({"1": claim(worlds=["v"])}, runs, {"w": ASKED})
        assert only == []


class TestMeasures:
    def of(self, measure: dict[str, Any], **more: Any) -> float | str:
        return measured(run("a", 0, 0.5, **more), claim(measure=measure), ASKED)

    @pytest.mark.parametrize(
        ("values", "emerged"),
        [
            ([0.1, 0.6, 0.7, 0.9], 0.5),
            ([0.6, 0.7, 0.8, 0.9], 0.25),
            ([0.6, 0.5, 0.8, 0.9], 0.75),  # 50 % is not above it
            ([0.9, 0.9, 0.9, 0.6], 0.25),
        ],
    )
    def test_emergence_is_for_good(self, values: list[float], emerged: float) -> None:
        curve = [(10.0 * (k + 1), value) for k, value in enumerate(values)]
        assert self.of({"of": "emergence"}, curves={"level-2": curve}) == emerged

    def test_what_does_not_emerge_has_no_time(self) -> None:
        curves = {"level-2": [(10.0, 0.9), (20.0, 0.4)]}
        assert self.of({"of": "emergence"}, curves=curves) == "level-2 does not stay above 50%"

    def test_peaks_and_jumps(self) -> None:
        curves = {"level-2": [(1.0, 0.1), (2.0, 0.2), (3.0, 0.8), (4.0, 0.3)]}
        assert self.of({"of": "peak_minus_last"}, curves=curves) == pytest.approx(0.5)
        assert self.of({"of": "jump"}, curves=curves) == pytest.approx(0.6)
        assert self.of({"of": "jump"}) == "no curve of level-2"

    def test_fallback_is_less_its_chance(self) -> None:
        found = self.of({"of": "fallback"}, fallback={"level-2": score(0.9, 30, chance=0.5)})
        assert found == pytest.approx(0.4)
        none = self.of({"of": "fallback"}, fallback={"level-2": score(math.nan, 0, chance=0.5)})
        assert none == "no failure on level-2 to look at"

    def test_a_probe_that_was_not_asked(self) -> None:
        measure = {"of": "probe", "probe": "heads", "score": "network/overall"}
        assert self.of(measure) == "not measured in these runs (probe heads)"
        probes = {"heads": {"network/overall": score(0.6)}}
        assert self.of(measure, probes=probes) == 0.6

    @pytest.mark.parametrize("raw", [{"of": "probe"}, {"probe": "heads", "score": "x"}])
    def test_a_probe_is_named_with_its_score(self, raw: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="takes 'score', and 'probe' or"):
            Measure.model_validate(raw)


class Balanced(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br", "link", "input", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_rule_verdict_and_reason(studio: Callable[..., Studio]) -> None:
    made = studio()
    names = {"a": ("maskgit", 0.9), "b": ("flow", 0.1)}
    folders, places = [], {}
    for cell, (objective, errors) in names.items():
        for seed in (0, 1):
            folder = made.generator(
                f"{cell}-s{seed}", objective=objective, seed=seed, errors=errors
            )
            folders.append(folder)
            places[folder.name] = Place("w", cell, seed, {"trunk": 10, "ends": 2})
    claims = {
        "1": claim(text="flow beats maskgit", higher=["b"], lower=["a"], paper="99 %"),
        "2": claim(measure={"of": "probe", "probe": "heads", "score": "network/overall"}),
        "7": claim(after_steps=50_000),
    }
    tuning = [TuningRecord(world="w", value="a", chosen={"k": 1}, seen=0.5, num_trials=3)]
    questions = Questions(places, claims, {"w": Asked(12, ("a", "b"))}, tuning, ["c: too long"])
    page = write_report(
        made.root / "report",
        study="made up",
        runs=folders,
        tokenizers=[],
        probes=[],
        commands=[],
        wall_s=1.0,
        questions=questions,
    )
    text = " ".join(Balanced(page.read_text()).text.split())
    assert "Nothing is decided with fewer than two pairs" in text
    assert "flow beats maskgit" in text and "paper: 99 %" in text
    assert "not measured in these runs (probe heads) (4 runs)" in text
    assert "trained 100 steps, the claim is about 50,000 and more" in text
    assert "c: too long" in text and "k=1" in text
    assert page.read_text().count('class="text verdict') == 3


def test_dots_and_intervals_stay_on_their_strip() -> None:
    runs = both([1.0, 0.0], [0.0, 1.0])
    (row,) = claim_rows(judge_claims({"1": claim()}, runs, {"w": ASKED}))
    (strip,) = row.strips
    assert strip.dots == (100.0, 0.0) and (strip.low, strip.high) == (0.0, 100.0)
