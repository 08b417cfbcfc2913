"""Mean shifts of concepts in a feature space, and the angles between them.

    d_i = E[z | concept i] - E[z | background]

Where every concept has features of its own, d_i . d_j = 0 (arXiv:2502.04549, Lemma 8.1; taken up by
arXiv:2509.16447 as a necessary condition, not a sufficient one). Here for any features: those of
our networks (`directions`) and of other people's (`evaluation.foreign`).

Cosines of measured means are wrong in two ways: noise makes every shift too long, and two shifts
that were measured on the same clips, or against the same background, share its noise. So clips are
dealt to groups, each with a background of its own, and a shift meets only those of other groups
[OWN]:

    S_ij = mean over g != h of d_i^g . d_j^h,    cos_ij = S_ij / sqrt(S_ii S_jj)

S is unbiased whatever the noise is, and the cosines nearly are, of shifts that are longer than
their noise. One that is not clearly so (S_ii under two standard errors) has no direction: its
cosines are NaN, and its pairs are left out. Pairs of concepts are **within** a factor (dog and
horse) or **across** two (dog and oil painting). Intervals are the jackknife's, over groups. Scores
of a layer:

    clear            the share of concepts that have a direction; without two within a factor and
                     two across, it is the only score
    within, across   mean |cos|; chance is what noise alone gives to shifts at right angles
    gap              within - across; 0 for concepts dealt to factors by chance
    auc              the share of (within, across) pairs of which within has the larger |cos|
    minimum          the smallest cosine across

Never compare them with a fixed threshold: what all concepts share, such as being told anything at
all, gives every cosine a floor (about 0.25 has been seen in CLIP's space).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from scipy import stats
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes.base_scores import Score, proportion

NUM_GROUPS = 10
FEWEST_GROUPS = 3
"""Without one of them, two must be left to be multiplied."""

_CLEAR = 2.0
"""Standard errors by which a shift is longer than its noise, or has no direction."""

_LEAST_SHARE = 0.01
"""Of the squared length of differences: what a direction of theirs must have."""


@dataclass(frozen=True)
class Concepts:
    """Names of concepts, and the factor that each belongs to, factor by factor."""

    names: tuple[str, ...]
    factors: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.factors)) < 2 or len(set(self.factors)) == len(self.factors):
            raise UserError(
                "directions compares concepts within a factor and across factors, which takes two "
                f"factors, one of them with two concepts; got {', '.join(self.names)}"
            )

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Measured:
    """Cosine matrices, scores and region matrices, each by its place: ``level/0.5/layer/2``,
    ``mid_block``."""

    concepts: Concepts
    cosines: dict[str, Float[Tensor, "n n"]] = field(default_factory=dict[str, Tensor])
    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    regions: dict[str, Float[Tensor, "f f"]] = field(default_factory=dict[str, Tensor])

    def add(self, place: str, shifts: Float[Tensor, "g n c"], *, count: int) -> None:
        """The angles between `shifts` of one layer, that so many clips stand behind."""
        replicates = cosines(shifts)
        self.cosines[place] = replicates[0]
        scores = block_scores(replicates, self.concepts.factors, count=count)
        self.scores.update({f"{place}/{key}": score for key, score in scores.items()})


def cosines(shifts: Float[Tensor, "g n c"]) -> Float[Tensor, "r n n"]:
    """The matrix of cosines, NaN where there is no direction; then the same without each of the
    groups."""
    num_groups = len(shifts)
    shifts = shifts.double()
    products = torch.einsum("gic,hjc->ghij", shifts, shifts)
    taken = torch.cat([torch.ones(1, num_groups), 1 - torch.eye(num_groups)]).double()  # r g
    pairs = torch.einsum("rg,rh->rgh", taken, taken) * (1 - torch.eye(num_groups))
    s = torch.einsum("rgh,ghij->rij", pairs, products)
    s = s / pairs.sum((1, 2))[:, None, None]
    squared = s.diagonal(dim1=1, dim2=2)  # r n
    clear = (squared[0] > 0) & (squared[0] >= _CLEAR * jackknife_error(squared))
    length = torch.where(clear, squared.clamp_min(0).sqrt(), torch.nan)
    scale = length[:, :, None] * length[:, None]
    # Without some group even a clear shift may be no longer than its noise.
    return torch.where(scale == 0, 0.0, s / scale).clamp(-1, 1)


def block_scores(
    replicates: Float[Tensor, "r n n"], factors: Sequence[str], *, count: int
) -> dict[str, Score]:
    """What a matrix of cosines and its replicates say of factors: see the module's text."""
    clear = ~replicates[0].diagonal().isnan()
    scores = {"clear": proportion(clear)._replace(chance=float(stats.norm.sf(_CLEAR)))}
    i, j = torch.triu_indices(len(factors), len(factors), 1)
    i, j = i[clear[i] & clear[j]], j[clear[i] & clear[j]]
    cosine = replicates[:, i, j]  # r pairs
    ids = torch.tensor([factors.index(factor) for factor in factors])
    same = ids[i] == ids[j]
    if not same.any() or same.all():
        return scores
    within, across = cosine[:, same].abs(), cosine[:, ~same].abs()
    noise = math.sqrt(2 / math.pi) * jackknife_error(cosine)  # E|x| of x ~ N(0, error^2)
    return scores | {
        "within": jackknife(within.mean(1), count=count, chance=float(noise[same].mean())),
        "across": jackknife(across.mean(1), count=count, chance=float(noise[~same].mean())),
        "gap": jackknife(within.mean(1) - across.mean(1), count=count, chance=0.0, least=-1.0),
        "auc": jackknife(auc(within, across), count=count, chance=0.5),
        "minimum": jackknife(cosine[:, ~same].amin(1), count=count, chance=0.0, least=-1.0),
    }


def auc(larger: Float[Tensor, "r n"], smaller: Float[Tensor, "r m"]) -> Float[Tensor, " r"]:
    """The share of pairs in which `larger` is; a tie is half of one."""
    difference = larger[:, :, None] - smaller[:, None]
    return ((difference.sign() + 1) / 2).double().mean((1, 2))


def jackknife_error(replicates: Float[Tensor, "r *n"]) -> Float[Tensor, "*n"]:
    """The standard error; row 0 is with all groups, the others without one of them."""
    without = replicates[1:]
    shrink = (len(without) - 1) / len(without)
    return (shrink * (without - without.mean(0)).square().sum(0)).sqrt()


def jackknife(
    replicates: Float[Tensor, " r"], *, count: int, chance: float, least: float = 0.0
) -> Score:
    """A score between `least` and 1 with the interval of its replicates."""
    found = float(replicates[0])
    quantile = float(stats.t.ppf(0.975, len(replicates) - 2))
    half = quantile * float(jackknife_error(replicates))
    return Score(found, max(least, found - half), min(1.0, found + half), count, min(1.0, chance))


def components(differences: Float[Tensor, "b c"], most: int) -> Float[Tensor, "m c"]:
    """At most so many orthonormal directions in which `differences` from nothing are largest: their
    principal components, not centred; none that is next to nothing."""
    _, lengths, directions = torch.linalg.svd(differences, full_matrices=False)
    shares = lengths.square() / lengths.square().sum().clamp_min(1e-30)
    return directions[:most][shares[:most] >= _LEAST_SHARE]


def deal(cells: Int64[Tensor, " b"], num_groups: int) -> Int64[Tensor, " b"]:
    """The group of each clip: those of a cell are dealt out in turn, so that each group has its
    share of every cell."""
    group = torch.empty_like(cells)
    group[cells.argsort(stable=True)] = torch.arange(len(cells)) % num_groups
    return group
