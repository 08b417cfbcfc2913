"""Rank correlation over runs and their checkpoints, and the points that go into it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from studio import BITS, NOVEL, Studio

from vidcomp.report import lengths
from vidcomp.report.collect import ScoredRun, collect_run, worlds
from vidcomp.report.correlation import rank_correlation
from vidcomp.report.records import ScoreRecord

POINTS = [(0.3, 1.0), (0.1, 0.2), (0.9, 0.4), (0.9, 0.5), (0.2, 0.8), (0.4, 0.7)]


def test_it_is_spearmans() -> None:
    rising = [[(x, math.exp(x))] for x in (0.1, 0.5, 0.7, 2.0, 3.0)]
    assert rank_correlation(rising) == pytest.approx((1.0, 1.0, 1.0))
    falling = [[(x, -y) for x, y in run] for run in rising]
    assert rank_correlation(falling).rho == pytest.approx(-1)
    x, y = [x for x, _ in POINTS], [y for _, y in POINTS]
    theirs = stats.pearsonr(stats.rankdata(x), stats.rankdata(y))[0]
    found = rank_correlation([[point] for point in POINTS])
    assert found.rho == pytest.approx(theirs) and found.low < found.rho < found.high
    assert math.isnan(rank_correlation([[point] for point in POINTS[:3]]).rho)


def test_runs_are_resampled_and_not_their_points() -> None:
    """Copies of a point tell nothing new, however many; three runs are three."""
    once = rank_correlation([[point] for point in POINTS])
    often = rank_correlation([[point] * 5 for point in POINTS])
    assert often == pytest.approx(once)
    taken_apart = rank_correlation([[point] for point in POINTS * 5])
    assert taken_apart.high - taken_apart.low < 0.6 * (once.high - once.low)
    assert math.isnan(rank_correlation([POINTS, POINTS, POINTS]).rho)
    assert rank_correlation([*([point] for point in POINTS), []]) == once


def score(value: float) -> ScoreRecord:
    return ScoreRecord(value=value, low=value, high=value, n=1)


def trial(value: float, **asked: Any) -> dict[str, Any]:
    named = {"set": {}, "weights": "averaged", "levels": [], "cells": [], **asked}
    scores = {lengths.AREA: score(value).model_dump()}
    return {"asked": named, "joint": {}, "scores": scores}


def run_of(studio: Studio, seed: int, trials: dict[str, Any]) -> ScoredRun:
    """Leaks less, and finds more, from checkpoint to checkpoint, and from seed to seed."""
    run = collect_run(studio.generator(f"flow-s{seed}", objective="flow", seed=seed))
    assert isinstance(run, ScoredRun)
    steps = {"": 0.1, "step-50/": 0.2, "step-80/": 0.15}
    leaks = {
        f"{prefix}{source}/{level}/leakage": score(leak + seed / 100 + level)
        for prefix, leak in steps.items()
        for source in ("network", "untrained")
        for level in (0.5, 0.1)
    }
    counted = {lengths.AREA: score(0.9 - seed / 100)}
    scores = {**run.scores, lengths.LOCALITY: leaks, lengths.COUNTING: counted}
    return replace(run, scores=scores, beside={"trials": trials})


def test_a_point_is_a_checkpoint_that_has_both(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BITS, NOVEL, 2)
    early = {
        "early": trial(0.5, checkpoint=50, set={"clips_per_level": 9}),
        "composed": trial(0.7, checkpoint=80, set={"compose": "objects"}),
        "raw": trial(0.7, checkpoint=80, weights="raw"),
        "of no leakage": trial(0.7, checkpoint=60),
        "of the last": trial(0.7),
    }
    runs = [run_of(studio, 0, early), *(run_of(studio, seed, {}) for seed in range(1, 5))]
    (world,) = worlds(runs)
    found = lengths.together(world)
    assert found is not None and (found.runs, found.checkpoints) == (5, 6)
    assert found.picture.title.startswith("each point is a run, 5 in all; small ones are older")
    assert "5 runs, 6 checkpoints" in found.picture.alt
    assert found.last.rho == pytest.approx(-1) and found.correlation.rho == pytest.approx(-1)
    (before,) = worlds(runs[1:])
    found = lengths.together(before)
    assert found is not None and (found.runs, found.checkpoints) == (4, 4)
    assert found.correlation == found.last and "checkpoint" not in found.picture.alt
