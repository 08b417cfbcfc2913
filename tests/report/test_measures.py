"""What a report says beside the accuracies: courses, products, combinations, feature spaces."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studio import Studio

from vidcomp.report import measures
from vidcomp.report.claims import emerged_at
from vidcomp.report.collect import ScoredRun, World, collect_run, worlds
from vidcomp.report.page import write_report

MakeStudio = Callable[..., Studio]
ABOUT = {
    "extractor": "own (64 dimensions)",
    "extractor_weights": "abcdef012345",
    "dimensions": 64,
    "clips": "9 frames of 32 x 32, seen as they are",
    "references": {"real": {"clips": 400, "digest": "fedcba543210"}},
}


def score(value: float, *, n: int = 200, flag: str = "") -> dict[str, Any]:
    interval = {"low": value - 0.1, "high": value + 0.1}
    return {"value": value, **interval, "n": n, "chance": None, "flag": flag}


def scored_in_a_space(folder: Path) -> Path:
    """As `tools/probe.py also=[...]` leaves it."""
    path = folder / "scores.json"
    content = json.loads(path.read_text())
    content["features"] = ABOUT
    content["scores"]["retrieval"] = {"samples/seen/first": score(0.75)}
    flagged = score(12.5, n=40, flag="40 clips for 64 dimensions")
    content["scores"]["frechet"] = {
        "real/seen/frechet": score(0.5),
        "samples/seen/frechet": score(1.25),
        "samples/level-2/frechet": flagged,
    }
    at = "seen/combination/circle red right"
    content["scores"]["factors"] |= {
        f"samples/{at}": score(0.4, n=12),
        f"prototype/{at}": score(0.9, n=30),
    }
    path.write_text(json.dumps(content))
    return folder


def world_of(*folders: Path) -> World:
    runs = [run for f in folders if isinstance(run := collect_run(f), ScoredRun)]
    (world,) = worlds(runs)
    return world


@pytest.mark.parametrize(
    "values, step",
    [
        ([0.1, 0.6, 0.7], 2),
        ([0.6, 0.7], 1),
        ([0.6, 0.2, 0.7, 0.9], 3),  # a lucky start does not count
        ([0.1, 0.5], None),  # above, not at
        ([0.9, 0.4], None),  # it did not stay
        ([], None),
    ],
)
def test_a_level_emerges_where_it_stays(values: list[float], step: int | None) -> None:
    assert emerged_at([(k + 1.0, value) for k, value in enumerate(values)]) == step


def test_late_collapse_is_the_best_minus_the_last(studio: MakeStudio) -> None:
    made = studio()
    folder = made.generator("maskgit-s0", seed=0)
    lines = [(100, 0.2), (200, 0.8), (300, 0.9), (400, 0.55)]
    said = [{"step": s, "eval/seen/joint": v, "eval/level-1/joint": v / 2} for s, v in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    (row,) = measures.courses(world_of(folder))
    seen, one, two = row.courses
    assert seen.emerged_at == 200 and seen.lost == pytest.approx(0.35)
    assert one.emerged_at is None and one.lost == pytest.approx(0.175)
    assert two == measures.Course(None, None)


def test_products_stand_beside_joint_accuracies_by_level(studio: MakeStudio) -> None:
    made = studio()
    world = world_of(made.generator("maskgit-s0", seed=0, errors=0.4))
    (row,) = measures.products(world)
    assert len(row.cells) == 3 * len(world.split.level_names)
    for k, level in enumerate(world.split.level_names):
        levels = world.runs[0].levels[level]
        expected = 1.0
        for factor in levels.per_factor.values():
            expected *= factor.value or 0
        assert row.cells[3 * k].value == levels.joint.value
        assert row.cells[3 * k + 1].value == pytest.approx(expected)
        assert levels.unreadable is not None
        assert row.cells[3 * k + 2].value == levels.unreadable.value


def test_combinations_stand_beside_their_ceilings(studio: MakeStudio) -> None:
    folder = scored_in_a_space(studio().generator("maskgit-s0", seed=0))
    (row,) = measures.compositions(world_of(folder))  # the others have no score here
    assert (row.label, row.note) == ("circle red right", "seen")
    assert [cell.value for cell in row.cells] == [None, None, 0.9, 0.4]


def test_the_page_names_the_space_and_flags_what_is_not_to_be_believed(studio: MakeStudio) -> None:
    made = studio()
    folder = scored_in_a_space(made.generator("maskgit-s0", seed=0))
    plain = made.generator("flow-s0", objective="flow", seed=0)
    rows = measures.in_space(world_of(folder, plain))
    assert {(row.run, row.source, row.measure) for row in rows} == {
        ("maskgit-s0", "real", "Frechet distance"),
        ("maskgit-s0", "samples", "Frechet distance"),
        ("maskgit-s0", "samples", "nearest real clip"),
    }
    page = write_report(
        made.root / "report",
        study="of a space",
        runs=[folder, plain],
        tokenizers=[],
        probes=[],
        commands=[],
        wall_s=1.0,
    ).read_text()
    assert "9 frames of 32 x 32, seen as they are, by own (64 dimensions) (abcdef012345" in page
    assert 'class="flagged" title="40 clips for 64 dimensions"' in page
    assert page.count('class="flagged"') == 1 and "75\u202f%" in page


def test_without_such_probes_the_page_has_no_such_table(studio: MakeStudio) -> None:
    world = world_of(studio().generator("maskgit-s0", seed=0))
    assert measures.in_space(world) == measures.compositions(world) == measures.spaces(world) == []
