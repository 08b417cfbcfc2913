"""A world whose denoiser is known in closed form, and composes by construction; and denoisers that
do not.

Each object owns the block of 3 x 3 cells around its own, in all frames. In every cell of it stands
the same sign, drawn for each object: one channel, -1 or 1. All other cells are background,
independent normal draws. The posterior mean is tanh of a sum over the block, or what is left of a
cell's own noise.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vidcomp.probes.base_locality import Belief, Scenes
from vidcomp.seeding import Rng

WINDOW = 3
ALPHA, SIGMA = 0.25, 1.0
SURE = 0.8
"""The probability that a token shows its object's sign."""


def scenes_of(
    cells: Sequence[Sequence[tuple[int, int]]],
    *,
    size: int = 12,
    frames: int = 1,
    discrete: bool = False,
) -> Scenes:
    """Objects in the middle of the cells (column, line). Noised; `discrete`, half of it hidden."""
    b, n = len(cells), max(map(len, cells))
    points, given = torch.zeros(b, frames, n, 2), torch.zeros(b, n, dtype=torch.bool)
    for row, places in enumerate(cells):
        for k, place in enumerate(places):
            points[row, :, k] = (torch.tensor(place) + 0.5) / size
            given[row, k] = True
    rng = Rng.make(0, "local world", torch.arange(b))
    grid = (frames, size, size)
    everywhere = torch.ones(b, *grid, dtype=torch.bool)
    signs = 2.0 * rng.fold("signs").bernoulli(0.5, n) - 1
    clean = rng.fold("background").normal(*grid, 1)
    blank = Scenes(clean, clean, everywhere, everywhere, points, given, clean)
    block = blank.regions(WINDOW).unflatten(2, grid)[..., None]  # b n T H W 1
    values = signs[:, :, None, None, None, None]
    if discrete:
        told = rng.fold("tokens").bernoulli(SURE, *grid, 1)[:, None]
        clean = clean.sign()
        values = torch.where(told, values, -values)
    clean = torch.where(block.any(1), (block * values).sum(1), clean)
    if discrete:
        shown = rng.fold("shown").bernoulli(0.5, *grid)
        x, other = (part * shown[..., None] for part in (clean, clean.roll(1, 0)))
        return Scenes(x, other, shown, ~shown, points, given, clean)
    x = ALPHA * clean + SIGMA * rng.fold("noise").normal(*grid, 1)
    return Scenes(x, x.roll(1, 0), everywhere, everywhere, points, given, clean, ALPHA, SIGMA)


def blocks(scenes: Scenes, points: Tensor, given: Tensor) -> Tensor:
    """One in what belongs to each object that is told; it grows as the object's point moves."""
    near = replace(scenes, points=points.detach(), given=given).regions(WINDOW)
    moved = 1 + 0.1 * (points - points.detach()).sum((1, 3))[..., None]
    return (near * moved).unflatten(2, scenes.grid)[..., None]  # b n T H W 1


def oracle(scenes: Scenes) -> Belief:
    """The posterior mean of the latents."""

    def mean(x: Tensor, points: Tensor, given: Tensor) -> Tensor:
        block = blocks(scenes, points, given)
        evidence = ALPHA / SIGMA**2 * (block * x[:, None]).sum((2, 3, 4), keepdim=True)
        background = ALPHA * x / (ALPHA**2 + SIGMA**2)
        told = (block * torch.tanh(evidence)).sum(1)
        return torch.where(block.detach().any(1), told, background)

    return Belief(scenes, mean)


def discrete_oracle(scenes: Scenes) -> Belief:
    """The log-probabilities of the codes -1 and 1."""
    odds = torch.tensor(SURE / (1 - SURE)).log()

    def log_p(x: Tensor, points: Tensor, given: Tensor) -> Tensor:
        block = blocks(scenes, points, given)
        sign = torch.sigmoid(odds * (block * x[:, None]).sum((2, 3, 4), keepdim=True))
        up = (block * (sign * SURE + (1 - sign) * (1 - SURE))).sum(1)
        up = torch.where(block.detach().any(1), up, 0.5)
        return torch.cat([1 - up, up], dim=-1).log()

    return Belief(scenes, log_p, codebooks=(2,))


def global_one(local: Belief) -> Belief:
    """The same, dimmed by how many objects there are in all, and shifted by the mean of what is
    shown and of their places."""

    def of(x: Tensor, points: Tensor, given: Tensor) -> Tensor:
        count = given.sum(1)[:, None, None, None, None]
        shift = x.mean((1, 2, 3, 4)) + points.mean((1, 2, 3))
        out = local.of(x, points, given) / (1 + count) + 0.0
        out[..., 0] = out[..., 0] + torch.sin(3 * shift)[:, None, None, None]
        return out.log_softmax(-1) if local.codebooks else out

    return Belief(local.scenes, of, local.codebooks)
