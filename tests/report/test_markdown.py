"""The tables for a README are made of report.json, and those in the README still are."""

import json
from pathlib import Path

import pytest

from vidcomp.report.claims import Asked, Claim, judge_claims
from vidcomp.report.markdown import accuracies, claims, markdown
from vidcomp.report.records import (
    REAL,
    RECONSTRUCTION,
    CeilingRecord,
    LevelRecord,
    ReportRecord,
    RunRecord,
    ScoreRecord,
)
from vidcomp.report.rule import t_interval

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("assets/*_study.json"))


def score(value: float | None, low: float = 0.0) -> ScoreRecord:
    return ScoreRecord(value=value, low=low, high=1.0, n=200)


def run(cell: str, seed: int, value: float | None, unreadable: float | None = None) -> RunRecord:
    unread = None if unreadable is None else score(unreadable)
    level = LevelRecord(joint=score(value), per_factor={}, per_frame=[], unreadable=unread)
    ceiling = {"level-2": CeilingRecord(joint=score(1.0, low=0.98))}
    return RunRecord(
        name=f"{cell}-s{seed}",
        cell=cell,
        world="w",
        seed=seed,
        steps=1000,
        scores={"level-2": level},
        tokenizer="fsq" if cell == "a" else "kl",
        ceilings={REAL: ceiling, RECONSTRUCTION: ceiling},
    )


def record(runs: list[RunRecord], **claim: object) -> ReportRecord:
    asked = {"text": "a beats b", "higher": ["a"], "lower": ["b"], "min_effect": 0.1} | claim
    judged = judge_claims({"1": Claim.model_validate(asked)}, runs, {"w": Asked(200, ("a", "b"))})
    return ReportRecord(
        study="s", commit="c", device="d", versions={}, wall_s=1.0, runs=runs, claims=judged
    )


ours, theirs = [0.5, 0.6, 0.7], [0.1, 0.1, 0.25]
RUNS = [
    *(run("a", s, v, 0.2) for s, v in enumerate(ours)),
    *(run("b", s, v) for s, v in enumerate(theirs)),
]


def test_a_cell_is_the_mean_of_its_seeds_with_their_interval() -> None:
    mean, low, high = t_interval(ours)
    *_, row, other = accuracies(record(RUNS), "w").splitlines()
    assert row == f"| a (3) | {mean:.0%} [{low:.0%}, {high:.0%}] | 20% [20%, 20%] |"
    assert other.endswith("| – |"), "scores from before unreadable frames were counted"


def test_a_ceiling_has_the_interval_of_its_clips_which_all_seeds_share() -> None:
    _, _, *ceilings, _, _ = accuracies(record(RUNS), "w").splitlines()
    names = ("real clips", "reconstructed by fsq", "reconstructed by kl")
    assert ceilings == [f"| ceiling: {name} | 100% [98%, 100%] |  |" for name in names]


def test_intervals_of_shares_end_at_0_and_1() -> None:
    runs = [run("a", s, v) for s, v in enumerate([0.0, 0.02, 0.5])]
    assert "[0%," in accuracies(record(runs), "w")
    assert t_interval([0.0, 0.02, 0.5]).low < 0


def test_one_seed_has_its_own_interval_and_no_number_is_a_dash() -> None:
    (*_, row) = accuracies(record([run("a", 0, 0.5)]), "w").splitlines()
    assert row.startswith("| a (1) | 50% [0%, 100%] |")
    (*_, row) = accuracies(record([run("a", 0, None)]), "w").splitlines()
    assert row.startswith("| a (1) | – |")


def test_a_claim_stands_with_its_difference_and_the_computed_verdict() -> None:
    made = record(RUNS)
    (found,) = made.claims[0].comparisons
    text = claims(made)
    assert f"a − b: {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]" in text
    assert text.count(f"**{made.claims[0].verdict}**") == 1


def test_what_could_not_be_compared_says_why() -> None:
    text = claims(record(RUNS[:3]))
    assert "0 pairs of seeds" in text and "**not decided**" in text and "nan" not in text


def test_every_line_of_a_table_has_as_many_cells() -> None:
    for table in markdown(record(RUNS)).split("\n\n"):
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1


def test_runs_that_are_no_cells_of_a_study_have_no_tables() -> None:
    alone = RUNS[0].model_copy(update={"cell": None, "world": None})
    made = record([])
    assert markdown(made.model_copy(update={"runs": [alone], "claims": []})) == ""


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_tables_in_the_readme_are_those_of_the_study(path: Path) -> None:
    made = ReportRecord.model_validate(json.loads(path.read_text()))
    readme, worlds = (ROOT / "README.md").read_text(), {run.world for run in made.runs}
    for table in (claims(made), *(accuracies(made, world) for world in worlds if world)):
        assert table in readme
