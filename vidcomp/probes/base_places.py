"""Objects held against the places where they should be: matched with them, and followed.

All measures are this project's own [OWN]: see `counting`, which says what they are.

Letters: `n` places and `m` objects in a frame, padded with NaN, at least one row each.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Marks = dict[str, Tensor]
"""By measure: of each clip (b k), in each frame or (k = 1) as a whole; NaN where there is nothing
to measure."""

NUM_SHUFFLES = 5
"""Of the places among the clips of one N, to see what chance gives."""

NOBODY = -1
"""In the place of an object's number, where there is none."""


class Marked(NamedTuple):
    """What clips get, and what chance would give them."""

    marks: Marks
    chance: Marks

    def without(self, name: str) -> "Marked":
        marks, chance = ({k: x for k, x in m.items() if k != name} for m in self)
        return Marked(marks, chance)

    def beside(self, other: "Marked") -> "Marked":
        return Marked(self.marks | other.marks, self.chance | other.chance)


def of_places(
    objects: Float[Tensor, "b t m 2"],
    places: Float[Tensor, "b t n 2"],
    asked: Int64[Tensor, " b"],
    radius_px: float,
) -> Marked:
    """Whether objects are where they should be; by chance, where another clip's of the same N
    should be."""
    tried: list[Marks] = []
    for others in _others(asked):
        elsewhere = places[others].masked_fill((others == NOBODY)[:, None, None, None], torch.nan)
        tried.append(mark(objects, elsewhere, radius_px))
    marks = mark(objects, places, radius_px)
    return Marked(marks, {name: torch.stack([m[name] for m in tried]).nanmean(0) for name in marks})


def of_counts(counts: Int64[Tensor, "b t"], asked: Int64[Tensor, " b"]) -> Marked:
    """Whether counts are what they should be; by chance, if any of these clips had been shown."""
    marks = _of_number(counts, asked[:, None])
    chance = {name: torch.zeros_like(x) for name, x in marks.items()}
    for n in asked.unique():
        for name, x in _of_number(counts, n).items():
            chance[name][asked == n] = x.mean(0)
    return Marked(marks, chance)


def _of_number(counts: Int64[Tensor, "b t"], number: Tensor) -> Marks:
    off = (counts - number).double()
    right = (off == 0).all(1, keepdim=True).double()
    return {"bias": off, "mae": off.abs(), "exact": right}


def count(objects: Float[Tensor, "b t m 2"]) -> Int64[Tensor, "b t"]:
    """How many there are in each frame."""
    return (~objects[..., 0].isnan()).sum(2)


def mark(
    objects: Float[Tensor, "b t m 2"], places: Float[Tensor, "b t n 2"], radius_px: float
) -> Marks:
    """What clips get for their objects."""
    away = (places[..., None, :] - objects[..., None, :, :]).norm(dim=-1)  # b t n m
    which = match(away.flatten(0, 1), radius_px).reshape(places.shape[:3])  # b t n
    num_hits = (which != NOBODY).sum(2)
    num_places = count(places)
    # A clip in which nothing is asked for has no marks.
    num_objects = torch.where(num_places > 0, count(objects), 0)
    marks = {
        "recall": num_hits / num_places,
        "precision": num_hits / num_objects,
        "error_px": (_points(objects, which) - places).norm(dim=-1).nanmean(2),
    }
    if objects.shape[1] > 1:
        tracks = follow(objects, which[:, 0], 2 * radius_px)
        path_error = (_points(objects, tracks) - places).norm(dim=-1).flatten(1)
        marks["path_error_px"] = path_error.nanmean(1, keepdim=True)
        marks["switches"] = _switches(which, tracks)[:, None]
    return {name: x.double() for name, x in marks.items()}


def match(away: Float[Tensor, "f n m"], reach_px: float) -> Int64[Tensor, "f n"]:
    """For each of n, which of m is matched with it, or `NOBODY`.

    One to one, no pair further apart than `reach_px`: as many pairs as possible and, among such
    choices, that with the smallest sum of distances.
    """
    within = (away <= reach_px).cpu().numpy()  # not so for NaN
    too_far = (1 + min(away.shape[1:])) * (1 + reach_px)  # dearer than all others together
    cost = away.masked_fill(~(away <= reach_px), too_far).cpu().numpy()
    which = torch.full(away.shape[:2], NOBODY)
    for frame in np.flatnonzero(within.any((1, 2))):
        rows, columns = linear_sum_assignment(cost[frame])
        are_near = within[frame, rows, columns]
        which[frame, rows[are_near]] = torch.from_numpy(columns[are_near])
    return which


def follow(
    objects: Float[Tensor, "b t m 2"], first: Int64[Tensor, "b n"], reach_px: float
) -> Int64[Tensor, "b t n"]:
    """Objects that were `first` among those of frame 0: which one each is in every frame, the
    nearest to where it was a frame before. One that is lost, further away than `reach_px`, stays
    `NOBODY`."""
    tracks = [first]
    for before, after in pairwise(objects.unbind(1)):
        last = _points(before, tracks[-1])
        tracks.append(match((last[:, :, None] - after[:, None]).norm(dim=-1), reach_px))
    return torch.stack(tracks, dim=1)


def _points(objects: Float[Tensor, "*b m 2"], which: Int64[Tensor, "*b n"]) -> Tensor:
    """The places (*b n 2) of `which` of the objects; NaN for nobody."""
    rows = which.clamp_min(0)[..., None].expand(*which.shape, 2)
    return objects.gather(-2, rows).masked_fill((which == NOBODY)[..., None], torch.nan)


def _switches(which: Int64[Tensor, "b t n"], tracks: Int64[Tensor, "b t n"]) -> Float[Tensor, " b"]:
    """How often an object that is followed is at another's place than where it was last at one; NaN
    if none is followed."""
    last = torch.arange(which.shape[2]).expand(which.shape[0], -1)
    switches = torch.zeros(len(which))
    for matched, followed in zip(which.unbind(1), tracks.unbind(1), strict=True):
        is_at = (followed[:, :, None] == matched[:, None]) & (followed != NOBODY)[:, :, None]
        known, now = is_at.any(2), is_at.int().argmax(2)  # b n: of objects, in terms of places
        switches += (known & (now != last)).sum(1)
        last = torch.where(known, now, last)
    return switches.masked_fill((tracks[:, 0] == NOBODY).all(1), torch.nan)


def _others(asked: Int64[Tensor, " b"]) -> Int64[Tensor, "s b"]:
    """For each clip, a few others of the same number of objects; `NOBODY` if there is no other."""
    others = torch.full((NUM_SHUFFLES, len(asked)), NOBODY)
    for n in asked.unique().tolist():
        rows = (asked == n).nonzero()[:, 0]
        for shift in range(1, min(NUM_SHUFFLES + 1, len(rows))):
            others[shift - 1, rows] = rows.roll(shift)
    return others
