"""Clips as points of a feature space (`vidcomp.probes.base.Space`), and the probes that ask there.

The points of real clips, those for scoring and those that generators learn from, are the reference
of every run on the dataset. They are kept in ``runs/cache/features``, under a name made of the
dataset's content, the clips and the extractor's weights, with a hash of the points: a damaged file
is made again. The hash stands in ``scores.json``: numbers with other references, or of other
extractors, do not compare.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset
from vidcomp.evaluation import extractors
from vidcomp.evaluation.clips import clip_rows
from vidcomp.evaluation.extractors import Extractor
from vidcomp.media import write_bytes
from vidcomp.probes import base_features
from vidcomp.probes.base import ClipSet, Findings, Points, Subject
from vidcomp.types import Video, video_from_frames
from vidcomp.world.splits import Split

_CLIPS_AT_A_TIME = 64


class Look(NamedTuple):
    """What `make` does to clips: a tokenizer with these weights there and back."""

    weights: str
    make: Callable[[Video], Video]


@dataclass(frozen=True)
class FeatureSpace:
    """The points of `sets`, each source's found once. `look` is that of the samples."""

    extractor: Extractor
    dataset: Dataset
    split: Split
    sets: Mapping[str, ClipSet]
    look: Look | None = None
    _found: dict[str, Points] = field(default_factory=dict[str, Points])

    def points(self, source: str) -> Float[Tensor, "b d"]:
        if source not in self._found:
            clips = self.sets[source]
            if source == "real":  # the first of the clips for scoring: see `clip_set`
                rows = clip_rows(self.dataset, "scoring")[: len(clips.video)]
                found = reference(self.extractor, self.dataset, rows)
            else:
                everywhere = torch.ones(len(clips.video), dtype=torch.bool)
                found = Points(self.extractor(clips.video), clips.classes, everywhere)
            self._found[source] = found
        return self._found[source].features

    def training(self) -> Points:
        """All that a generator with this split trains on, with the look that its samples have:
        a blurry copy of a clip is near the clip's blurry self, not near the clip."""
        if "training" not in self._found:
            rows = clip_rows(self.dataset, "training", seen_of=self.split)
            self._found["training"] = reference(self.extractor, self.dataset, rows, self.look)
        return self._found["training"]

    def about(self) -> dict[str, Any]:
        """What must stand beside each number that was found here."""
        t, h, w = self.sets["real"].video.shape[2:]
        return {
            "extractor": self.extractor.name,
            "extractor_weights": self.extractor.digest,
            "dimensions": self.points("real").shape[1],
            "clips": f"{t} frames of {h} x {w}, seen {self.extractor.sees}",
            "references": {
                source: {"clips": len(found.features), "digest": _digest(found)}
                for source, found in self._found.items()
                if source in ("real", "training")
            },
        }


class InSpace(NamedTuple):
    """What each probe found, by name; and what must be known of the space to compare it."""

    findings: dict[str, Findings]
    about: dict[str, Any]


def compare_in_space(
    extractor: str,
    dataset: Dataset,
    subject: Subject,
    also: Sequence[base_features.Config],
    look: Look | None = None,
) -> InSpace:
    """Ask probes of a feature space. Nothing is loaded if there are none.

    A probe that cannot look at these clips says why."""
    if not also:
        return InSpace({}, {})
    opened = extractors.open_extractor(extractor, dataset)
    space = FeatureSpace(opened, dataset, subject.split, subject.sets, look)
    found: dict[str, Findings] = {}
    for config in also:
        try:
            probe = config.build(subject.split.factors)
            found[config.name] = probe.run(replace(subject, space=space))
        except UserError as error:
            print(f"probe {config.name} was not asked: {error}")
    return InSpace(found, space.about())


def reference(
    extractor: Extractor,
    dataset: Dataset,
    rows: Int64[Tensor, " n"],
    look: Look | None = None,
) -> Points:
    """The points of some clips of a dataset; from the cache, if they are there."""
    weights = look and look.weights
    which = [dataset.fingerprint, extractor.digest, extractor.sees, weights, rows.tolist()]
    key = hashlib.sha256(repr(which).encode()).hexdigest()[:12]
    path = extractors.CACHE / f"points-{key}.safetensors"
    if path.is_file():
        try:
            with safetensors.safe_open(path, "pt") as kept:  # pyright: ignore
                points = Points(*(kept.get_tensor(name) for name in _NAMES))
                digest = kept.metadata()["digest"]
        except safetensors.SafetensorError:
            digest, points = "", None
        if points is not None and digest == _digest(points):
            return points
        print(f"{path} is damaged; its points are made again")
    points = _points(extractor, dataset, rows, look)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: getattr(points, name) for name in _NAMES}
    write_bytes(path, safetensors.torch.save(content, {"digest": _digest(points)}))
    return points


_NAMES = ("features", "classes", "distinct")


def _points(
    extractor: Extractor, dataset: Dataset, rows: Int64[Tensor, " n"], look: Look | None
) -> Points:
    seen: set[bytes] = set()
    distinct: list[bool] = []
    features: list[Tensor] = []
    for chunk in rows.split(_CLIPS_AT_A_TIME):
        frames = dataset.clips(chunk).frames
        for clip in frames:
            content = hashlib.sha256(clip.numpy().tobytes()).digest()
            distinct.append(content not in seen)
            seen.add(content)
        video = video_from_frames(frames)
        features.append(extractor(look.make(video) if look else video))
    return Points(torch.cat(features), dataset.classes()[rows], torch.tensor(distinct))


def _digest(points: Points) -> str:
    """Twelve hex digits of what they are."""
    content = hashlib.sha256()
    for name in _NAMES:
        content.update(getattr(points, name).contiguous().numpy())
    return content.hexdigest()[:12]
