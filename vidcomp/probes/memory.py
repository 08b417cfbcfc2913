"""Is a sample composed or remembered? The distance of each clip to its nearest training clip.

A distance says nothing by itself, so it stands beside that of fresh clips of the same combination,
which nothing was trained on and which therefore cannot be remembered. Fresh clips and training
clips have gone through the tokenizer, as samples have: otherwise a copy would differ by its look.

* ``ratio``: the mean over samples of their distance over the median of those of the fresh clips;
  1 is what new clips have, near 0 are copies;
* ``copies``: the share of samples nearer to a training clip than the `quantile` of the fresh ones;
  chance is `quantile`;
* ``training_clips``: how many distinct clips of its combination a sample could be remembered from,
  mean over samples. Of a held-out combination it is 0; there a small ratio says that the generator
  fell back on a trained combination.

All three also stand under ``combination/<name>``, so that the number of distinct clips is an axis.
Nearness is judged in a feature space: what its network does not see, such as a shift of the whole
clip, does not tell a clip from its copy.
"""

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_features
from vidcomp.probes.base import (
    Findings,
    Score,
    Space,
    Subject,
    mean_score,
    proportion,
    rows_by_level,
)
from vidcomp.probes.base_features import nearest, refuse_missing_clips
from vidcomp.probes.base_scores import MOST_COMBINATIONS
from vidcomp.world.factors import Factors

_LEAST_CLIPS = 4


class Config(base_features.Config):
    """`quantile`: of the distances of fresh real clips, below which a sample counts as a copy."""

    quantile: float = Field(default=0.05, gt=0, lt=0.5)

    def build(self, factors: Factors) -> "Memory":
        return Memory(self.quantile)


class Memory(base_features.FeatureProbe):
    """``samples/<level>/ratio``, ``.../copies``, ``.../training_clips``; see the module."""

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile

    def compare(self, subject: Subject, space: Space) -> Findings:
        factors, training = subject.split.factors, space.training()
        ids = factors.combination_ids(training.classes[training.distinct])
        counts = torch.bincount(ids, minlength=factors.num_combinations).float()
        fresh = _Fresh(factors, subject, space, self.quantile)
        findings = Findings()
        for source, clips in subject.sets.items():
            refuse_missing_clips(
                factors,
                clips.classes,
                subject.sets["real"].classes,
                least=_LEAST_CLIPS,
                probe="memory",
            )
            asked = factors.combination_ids(clips.classes)
            distances = _to_training(space, source)
            findings.arrays[f"{source}/distance"] = distances
            columns = distances / fresh.median[asked], distances < fresh.low[asked], counts[asked]
            for level, rows in rows_by_level(subject.split, clips).items():
                at = f"{source}/{level}"
                findings.scores.update(self._scores(at, *columns, rows))
                if factors.num_combinations > MOST_COMBINATIONS:
                    continue
                for i in asked[rows].unique().tolist():
                    name = factors.describe(factors.combinations()[i])
                    of_combination = self._scores(
                        f"{at}/combination/{name}", *columns, rows & (asked == i)
                    )
                    findings.scores.update(of_combination)
        return findings

    def _scores(
        self,
        at: str,
        ratio: Float[Tensor, " b"],
        is_copy: Bool[Tensor, " b"],
        training_clips: Float[Tensor, " b"],
        rows: Bool[Tensor, " b"],
    ) -> dict[str, Score]:
        return {
            f"{at}/ratio": mean_score(ratio[rows]),
            f"{at}/copies": proportion(is_copy[rows], chance=self.quantile),
            f"{at}/training_clips": mean_score(training_clips[rows]),
        }


class _Fresh:
    """Of each combination, the `median` and a `low` quantile of the distances of fresh clips, with
    the look of samples, to their nearest training clips; NaN where there are no such clips."""

    def __init__(self, factors: Factors, subject: Subject, space: Space, quantile: float) -> None:
        alike = "reconstruction" if "reconstruction" in subject.sets else "real"
        distances = _to_training(space, alike)
        ids = factors.combination_ids(subject.sets["real"].classes)
        self.median = torch.full((factors.num_combinations,), torch.nan)
        self.low = self.median.clone()
        for i in ids.unique().tolist():
            self.median[i] = distances[ids == i].median()
            self.low[i] = distances[ids == i].quantile(quantile)
            if self.median[i] == 0:
                raise UserError(
                    f"half of the fresh clips of '{factors.describe(factors.combinations()[i])}' "
                    "equal training clips, so nothing tells a new clip from a remembered one; "
                    "memory needs a dataset whose clips vary"
                )


def _to_training(space: Space, source: str) -> Float[Tensor, " b"]:
    return nearest(space.points(source), space.training().features, 1).distances[:, 0]
