"""Scores: a number with its interval, its count and its chance; and the accuracies of a judge.

Beside the joint accuracy stands the product of the marginal ones: what the joint accuracy would be
if the factors failed independently of each other (the multiplicative-emergence test,
arXiv:2310.09336). Far above it, a clip fails as a whole; far below it, factors crowd each other
out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from scipy import stats
from torch import Tensor

from vidcomp.world.factors import Factors

UNREADABLE = -1
"""The class id that a judge gives when it cannot tell: always counted as wrong."""

MOST_COMBINATIONS = 100
"""With more combinations than this, each has too few clips for a score of its own."""


class Score(NamedTuple):
    """A number with its 95 % interval, the count behind it, and (if known) what guessing gives.
    `flag`: why it should not be believed."""

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None
    flag: str = ""


def score_verdicts(
    verdicts: Int64[Tensor, "b t f"], classes: Int64[Tensor, "b f"], factors: Factors
) -> dict[str, Score]:
    """``joint`` (all factors right in all frames), ``factor/<name>`` (right in all frames),
    ``product`` of the latter; ``frame/<k>`` (all factors right in frame k), ``frame/<k>/product``
    of the shares of the factors there; ``frames`` (a clip's share of frames that are all right),
    ``unreadable`` (its share of frames in which no factor could be read: they count as wrong, and
    tell a model that draws nothing from one that draws the wrong thing)."""
    right = verdicts == classes[:, None]  # b t f
    chances = [1 / size for size in factors.sizes]
    joint_chance = math.prod(chances)
    scores = {"joint": proportion(right.all(-1).all(-1), chance=joint_chance)}
    for f, name in enumerate(factors.names):
        scores[f"factor/{name}"] = proportion(right[:, :, f].all(-1), chance=chances[f])
    scores["product"] = product([scores[f"factor/{name}"] for name in factors.names])
    for k in range(right.shape[1]):
        scores[f"frame/{k}"] = proportion(right[:, k].all(-1), chance=joint_chance)
        of_factors = [proportion(right[:, k, f], chance=c) for f, c in enumerate(chances)]
        scores[f"frame/{k}/product"] = product(of_factors)
    scores["frames"] = proportion(right.all(-1).float().mean(1), chance=joint_chance)
    scores["unreadable"] = proportion((verdicts == UNREADABLE).all(-1).float().mean(1))
    return scores


def score_combinations(
    verdicts: Int64[Tensor, "b t f"], classes: Int64[Tensor, "b f"], factors: Factors
) -> dict[str, Score]:
    """``combination/<name>``: joint accuracy of the clips of each; none if there are too many."""
    if factors.num_combinations > MOST_COMBINATIONS:
        return {}
    right = (verdicts == classes[:, None]).all(-1).all(-1)
    ids, chance = factors.combination_ids(classes), 1 / factors.num_combinations
    return {
        f"combination/{factors.describe(factors.combinations()[i])}": proportion(
            right[ids == i], chance=chance
        )
        for i in ids.unique().tolist()
    }


def product(shares: Sequence[Score]) -> Score:
    """The product of shares of the same clips. Its interval, the product of theirs, holds for
    shares that depend on each other too; it is too wide rather than too narrow."""
    return Score(
        value=math.prod(share.value for share in shares),
        low=math.prod(share.low for share in shares),
        high=math.prod(share.high for share in shares),
        n=shares[0].n,
        chance=math.prod(share.chance or 1 for share in shares),
    )


def proportion(
    hits: Float[Tensor, " b"] | Bool[Tensor, " b"], *, chance: float | None = None
) -> Score:
    """A share with its Wilson 95 % interval (Wilson 1927, doi:10.2307/2276774).

    `hits` may also be shares, such as that of the right frames in each clip. The clips are what is
    independent, so n counts them; a share varies no more than a coin of the same mean, which makes
    the interval too wide rather than too narrow.
    """
    n = hits.numel()
    if n == 0:
        return Score(math.nan, math.nan, math.nan, 0, chance)
    p = float(hits.double().mean())
    z = float(stats.norm.ppf(0.975))
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # The ends are exact where p is 0 or 1, but for rounding.
    return Score(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n, chance)


def mean_score(values: Float[Tensor, " b"]) -> Score:
    """A mean over clips with its Student-t 95 % interval; no interval for fewer than two."""
    n = values.numel()
    mean = float(values.double().mean()) if n else math.nan
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * values.double().std() / math.sqrt(n))
    return Score(mean, mean - half, mean + half, n)
