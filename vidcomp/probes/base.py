"""The contract of the family `probes`: questions about clips, answered with n, interval and chance.

A probe looks at a `Subject`: sets of clips from several sources (real ones, their reconstructions,
the samples of a generator), each clip with the combination that it shows or was asked to show.
Because every probe answers for all sources, a generator's score never stands without its ceilings.

*Judges* are probes that read every factor in every frame: `factors` (trained networks) and `oracle`
(closed form). They share the scoring and differ only in `read`; `agreement` lets them
judge each other. Whatever is trained is trained by the one loop here, `fit`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vidcomp.config import Family, UserError, Variant
from vidcomp.probes.base_scores import UNREADABLE as UNREADABLE
from vidcomp.probes.base_scores import Score as Score
from vidcomp.probes.base_scores import mean_score as mean_score
from vidcomp.probes.base_scores import proportion as proportion
from vidcomp.probes.base_scores import score_combinations as score_combinations
from vidcomp.probes.base_scores import score_verdicts as score_verdicts
from vidcomp.probes.base_subject import ClipSet as ClipSet
from vidcomp.probes.base_subject import Model as Model
from vidcomp.probes.base_subject import Points as Points
from vidcomp.probes.base_subject import Space as Space
from vidcomp.probes.base_subject import Subject as Subject
from vidcomp.probes.base_subject import rows_by_level as rows_by_level
from vidcomp.seeding import Rng
from vidcomp.types import Video
from vidcomp.world.factors import Factors

PROBES = Family("vidcomp.probes")


@dataclass(frozen=True)
class Findings:
    """The answers. Keys are paths: ``samples/level-1/joint``, ``real/seen/factor/colour``,
    ``samples/seen/frame/3``, ``reconstruction/seen/psnr_db``; of arrays ``samples/verdicts``, with
    a row for each clip; of tables, which have other rows, ``samples/confusion``."""

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    arrays: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    tables: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Config(Variant, ABC):
    """Settings of a probe."""

    @abstractmethod
    def build(self, factors: Factors) -> "Probe": ...


class Probe(ABC):
    """A question."""

    @abstractmethod
    def run(self, subject: Subject) -> Findings: ...


class Judge(Probe, ABC):
    """A probe that reads the factors back from the pixels of every frame."""

    factors: Factors
    least_right = 0.0
    """The share of the frames of real clips below which the judge does not believe itself."""

    @abstractmethod
    def read(self, video: Video) -> Int64[Tensor, "b t f"]:
        """The class id of each factor in each frame, `UNREADABLE` where the judge cannot tell.

        A temporal factor's verdict at frame k comes from frames k-1 and k; frame 0 has frame 1's.
        """

    def run(self, subject: Subject) -> Findings:
        """Joint, per-factor, per-frame and per-combination accuracy, by source and level."""
        refuse_other_factors(self.factors, subject.split.factors)
        findings = Findings()
        for source, clips in subject.sets.items():
            verdicts = self.read(clips.video)
            findings.arrays[f"{source}/verdicts"] = verdicts
            if source == "real":
                self._refuse_misreading(verdicts, clips.classes)
            for level, rows in rows_by_level(subject.split, clips).items():
                asked = verdicts[rows], clips.classes[rows], self.factors
                scored = score_verdicts(*asked) | score_combinations(*asked)
                findings.scores.update({f"{source}/{level}/{key}": s for key, s in scored.items()})
        return findings

    def _refuse_misreading(
        self, verdicts: Int64[Tensor, "b t f"], classes: Int64[Tensor, "b f"]
    ) -> None:
        frames = proportion((verdicts == classes[:, None]).all(-1).float().mean(1))
        if frames.high < self.least_right:
            raise UserError(
                f"the judge reads only {frames.value:.1%} of the frames of real clips right, so it "
                "does not know this world (does the background vary?); use the probe 'factors' "
                "instead, which learns"
            )


Progress = Callable[[int, float], None]
"""Called after each step of `fit` with the number of steps done and the loss."""


class TrainedJudge(Judge, ABC):
    """A judge that must be fitted before it reads, on clips that it will not score."""

    @abstractmethod
    def fit(
        self,
        sets: Mapping[str, ClipSet],
        *,
        seed: int,
        combinations: Literal["all", "seen"] = "all",
        progress: Progress | None = None,
    ) -> None:
        """Learn from `sets`, one for each source.

        Each must have clips of all combinations, unless ``combinations="seen"`` (an ablation).
        """

    @abstractmethod
    def check(self, sets: Mapping[str, ClipSet]) -> dict[str, dict[str, Score]]:
        """Accuracy per frame on held-out clips, by source and factor; `save` stores it too."""

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "TrainedJudge": ...


@runtime_checkable
class Learner(Protocol):
    """What `fit` trains: parameters, and the loss of a batch that it draws itself from `sets`."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def loss(self, sets: Mapping[str, ClipSet], rng: Rng) -> Float[Tensor, " b"]: ...


def fit(
    learner: Learner,
    sets: Mapping[str, ClipSet],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """AdamW with a cosine to zero. A pure function of the starting weights, `sets` and `seed`."""
    indices = torch.arange(batch_size, device=next(learner.parameters()).device)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rng = Rng.make(seed, "probe batch", indices, step=step)
        loss = learner.loss(sets, rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        if progress is not None:
            progress(step + 1, loss.item())


def refuse_other_factors(fitted: Factors, asked: Factors) -> None:
    """Raise UserError unless both are the same."""
    if fitted == asked:
        return
    ours, theirs = (
        "; ".join(f"{f.name}: {', '.join(f.class_names)}" for f in factors.items)
        for factors in (fitted, asked)
    )
    same = " (the names agree, the numbers behind them do not)" if ours == theirs else ""
    raise UserError(
        f"this judge reads [{ours}], the clips show [{theirs}]{same}; "
        "build or fit one for these factors"
    )


def refuse_no_factors(factors: Factors) -> None:
    """Raise UserError if there is nothing to read."""
    if not factors.items:
        raise UserError(
            "these clips have no factors, so a judge has nothing to read; give them factors: a "
            "column for each in their table"
        )


def agreement(one: Findings, other: Findings, subject: Subject) -> dict[str, Score]:
    """The share of frames in which two judges read the same, all factors together; keys are
    ``<source>/<level>``.

    A factor that either calls `UNREADABLE` is not read the same.
    """
    scores: dict[str, Score] = {}
    for key in one.arrays.keys() & other.arrays.keys():
        source, _, kind = key.rpartition("/")
        if kind == "verdicts":
            a, b = one.arrays[key], other.arrays[key]
            same = ((a == b) & (a != UNREADABLE)).all(-1).float().mean(1)
            for level, rows in rows_by_level(subject.split, subject.sets[source]).items():
                scores[f"{source}/{level}"] = proportion(same[rows])
    return scores
