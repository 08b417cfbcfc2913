"""Placement: objects at random places in the frame, none nearer to another than a minimum distance.

Object after object is put at a place drawn uniformly among those that are still free (random
sequential placement). So where object j lies has one distribution, however many come after it: the
first is uniform, and more objects leave the earlier ones where they were. Later ones lie near the
edges more often, where fewer neighbours keep them away: of ten discs, 7 apart in a square of 27,
half lie in the outer tenth, which is 36 % of the area; of three, 38 %.

A clip is a pure function of its stream: if an object finds no room, all of the clip starts again
with the next stream, which says nothing of the other clips.

Unusual: there is a second way, mirrored, which correlates places. It is for experiments that should
fail: a generator that learns it looks for an object across the frame.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.world.physics import Corners

Manner = Literal["free", "mirrored"]

_CANDIDATES = 64
"""Places drawn for one object, of which it takes the first free one."""

_MAX_ATTEMPTS = 200
_TRIAL_CLIPS = 64
_TRIAL_ATTEMPTS = 20
"""All trial clips get by with these only if an attempt succeeds in some 1 of 6 cases or more; then
200 in a row fail less often than once in 10^15."""


class _Placed(NamedTuple):
    centres: Float[Tensor, "b n 2"]
    done: Bool[Tensor, "b n"]


def place(
    present: Bool[Tensor, "b n"], room: Corners, rng: Rng, *, apart: float, manner: Manner = "free"
) -> Float[Tensor, "b n 2"]:
    """Centres within `room`, at least `apart` from each other; 0 where nothing is present.

    manner=mirrored: objects 0 and 1, 2 and 3, ... mirror each other about the upright line through
    the middle of the room; where one of the two is absent, the other lies anywhere.
    """
    centres = torch.zeros(*present.shape, 2, device=present.device)
    left = torch.arange(len(present), device=present.device)
    for attempt in range(_MAX_ATTEMPTS):
        low, high = room[0][left], room[1][left]
        tried = _attempt(present[left], (low, high), rng[left].fold(attempt), apart, manner)
        centres[left] = tried.centres
        left = left[(tried.done != present[left]).any(1)]
        if not len(left):
            return centres
    most = int(present.sum(1).amax())
    raise UserError(f"{most} objects {apart:.3g} apart find no room; ask for fewer or smaller ones")


def capacity(
    width: float, height: float, *, apart: float, at_most: int, manner: Manner = "free"
) -> int:
    """How many objects, up to `at_most`, `place` is sure to find places for in a room of this size.

    More are refused at once if a theorem excludes them: points that are d apart in a convex room of
    area A and perimeter P are at most 2 A / (sqrt(3) d^2) + P / (2 d) + 1 (Oler 1961, Acta Math.
    105). What is left is tried.
    """
    if min(width, height) <= 0:
        return 0
    bound = 2 * width * height / (math.sqrt(3) * apart**2) + (width + height) / apart + 1
    clips = torch.arange(_TRIAL_CLIPS)
    present = torch.ones(_TRIAL_CLIPS, min(at_most, math.floor(bound)), dtype=torch.bool)
    room = torch.zeros(_TRIAL_CLIPS, 2), torch.tensor([width, height]).expand(_TRIAL_CLIPS, 2)
    found = torch.zeros(_TRIAL_CLIPS, dtype=torch.int64)
    for attempt in range(_TRIAL_ATTEMPTS):
        rng = Rng.make(0, "capacity", clips, step=attempt)
        done = _attempt(present, room, rng, apart, manner).done
        found = found.maximum(done.int().cumprod(1).sum(1))  # up to the first that is not
        if (found == present.shape[1]).all():
            break
    return int(found.amin())


def _attempt(
    present: Bool[Tensor, "b n"], room: Corners, rng: Rng, apart: float, manner: Manner
) -> _Placed:
    """Objects in turn; those that find no place among their candidates are not done."""
    b, n = present.shape
    low, high = (corner[:, None] for corner in room)  # b 1 2
    places = low[:, None] + rng.uniform(n, _CANDIDATES, 2) * (high - low)[:, None]  # b n c 2
    centres, done = torch.zeros(b, n, 2, device=present.device), torch.zeros_like(present)
    rows = torch.arange(b, device=present.device)
    for j in range(n):
        candidates, so_far = places[:, j], (centres[:, :j], done[:, :j])
        free = _is_free(candidates, *so_far, apart)
        if manner == "mirrored" and j % 2:  # the place was kept free for it
            second = present[:, j - 1 : j]
            across = _mirrored(centres[:, j - 1 : j], low, high)
            candidates = torch.where(second[..., None], across, candidates)
            free = torch.where(second, done[:, j - 1 : j], free)
        elif manner == "mirrored" and j + 1 < n:
            across = _mirrored(candidates, low, high)
            both = free & _is_free(across, *so_far, apart)
            both = both & ((candidates - across)[..., 0].abs() >= apart)
            free = torch.where(present[:, j + 1 : j + 2], both, free)
        done[:, j] = present[:, j] & free.any(1)
        centres[:, j] = candidates[rows, free.int().argmax(1)] * done[:, j, None]
    return _Placed(centres, done)


def _is_free(
    candidates: Float[Tensor, "b c 2"],
    centres: Float[Tensor, "b j 2"],
    done: Bool[Tensor, "b j"],
    apart: float,
) -> Bool[Tensor, "b c"]:
    """Whether a candidate is far enough from all objects so far."""
    away = candidates[:, :, None] - centres[:, None]  # b c j 2
    near = away.square().sum(-1) < apart**2
    return ~(near & done[:, None]).any(-1)


def _mirrored(
    points: Float[Tensor, "b c 2"], low: Float[Tensor, "b 1 2"], high: Float[Tensor, "b 1 2"]
) -> Float[Tensor, "b c 2"]:
    x, y = points.unbind(-1)
    return torch.stack([(low + high)[..., 0] - x, y], dim=-1)
