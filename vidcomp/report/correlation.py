"""Rank correlation of two measures over runs, where a run may give several points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats

from vidcomp.seeding import Rng

_RESAMPLED = 2000
_FEWEST = 4


class Correlation(NamedTuple):
    """Spearman's rho with its 95 % percentile interval over resampled runs; not numbers for fewer
    than four of them."""

    rho: float
    low: float
    high: float


def rank_correlation(runs: Sequence[Sequence[tuple[float, float]]]) -> Correlation:
    """Of the two coordinates of all points. Those of one run are not independent, so runs are
    resampled, each with all its points."""
    parts = [np.array(points) for points in runs if points]
    if len(parts) < _FEWEST or not _varies(every := np.concatenate(parts)):
        return Correlation(math.nan, math.nan, math.nan)
    draws = Rng.make(0, "resampled runs", torch.arange(_RESAMPLED))
    drawn: list[float] = []
    for chosen in draws.integers(len(parts), len(parts)).tolist():
        points = np.concatenate([parts[k] for k in chosen])
        if _varies(points):
            drawn.append(_spearman(points))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Correlation(_spearman(every), float(low), float(high))


def _varies(points: Float[np.ndarray, "n 2"]) -> bool:
    return bool((points != points[0]).any(0).all())


def _spearman(points: Float[np.ndarray, "n 2"]) -> float:
    """Pearson's correlation of the ranks, where ties share theirs."""
    ranks = stats.rankdata(points, axis=0)
    return float(np.corrcoef(ranks.T)[0, 1])
