"""Attention within a window: each position of the grid attends to those no further than a radius,
in time and in space, at a cost linear in the number of positions.

Distance is the larger of the distances along the axes (a window is a box), and a window is cut at
the grid's borders. Queries are taken in tiles. The keys of a tile are those of the box that its
windows fill, and a mask cuts each query's own window out of that box: block-sparse attention, whose
tiles go through the same kernels as any other attention. A masked key weighs exactly 0, forward and
backward, so nothing leaks.

Unusual: tiles never stick out of the grid. The last one along an axis is moved back until it fits,
and of the answers that are made twice the first is taken; so nothing is padded. On CUDA,
``attention_backend=flex`` runs FlexAttention over the same blocks in place of tiles. It was tried
on a CPU only, forward and uncompiled: there is no backward there (torch 2.13).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from vidcomp.nn.attention import AttentionBackend, attend, choose
from vidcomp.types import Grid

_TILE = Grid(1, 4, 4)
"""The least that a tile holds. Along an axis it holds two radii if that is more: then tiles see
twice what they hold, whatever the radius, so that no key is copied more than 2 x 2 x 2 times."""

_FLEX_BLOCK = 128  # positions


@dataclass(frozen=True)
class Window:
    """How far each position of `grid` attends along each axis.

    `of_clip`: each clip's own radius in height and width, where it is less than `radius`.
    """

    grid: Grid
    radius: Grid
    of_clip: Int64[Tensor, " b"] | None = None

    @classmethod
    def of(
        cls,
        grid: Grid,
        *,
        frames: int | None,
        cells: int | None,
        of_clip: Int64[Tensor, " b"] | None = None,
    ) -> "Window":
        """Radii in time and in space; None is everywhere."""
        t, h, w = (size - 1 for size in grid)
        frames = t if frames is None else min(frames, t)
        radius = Grid(frames, *(side if cells is None else min(cells, side) for side in (h, w)))
        return cls(grid, radius, of_clip if radius.h + radius.w else None)

    def on(self, grid: Grid) -> "Window":
        """The same on a part of the grid: one frame, or one place in time."""
        radius = Grid(*(min(r, size - 1) for r, size in zip(self.radius, grid, strict=True)))
        return replace(
            self, grid=grid, radius=radius, of_clip=self.of_clip if radius.h + radius.w else None
        )

    @property
    def own_place_only(self) -> bool:
        return not any(self.radius)

    @property
    def everywhere(self) -> bool:
        reaches_all = all(r == size - 1 for r, size in zip(self.radius, self.grid, strict=True))
        return reaches_all and self.of_clip is None


@dataclass(frozen=True)
class Tiles:
    """Positions as indices into the flat grid. `near`: whether a key is in a query's window, whose
    `distance` in height and width is that. `slot`: the first answer to each position.
    """

    queries: Int64[Tensor, "tiles s"]
    keys: Int64[Tensor, "tiles k"]
    near: Bool[Tensor, "tiles s k"]
    distance: Int64[Tensor, "tiles s k"]
    slot: Int64[Tensor, " n"]


def attend_within(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads n d"],
    v: Float[Tensor, "b heads n d"],
    window: Window,
    *,
    backend: AttentionBackend = "auto",
) -> Float[Tensor, "b heads n d"]:
    """softmax(q k^T / sqrt(d)) v, over the keys in each query's window."""
    if window.own_place_only:
        return v
    if window.everywhere:
        return attend(q, k, v, backend=backend)
    if choose(backend, q) == "flex":
        return attend_in_blocks(q, k, v, window, kernel=_compiled_flex())
    tiles = tiles_of(window.grid, window.radius, q.device)
    near = tiles.near.expand(len(q), -1, -1, -1)
    if window.of_clip is not None:
        near = near & (tiles.distance <= _each(window.of_clip, len(q))[:, None, None, None])
    out = attend(
        _tiled(q, tiles.queries),
        _tiled(k, tiles.keys),
        _tiled(v, tiles.keys),
        mask=near.flatten(0, 1)[:, None],
        backend=backend,
    )
    out = rearrange(out, "(b tiles) h s d -> b (tiles s) (h d)", b=len(q))
    return rearrange(out.index_select(1, tiles.slot), "b n (h d) -> b h n d", h=q.shape[1])


def num_products(grid: Grid, window: Window | None) -> int:
    """Products of a query with a key that a head computes for a clip; without a window, all."""
    if window is None or window.everywhere:
        return grid.size**2
    if window.own_place_only:
        return 0
    sides = [_sides(grid, window.radius, axis) for axis in range(3)]
    return math.prod(
        math.ceil(size / tile) * tile * seen for size, (tile, seen) in zip(grid, sides, strict=True)
    )


