"""What probes of a feature space share: `retrieval`, `frechet`, `memory`.

In a feature space, clips that are alike lie close together. Which space that is, is the choice of
who asks (`vidcomp.evaluation.extractors`): its network is never the one that judges, so a second
instrument measures the same samples. These probes read many real clips beside the samples, so they
are asked by name.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import Findings, Probe, Space, Subject
from vidcomp.world.factors import Factors

_POINTS_AT_A_TIME = 256
_LEAST_SPREAD = 1e-6  # of the widest dimension: what varies less does not vary


class Config(base.Config, ABC):
    """Settings of a probe that compares clips in a feature space."""


class FeatureProbe(Probe, ABC):
    """A question about how alike clips are."""

    @abstractmethod
    def compare(self, subject: Subject, space: Space) -> Findings: ...

    def run(self, subject: Subject) -> Findings:
        name = type(self).__name__.lower()
        if subject.space is None:
            raise UserError(f"{name} compares clips in a feature space, and none was given")
        if "real" not in subject.sets:
            raise UserError(f"{name} compares with real clips; there are none")
        return self.compare(subject, subject.space)


@dataclass(frozen=True)
class Neighbours:
    """The nearest of some points, nearest first: how far away, and which rows."""

    distances: Float[Tensor, "b k"]
    rows: Int64[Tensor, "b k"]


def nearest(
    points: Float[Tensor, "b d"],
    among: Float[Tensor, "n d"],
    k: int,
    *,
    but_own_row: bool = False,
) -> Neighbours:
    """The `k` nearest rows of `among` to each of `points`, where every dimension counts alike: each
    is divided by its standard deviation over `among`.

    With `but_own_row`, row i is no neighbour of point i.
    """
    spread = among.double().std(0)
    varies = spread > _LEAST_SPREAD * spread.max()
    scale = torch.where(varies, 1 / spread, 0).float()
    distances: list[Tensor] = []
    rows: list[Tensor] = []
    for own in torch.arange(len(points)).split(_POINTS_AT_A_TIME):
        # Not by a matrix product, which does not give 0 for equal points.
        between = torch.cdist(
            points[own] * scale, among * scale, compute_mode="donot_use_mm_for_euclid_dist"
        )
        if but_own_row:
            between[torch.arange(len(own)), own] = torch.inf
        found = between.topk(k, largest=False)
        distances.append(found.values)
        rows.append(found.indices)
    return Neighbours(torch.cat(distances), torch.cat(rows))


def refuse_missing_clips(
    factors: Factors,
    asked: Int64[Tensor, "b f"],
    there: Int64[Tensor, "n f"],
    *,
    least: int,
    probe: str,
) -> None:
    """Raise UserError unless `there` are at least so many clips of every combination in `asked`."""
    counts = torch.bincount(factors.combination_ids(there), minlength=factors.num_combinations)
    lacking = [i for i in factors.combination_ids(asked).unique().tolist() if counts[i] < least]
    if lacking:
        example = factors.describe(factors.combinations()[lacking[0]])
        raise UserError(
            f"{probe} needs {least} fresh real clips of every combination that is asked about; of "
            f"{len(lacking)} there are fewer, such as '{example}' ({int(counts[lacking[0]])}): "
            "make the dataset larger"
        )
