"""Objects in the pixels, found by connected components.

An object is a connected component of the pixels whose colour is further from the clip's median
colour than half of what objects are at their brightest. Two mistakes of generators are told by
area, against that of real objects: what has less than half of a small one's is a speck, and no
object; a blob of more than one and a half large ones is as many as its area holds, and is cut into
them (k-means).

How bright and how large objects are is measured on real clips (`Look.of`), so nothing is to be set.
Points are (x, y) in pixels; the centre of pixel (row i, column j) is (j, i), as in
`vidcomp.world.truth`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial.distance import cdist
from torch import Tensor

from vidcomp.types import Video

Points = Float[np.ndarray, "n 2"]

_MIN_CONTRAST = 0.15  # of RGB in [0, 1]: less is not an object
_TOUCHING = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # within a frame
_CUTTING_STEPS = 10
_CLIPS_AT_A_TIME = 64


@dataclass(frozen=True)
class Look:
    """What objects of a world look like: how much their brightest pixel differs from the ground, in
    the channel that differs most; and the area, in pixels, of small, typical and large ones."""

    contrast: float
    small: float
    typical: float
    large: float

    @property
    def radius_px(self) -> float:
        return math.sqrt(self.typical / math.pi)

    @classmethod
    def of(cls, video: Video) -> "Look":
        """As these clips show it. Percentiles, since a few objects may not be whole."""
        chunks = [_difference(chunk) for chunk in video.split(_CLIPS_AT_A_TIME)]
        bright = np.concatenate([_components(x, _MIN_CONTRAST).peaks for x in chunks])
        if not len(bright):
            return cls(contrast=2 * _MIN_CONTRAST, small=1.0, typical=1.0, large=1.0)
        contrast = float(np.median(bright))
        areas = np.concatenate([_components(x, contrast / 2).areas for x in chunks])
        small, typical, large = np.percentile(areas, [5, 50, 95]).tolist()
        return cls(contrast, small, typical, large)

    def find(self, video: Video) -> Float[Tensor, "b t m 2"]:
        """The objects in each frame, padded with NaN."""
        parts = [self._find(chunk) for chunk in video.split(_CLIPS_AT_A_TIME)]
        points = [of_frame for part in parts for of_frame in part]
        most = max(len(of_frame) for of_frame in points)
        padded = torch.full((len(points), most + 1, 2), torch.nan)  # one more: never none
        for row, of_frame in zip(padded, points, strict=True):
            row[: len(of_frame)] = torch.from_numpy(of_frame)
        return padded.reshape(len(video), video.shape[2], most + 1, 2)

    def _find(self, video: Video) -> list[Points]:
        difference = _difference(video)
        parts = _components(difference, self.contrast / 2)
        found = [[np.zeros((0, 2))] for _ in difference]
        objects = zip(parts.frames, parts.areas, parts.centres, strict=True)
        for i, (frame, area, centre) in enumerate(objects):
            if area > 1.5 * self.large:
                pixels = np.argwhere(parts.labels[frame] == i + 1)[:, ::-1].astype(float)
                found[frame].append(_cut(pixels, round(area / self.typical)))
            elif area >= self.small / 2:
                found[frame].append(centre[None])
        return [np.concatenate(of_frame) for of_frame in found]


class _Components(NamedTuple):
    """Connected pixels of one frame. Those of component i have the label i + 1."""

    labels: Int[np.ndarray, "f h w"]
    frames: Int[np.ndarray, " n"]
    centres: Points
    areas: Float[np.ndarray, " n"]
    peaks: Float[np.ndarray, " n"]


def _components(difference: Float[np.ndarray, "f h w"], threshold: float) -> _Components:
    """Of what differs by more than `threshold`. Diagonal neighbours are connected, frames not."""
    mask: Bool[np.ndarray, "f h w"] = difference > threshold
    labels, count = ndimage.label(mask, structure=_TOUCHING)  # pyright: ignore
    ids = labels[mask].astype(int) - 1
    areas = np.bincount(ids, minlength=count).astype(float)
    frames, y, x = (np.bincount(ids, where, count) / areas for where in mask.nonzero())
    peaks = np.zeros(count)
    np.maximum.at(peaks, ids, difference[mask])
    return _Components(labels, frames.round().astype(int), np.stack([x, y], 1), areas, peaks)


def _difference(video: Video) -> Float[np.ndarray, "f h w"]:
    """From the clip's median colour, in the channel that differs most, of RGB in [0, 1]."""
    pixels = (video.float() + 1) / 2
    ground = pixels.flatten(2).median(-1).values[:, :, None, None, None]
    return (pixels - ground).abs().amax(1).flatten(0, 1).cpu().numpy()


def _cut(pixels: Points, parts: int) -> Float[np.ndarray, "parts 2"]:
    """The centres of `parts` clusters, which begin at pixels far from each other."""
    centres = pixels[:1]
    while len(centres) < parts:
        centres = np.concatenate([centres, pixels[[cdist(pixels, centres).min(1).argmax()]]])
    for _ in range(_CUTTING_STEPS):
        nearest = cdist(pixels, centres).argmin(1)
        centres = np.stack([pixels[nearest == k].mean(0) for k in np.unique(nearest)])
    return centres