@functools.lru_cache(maxsize=32)  # as many as a network has different layers
def tiles_of(grid: Grid, radius: Grid, device: torch.device) -> Tiles:
    """The tiles of a grid, and what each sees."""
    tiles: list[Tensor] = []
    seen: list[Tensor] = []
    for axis, (size, r) in enumerate(zip(grid, radius, strict=True)):
        side, num_seen = _sides(grid, radius, axis)
        first = torch.arange(0, size, side, device=device).clamp_max(size - side)
        from_ = (first - r).clamp(0, size - num_seen)
        tiles.append(first[:, None] + torch.arange(side, device=device))
        seen.append(from_[:, None] + torch.arange(num_seen, device=device))
    queries, keys = _boxes(tiles, grid), _boxes(seen, grid)
    places = [torch.unravel_index(index, grid) for index in (queries, keys)]
    t, h, w = ((a[:, :, None] - b[:, None]).abs() for a, b in zip(*places, strict=True))
    answers = torch.arange(queries.numel(), device=device)
    slot = answers.new_full((grid.size,), queries.numel())
    return Tiles(
        queries,
        keys,
        near=(t <= radius.t) & (h <= radius.h) & (w <= radius.w),
        distance=torch.maximum(h, w),
        slot=slot.scatter_reduce(0, queries.flatten(), answers, "amin"),
    )


def attend_in_blocks(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads n d"],
    v: Float[Tensor, "b heads n d"],
    window: Window,
    *,
    kernel: Callable[..., Tensor],
) -> Float[Tensor, "b heads n d"]:
    """The same by `kernel`, FlexAttention compiled or not, which skips blocks without a pair."""
    grid, radius = window.grid, window.radius
    t, h, w = torch.unravel_index(torch.arange(grid.size, device=q.device), grid)
    of_clip = q.new_full((1,), max(radius), dtype=torch.int64)
    of_clip = _each(of_clip if window.of_clip is None else window.of_clip, len(q))

    def near(b: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        y, x = (h[i] - h[j]).abs(), (w[i] - w[j]).abs()
        of_all = ((t[i] - t[j]).abs() <= radius.t) & (y <= radius.h) & (x <= radius.w)
        return of_all & (y <= of_clip[b]) & (x <= of_clip[b])

    blocks = flex_blocks(tiles_of(grid, radius, q.device))
    block_mask = BlockMask.from_kv_blocks(
        blocks.sum(-1, dtype=torch.int32)[None, None],
        blocks.int().argsort(stable=True, dim=-1, descending=True).to(torch.int32)[None, None],
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=near,
        seq_lengths=(grid.size, grid.size),
    )
    return kernel(q, k, v, block_mask=block_mask)


def flex_blocks(tiles: Tiles) -> Bool[Tensor, "blocks blocks"]:
    """Which blocks of successive positions hold a pair that attends."""
    num = math.ceil(len(tiles.slot) / _FLEX_BLOCK)
    pairs = tiles.queries[:, :, None] // _FLEX_BLOCK * num + tiles.keys[:, None] // _FLEX_BLOCK
    found = torch.zeros(num * num, dtype=torch.bool, device=pairs.device)
    found[pairs[tiles.near]] = True
    return found.reshape(num, num)


@functools.lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


def _sides(grid: Grid, radius: Grid, axis: int) -> tuple[int, int]:
    """How much of an axis a tile holds, and how much of it its queries see."""
    size, r = grid[axis], radius[axis]
    if r == size - 1:
        return size, size
    tile = min(size, max(_TILE[axis], 2 * r))
    return tile, min(size, tile + 2 * r)


def _boxes(axes: list[Tensor], grid: Grid) -> Int64[Tensor, "tiles n"]:
    """Flat indices of all boxes that are the product of one row of each axis."""
    t, h, w = axes
    t = rearrange(t, "tiles side -> tiles 1 1 side 1 1")
    h = rearrange(h, "tiles side -> tiles 1 1 side 1")
    return ((t * grid.h + h) * grid.w + w[:, None, None]).flatten(3).flatten(0, 2)


def _tiled(x: Tensor, index: Int64[Tensor, "tiles m"]) -> Float[Tensor, "b_tiles heads m d"]:
    rows = rearrange(x, "b h n d -> b n (h d)").index_select(1, index.flatten())
    tiles, heads = len(index), x.shape[1]
    return rearrange(rows, "b (tiles m) (h d) -> (b tiles) h m d", tiles=tiles, h=heads)


def _each(of_clip: Int64[Tensor, " b"], batch: int) -> Int64[Tensor, " b_all"]:
    """For every row of a batch in which a clip has several, one after the other."""
    return of_clip.repeat_interleave(batch // len(of_clip))
