"""Attention within a window beside attention of all to all: forward and backward, of one clip of
one frame, by the number of its tokens.

A window should cost what it holds: as much for each token, however many there are.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from vidcomp.bench.measure import BenchConfig, Figure, Job, Limit, Spread, in_turn
from vidcomp.models.backbone import BackboneConfig
from vidcomp.nn.attention import attend
from vidcomp.nn.windows import Window, attend_within
from vidcomp.types import Grid

SIDES = (16, 32, 64, 128)
RADII = (1, 2)

FASTER = Limit("<=", 1.0)
FASTER_FROM = 4096  # tokens

LINEAR = Limit("<=", 1.2)
"""Of the power that fits best. Attention of all to all has 2; what few tokens need stays in the
processor's caches, which makes it more than 1."""


def bench_windows(config: BenchConfig, *, sides: Sequence[int] = SIDES) -> Iterator[Figure]:
    """Each radius at each size, all within the same repeats, and how it grows with the size."""
    grids = [Grid(1, side, side) for side in sides]
    jobs = [_job(config, grid, radius) for radius in (*RADII, None) for grid in grids]
    times = in_turn(config, jobs, are_long=True)
    whole = times[-len(grids) :]
    for k, radius in enumerate(RADII):
        windowed = times[k * len(grids) :][: len(grids)]
        name = f"attention, window {2 * radius + 1}"
        for grid, taken, reference in zip(grids, windowed, whole, strict=True):
            seconds = Spread.of(taken)
            yield Figure(
                f"{name}, {grid.size} tokens",
                seconds,
                rate=grid.size / seconds.median / 1e3,
                unit="ktokens/s",
                ratio=Spread.of(taken / reference),
                reference="x attention of all to all",
                limit=FASTER if grid.size >= FASTER_FROM else None,
                note=f"{config.precision} on {config.device}",
            )
        powers = np.polyfit(np.log([grid.size for grid in grids]), np.log(windowed), 1)[0]
        seconds = Spread.of(windowed[-1])
        yield Figure(
            f"{name}, growth to {grids[-1].size} tokens",
            seconds,
            rate=grids[-1].size / seconds.median / 1e3,
            unit="ktokens/s",
            ratio=Spread.of(powers),
            reference="power of the number of tokens",
            limit=LINEAR,
        )


def _job(config: BenchConfig, grid: Grid, radius: int | None) -> Job:
    """In the heads of a trunk; `radius` None: all to all."""
    raw = {} if config.size is None else {"size": config.size}
    _, width, heads = BackboneConfig.model_validate(raw).dimensions
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    shape = (1, grid.size, heads, width // heads)
    leaves = [
        torch.randn(shape, dtype=dtype, device=config.device).requires_grad_() for _ in range(3)
    ]
    window = Window.of(grid, frames=None, cells=radius)
    upstream = torch.randn(shape, dtype=dtype, device=config.device).transpose(1, 2)

    def take() -> None:
        q, k, v = (x.transpose(1, 2) for x in leaves)
        out = attend(q, k, v) if radius is None else attend_within(q, k, v, window)
        torch.autograd.grad(out, leaves, upstream)

    return take
