"""Compositional retrieval accuracy: does a sample look most like real clips of what was asked for?

For each clip its nearest real clips in a feature space are found, among fresh clips of all
combinations. ``first`` is the share of clips whose nearest one shows the right combination,
``vote`` the share for which the most frequent combination among the `k` nearest does (of equally
frequent ones, that with the nearer clips), ``factor/<name>`` the share whose nearest one has that
factor right. Chance is what a real clip drawn at random gives. A real clip is never its own
neighbour, nor that of its reconstruction, so both are ceilings.

``<source>/confusion`` counts clips by what was asked for (rows) and what the nearest clip shows
(columns); the combinations that both stand for are in ``combinations``.
"""

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_features
from vidcomp.probes.base import Findings, Space, Subject, proportion, rows_by_level
from vidcomp.probes.base_features import nearest, refuse_missing_clips
from vidcomp.world.factors import Factors

_LEAST_CLIPS = 2  # so that a real clip has another one to find
_OWN_ROW_IN_REAL = ("real", "reconstruction")


class Config(base_features.Config):
    """`k`: how many neighbours vote."""

    k: int = Field(default=5, ge=1)

    def build(self, factors: Factors) -> "Retrieval":
        return Retrieval(self.k)


class Retrieval(base_features.FeatureProbe):
    """``samples/<level>/first``, ``.../vote``, ``.../factor/<name>``; see the module."""

    def __init__(self, k: int) -> None:
        self.k = k

    def compare(self, subject: Subject, space: Space) -> Findings:
        factors, real = subject.split.factors, subject.sets["real"].classes
        if len(real) <= self.k:
            raise UserError(f"retrieval: k={self.k} takes more than {len(real)} real clips")
        present, index = factors.combination_ids(real).unique(return_inverse=True)
        findings = Findings(tables={"combinations": factors.combinations()[present]})
        for source, clips in subject.sets.items():
            refuse_missing_clips(
                factors, clips.classes, real, least=_LEAST_CLIPS, probe="retrieval"
            )
            asked = torch.searchsorted(present, factors.combination_ids(clips.classes))
            own = source in _OWN_ROW_IN_REAL
            found = nearest(
                space.points(source), space.points("real"), self.k, but_own_row=own
            ).rows  # b k
            first, vote = index[found[:, 0]], _vote(index[found], len(present))
            guesses = (index == asked[:, None]).double().mean(1)
            pairs = asked * len(present) + first
            table = torch.bincount(pairs, minlength=len(present) ** 2)
            findings.tables[f"{source}/confusion"] = table.reshape(len(present), len(present))
            findings.arrays[f"{source}/nearest"] = found[:, 0]
            right = real[found[:, 0]] == clips.classes  # b f
            for level, rows in rows_by_level(subject.split, clips).items():
                at, chance = f"{source}/{level}", float(guesses[rows].mean())
                findings.scores[f"{at}/first"] = proportion((first == asked)[rows], chance=chance)
                findings.scores[f"{at}/vote"] = proportion((vote == asked)[rows], chance=chance)
                for f, name in enumerate(factors.names):
                    alike = (real[:, f] == clips.classes[rows, f, None]).double().mean()
                    share = proportion(right[rows, f], chance=float(alike))
                    findings.scores[f"{at}/factor/{name}"] = share
        return findings


def _vote(neighbours: Int64[Tensor, "b k"], num_combinations: int) -> Int64[Tensor, " b"]:
    """The most frequent combination; of several, that of the nearer neighbours."""
    k = neighbours.shape[1]
    nearness = torch.arange(k, 0, -1) / (k * (k + 1))  # sums to a half: it only breaks ties
    weights = (1 + nearness).expand(len(neighbours), k)
    votes = torch.zeros(len(neighbours), num_combinations).scatter_add(1, neighbours, weights)
    return votes.argmax(1)
