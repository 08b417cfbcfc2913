"""Does a clip show as many objects as it was asked for, and where it was asked for them?

The measures of length generalisation (arXiv:2509.16447, which shows rows of samples and no number;
all of these are this project's own [OWN]). A judge of the one factor `count`: its verdict is the
number of objects in a frame, so its joint accuracy is that of exact counts. Where clips have
`Locations`, for each level, frame and number N of objects:

* recall: the share of the places asked for with an object within its radius, one to one;
* error_px: how far such an object is from its place;
* precision: the share of the objects that are at a place asked for;
* exact, bias, mae: the count is right in all frames, its signed and its absolute error;
* in clips, switches: how often an object, followed from frame to frame, gets to another one's
  place, and path_error_px: how far it is from where it should go, also after it went astray;
* ``n/horizon``: the largest N with a recall of 0.9, at it and below; ``n/area``: the mean recall of
  those N that are larger than any seen in training.

Chance is the same measure if each clip is held against another's places, of the same N; of counts,
against the N of any clip. Real clips say what objects look like, and what the detector can reach.

Unusual: where a world holds more objects than a generator is told of, it draws more, rightly so:
then recall is the score, and neither precision nor counts are given.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import (
    UNREADABLE,
    ClipSet,
    Findings,
    Score,
    Subject,
    mean_score,
    proportion,
    refuse_other_factors,
    rows_by_level,
    score_combinations,
    score_verdicts,
)
from vidcomp.probes.base_objects import Look
from vidcomp.probes.base_places import Marked, count, mark, of_counts, of_places
from vidcomp.types import Video
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split

ENOUGH = 0.9
"""The recall that counts as a success."""

_SHARES = ("recall", "precision", "exact")


class Config(base.Config):
    """Nothing to set: what objects look like is measured on real clips."""

    def build(self, factors: Factors) -> "Judge":
        return Judge(factors)


class Judge(base.Judge):
    """Counts the objects in each frame."""

    least_right = 0.95

    def __init__(self, factors: Factors) -> None:
        if factors.names != ("count",) or factors.value_size != 1:
            raise UserError(
                f"counting reads the one factor 'count' of the count worlds; these clips have "
                f"{', '.join(factors.names) or 'no factors'}"
            )
        self.factors = factors
        self.numbers = torch.tensor([round(c.prototype[0]) for c in factors.items[0].classes])

    def read(self, video: Video) -> Int64[Tensor, "b t f"]:
        """`UNREADABLE` where the number of objects is no class. What an object looks like, these
        clips must show themselves; `run` learns it from real ones."""
        return self._verdicts(count(Look.of(video).find(video)))

    def run(self, subject: Subject) -> Findings:
        refuse_other_factors(self.factors, subject.split.factors)
        if "real" not in subject.sets:
            raise UserError("counting learns from real clips what an object is; there are none")
        look = Look.of(subject.sets["real"].video)
        detected = {source: look.find(clips.video) for source, clips in subject.sets.items()}
        tells_all = self._tells_all(subject.sets["real"], detected["real"], look)
        findings = Findings()
        for source, clips in subject.sets.items():
            counts = count(detected[source])
            verdicts, asked = self._verdicts(counts), self.numbers[clips.classes[:, 0]]
            marked = Marked({}, {})
            if clips.locations is not None:
                places = places_of(clips, source)
                marked = of_places(detected[source], places, asked, look.radius_px)
            if tells_all:
                marked = marked.beside(of_counts(counts, asked))
            else:
                marked = marked.without("precision")
            found: dict[str, Score] = {}
            for level, rows in rows_by_level(subject.split, clips).items():
                read = verdicts[rows], clips.classes[rows], self.factors
                judged = score_verdicts(*read) | score_combinations(*read) if tells_all else {}
                judged |= scores_of(marked, rows)
                found |= {f"{level}/{key}": score for key, score in judged.items()}
            for n in asked.unique().tolist():
                of_n = scores_of(marked, asked == n)
                found |= {f"n/{n}/{key}": score for key, score in of_n.items()}
            found |= self._lengths(found, subject.split)
            findings.arrays[f"{source}/verdicts"] = verdicts
            findings.scores.update({f"{source}/{key}": score for key, score in found.items()})
        return findings

    def _verdicts(self, counts: Int64[Tensor, "b t"]) -> Int64[Tensor, "b t 1"]:
        same = counts[..., None] == self.numbers
        return torch.where(same.any(-1), same.int().argmax(-1), UNREADABLE)[..., None]

    def _tells_all(self, real: ClipSet, objects: Float[Tensor, "b t m 2"], look: Look) -> bool:
        """Whether real clips show just what a generator is told of. Refuses those in which the
        objects that are there are not found."""
        verdicts = self._verdicts(count(objects))
        if real.locations is None:
            self._refuse_misreading(verdicts, real.classes)
            return True
        recall = mark(objects, places_of(real, "real"), look.radius_px)["recall"].mean(1)
        found = proportion(recall[~recall.isnan()])
        if found.high < self.least_right:
            raise UserError(
                f"counting finds only {found.value:.1%} of the objects of real clips: it finds "
                "what stands apart on a plain ground; look at these clips, or use another probe"
            )
        told_of = bool((real.locations.given == real.locations.present).all())
        right = proportion((verdicts == real.classes[:, None]).all(-1).float().mean(1))
        if told_of and right.high >= self.least_right:
            return True
        print("counting: clips hold objects that nobody is told of: recall is scored, no count is")
        return False

    def _lengths(self, found: Mapping[str, Score], split: Split) -> dict[str, Score]:
        """How far recall reaches beyond what was seen."""
        keys = {n: f"n/{n}/recall" for n in self.numbers.tolist()}
        recall = {n: found[key] for n, key in keys.items() if key in found}
        if not recall:
            return {}
        combinations = self.factors.combinations()
        is_seen = split.seen(combinations, self.factors.prototypes(combinations))
        most_seen = int(self.numbers[is_seen].amax())
        lengths = {"n/horizon": horizon(recall)}
        beyond = [score for n, score in recall.items() if n > most_seen]
        return lengths | ({"n/area": mean_of(beyond)} if beyond else {})


def places_of(clips: ClipSet, source: str) -> Float[Tensor, "b t n 2"]:
    """In pixels, where each clip should have an object, padded with NaN. A sample, where it was
    asked for one; a real clip shows all it has, whoever is told of them."""
    assert clips.locations is not None
    locations = clips.locations.padded(clips.locations.present.shape[1] + 1)  # never none
    height, width = clips.video.shape[3:]
    points = locations.points * torch.tensor([width, height]) - 0.5
    there = locations.given if source == "samples" else locations.present
    return points.where(there[:, None, :, None], torch.nan)


def scores_of(marked: Marked, rows: Bool[Tensor, " b"]) -> dict[str, Score]:
    """Of the clips in `rows`, as a whole and frame by frame. Clips are what is independent."""
    scores: dict[str, Score] = {}
    for name, values in marked.marks.items():
        of_rows, by_chance = values[rows], marked.chance[name][rows]
        columns = {name: (of_rows.nanmean(1), by_chance.nanmean(1))}
        if values.shape[1] > 1:
            columns |= {
                f"frame/{k}/{name}": (of_rows[:, k], by_chance[:, k])
                for k in range(values.shape[1])
            }
        for key, (x, luck) in columns.items():
            known = x[~x.isnan()]
            if len(known):
                score = proportion(known) if name in _SHARES else mean_score(known)
                guessed = float(luck.nanmean())
                scores[key] = score._replace(chance=None if math.isnan(guessed) else guessed)
    return scores


def horizon(recall: Mapping[int, Score]) -> Score:
    """The largest N with enough recall, at it and below; 0 if there is none."""

    def reached(recalls: Sequence[float]) -> float:
        of_n = zip(recall, recalls, strict=True)
        passed = itertools.takewhile(lambda pair: pair[1] >= ENOUGH, of_n)
        return float(max((n for n, _ in passed), default=0))

    scores = recall.values()
    return Score(
        value=reached([score.value for score in scores]),
        low=reached([score.low for score in scores]),
        high=reached([score.high for score in scores]),
        n=sum(score.n for score in scores),
        chance=reached([score.chance or 0.0 for score in scores]),
    )


def mean_of(scores: Sequence[Score]) -> Score:
    """The mean of shares of different clips; its interval from theirs by their squares (MOVER, Zou
    and Donner 2008, doi:10.1002/sim.3095)."""
    value = sum(score.value for score in scores) / len(scores)
    below = math.hypot(*(score.value - score.low for score in scores)) / len(scores)
    above = math.hypot(*(score.high - score.value for score in scores)) / len(scores)
    chances = [score.chance for score in scores if score.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(scores) else None
    n = sum(score.n for score in scores)
    return Score(value, max(0.0, value - below), min(1.0, value + above), n, chance)
