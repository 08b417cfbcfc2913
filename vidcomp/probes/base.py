"""The contract of the family `probes`: questions about clips, answered with n, interval and chance.

A probe looks at a `Subject`: sets of clips from several sources (real ones, their reconstructions,
the samples of a generator), each clip with the combination that it shows or was asked to show.
Because every probe answers for all sources, a generator's score never stands without its ceilings.

*Judges* are probes that read every factor in every frame: `factors` (trained networks) and `oracle`
(closed form). They share the scoring in this file and differ only in `read`; `agreement` lets them
judge each other. Whatever is trained is trained by the one loop here, `fit`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from scipy import stats
from torch import Tensor, nn

from vidcomp.config import Family, UserError, Variant
from vidcomp.seeding import Rng
from vidcomp.types import Video
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split, level_name

PROBES = Family("vidcomp.probes")

UNREADABLE = -1
"""The class id that a judge gives when it cannot tell: always counted as wrong."""


class Score(NamedTuple):
    """A number with its 95 % interval, the count behind it, and (if known) what guessing gives."""

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None


@dataclass(frozen=True)
class ClipSet:
    """Clips of one source. `classes` is what each clip shows, or was asked to show."""

    video: Video
    classes: Int64[Tensor, "b f"]


@dataclass(frozen=True)
class Subject:
    """What a probe is asked about. `sets` has keys among ``real``, ``reconstruction``, ``samples``;
    row i of ``reconstruction`` is row i of ``real``."""

    sets: Mapping[str, ClipSet]
    split: Split


@dataclass(frozen=True)
class Findings:
    """The answers. Keys are paths: ``samples/level-1/joint``, ``real/seen/factor/colour``,
    ``samples/seen/frame/3``, ``reconstruction/seen/psnr_db``; of arrays ``samples/verdicts``."""

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    arrays: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


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

    @abstractmethod
    def read(self, video: Video) -> Int64[Tensor, "b t f"]:
        """The class id of each factor in each frame, `UNREADABLE` where the judge cannot tell.

        A temporal factor's verdict at frame k comes from frames k-1 and k; frame 0 has frame 1's.
        """

    def run(self, subject: Subject) -> Findings:
        """Joint, per-factor and per-frame accuracy, by source and level."""
        refuse_other_factors(self.factors, subject.split.factors)
        findings = Findings()
        for source, clips in subject.sets.items():
            verdicts = self.read(clips.video)
            findings.arrays[f"{source}/verdicts"] = verdicts
            for level, rows in rows_by_level(subject.split, clips.classes).items():
                scored = score_verdicts(verdicts[rows], clips.classes[rows], self.factors)
                findings.scores.update({f"{source}/{level}/{key}": s for key, s in scored.items()})
        return findings


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


def rows_by_level(split: Split, classes: Int64[Tensor, "b f"]) -> dict[str, Bool[Tensor, " b"]]:
    """Which rows belong to each level that occurs among `classes`, from seen upwards."""
    levels = split.levels(classes)
    return {level_name(k): levels == k for k in sorted(set(levels.tolist()))}


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


def score_verdicts(
    verdicts: Int64[Tensor, "b t f"], classes: Int64[Tensor, "b f"], factors: Factors
) -> dict[str, Score]:
    """``joint`` (all factors right in all frames), ``factor/<name>`` (right in all frames),
    ``frame/<k>`` (all factors right in frame k), ``frames`` (a clip's share of such frames)."""
    right = verdicts == classes[:, None]  # b t f
    chances = [1 / size for size in factors.sizes]
    joint_chance = math.prod(chances)
    scores = {"joint": proportion(right.all(-1).all(-1), chance=joint_chance)}
    for f, name in enumerate(factors.names):
        scores[f"factor/{name}"] = proportion(right[:, :, f].all(-1), chance=chances[f])
    for k in range(right.shape[1]):
        scores[f"frame/{k}"] = proportion(right[:, k].all(-1), chance=joint_chance)
    scores["frames"] = proportion(right.all(-1).float().mean(1), chance=joint_chance)
    return scores


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
            classes = subject.sets[source].classes
            for level, rows in rows_by_level(subject.split, classes).items():
                scores[f"{source}/{level}"] = proportion(same[rows])
    return scores


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
