"""The verdict rule: when differences between runs bear a claim out. The same for every claim, and
never overruled by hand.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy import stats

from vidcomp.report.records import Verdict

MIN_PAIRS = 2
"""Of seeds; fewer have no interval."""

RULE = (
    "Runs are paired by seed. A comparison is reproduced if the 95 % t-interval of the paired "
    "differences lies above the smallest effect that counts, not reproduced if it lies below, and "
    "not decided otherwise. A claim is reproduced if all its comparisons are, not reproduced if "
    "one of them is not, and not decided otherwise. Nothing is decided with fewer than two pairs, "
    "on fewer samples than asked for, before the claim's number of steps, or where everything "
    "that is compared stays below the claim's floor."
)


class Interval(NamedTuple):
    """The mean of differences and its 95 % t-interval; not a number where there is none."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t: mean +- t(0.975, n - 1) s / sqrt(n)."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < MIN_PAIRS:
        return Interval(mean, math.nan, math.nan)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half)


def decide(interval: Interval, min_effect: float) -> Verdict:
    """An interval that touches the effect decides nothing."""
    if interval.low > min_effect:
        return "reproduced"
    if interval.high < min_effect:
        return "not reproduced"
    return "not decided"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim of several comparisons."""
    found = set(verdicts)
    if "not reproduced" in found:
        return "not reproduced"
    return "reproduced" if found == {"reproduced"} else "not decided"
