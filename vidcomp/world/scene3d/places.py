"""Where solids start: apart from each other, and where the solid that the factors control stays in
sight."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.scene3d.styles import Style

GAP = 0.25
"""Least distance between two solids at the start, in world units; CLEVR's."""

TRIES = 64
"""Places that are tried for each solid; one that finds none is left out."""


def find_places(
    style: Style,
    radius: Float[Tensor, "b n"],
    wanted: Bool[Tensor, "b n"],
    rng: Rng,
    *,
    attempt: int,
    farthest: float,
) -> tuple[Float[Tensor, "b n 2"], Bool[Tensor, "b n"]]:
    """The start of each solid, and which of those wanted have found a place.

    Around solid 0 there is room for the largest, and it starts where it stays in sight if it goes
    `farthest` in any direction: so its place tells nothing. Another `attempt` leaves it there.
    """
    n = radius.shape[1]
    reserved = torch.cat([torch.full_like(radius[:, :1], style.largest), radius[:, 1:]], dim=1)
    half = torch.full((n, 1, 1), style.arena)
    half[0] = max(style.arena - farthest, 0)
    places_rng = rng.fold("place")
    draws = places_rng.uniform(n, TRIES, 2)
    if attempt:
        draws[:, 1:] = places_rng.fold(attempt).uniform(n - 1, TRIES, 2)
    tries = half * (draws * 2 - 1)
    places, present = tries[:, :, 0].clone(), wanted.clone()
    for i in range(1, n):
        apart = tries[:, i, :, None] - places[:, None, :i]  # b tries i 2
        far = apart[..., 0] ** 2 + apart[..., 1] ** 2
        least = (reserved[:, :i] + reserved[:, i : i + 1] + GAP) ** 2
        free = ((far > least[:, None]) | ~present[:, None, :i]).all(-1)  # b tries
        present[:, i] &= free.any(1)
        places[:, i] = tries[torch.arange(len(rng)), i, free.float().argmax(1)]
    return places, present
