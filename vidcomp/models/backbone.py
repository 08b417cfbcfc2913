"""The trunk that every objective shares: a spatiotemporal transformer on the latent grid.

It knows nothing of masks, noise or codes: hidden vectors in, hidden vectors out, modulated by one
condition vector a clip, and attending to context tokens if there are any.

Positions enter twice, both times as the sines and cosines of the same angles, so any grid can be
asked for: attention is rotary in time, height and width, and a linear map of them is added to the
input. Rotary positions alone are not enough: where all positions are masked all values are equal,
so is every mean of them, and the first codes of a clip would be drawn as if they had no place.

Locality is enforced by windows: nothing from outside one reaches the output at its middle, for all
else works on each position alone. A window is the receptive field of all layers together. Its
radius is shared out over the blocks as evenly as possible, and what is left over goes to those
nearest the middle of the trunk (the earlier first): each place can prepare what it shows, and work
on what it has seen. A block that is left with no radius attends to its own place only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import Settings
from vidcomp.nn.attention import AttentionBackend
from vidcomp.nn.blocks import Block, modulate
from vidcomp.nn.embeddings import Rotary3d
from vidcomp.nn.windows import Window
from vidcomp.types import Grid

SIZES = {"tiny": (4, 320, 5), "small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Depth, width and heads; all but tiny are DiT's S, B and L (arXiv:2212.09748, Table 1)."""


class BackboneConfig(Settings):
    """One dial, `size`, fixes depth, width and heads; each of these overrides it when given.

    attention=factorised attends over space, then over time, in place of both jointly.

    `window`: how much of the latent grid's height and width an output can depend on at most, over
    all layers, in cells; odd. `window_frames`: the same in latent frames. null: everything.
    `window_at_noise`: the window at level 0, from which it shrinks to `window` at level 1, its
    radius linear in the level and rounded. `global_blocks`: so many first blocks have no window;
    what is local of the condition enters after them.
    """

    size: Literal["tiny", "small", "base", "large"] = "tiny"
    depth: PositiveInt | None = None
    width: PositiveInt | None = None
    heads: PositiveInt | None = None
    attention: Literal["joint", "factorised"] = "joint"
    attention_backend: AttentionBackend = "auto"
    window: int | None = None
    window_frames: int | None = None
    window_at_noise: int | None = None
    global_blocks: NonNegativeInt = 0

    @model_validator(mode="after")
    def _heads_divide(self) -> "BackboneConfig":
        _, width, heads = self.dimensions
        if width % (2 * heads) or width // heads < 6:
            raise ValueError(
                f"width {width} and heads {heads} leave {width / heads:g} channels a head; "
                "they must be an even number of at least 6"
            )
        return self

    @model_validator(mode="after")
    def _windows_have_a_middle(self) -> "BackboneConfig":
        for name in ("window", "window_frames", "window_at_noise"):
            size: int | None = getattr(self, name)
            if size is None:
                continue
            if size < 1:
                raise ValueError(f"{name}={size} is smaller than a token; the least window is 1")
            if size % 2 == 0:
                raise ValueError(
                    f"{name}={size} has no token in its middle; take {size - 1} or {size + 1}"
                )
        return self

    @model_validator(mode="after")
    def _windows_have_a_meaning(self) -> "BackboneConfig":
        depth, _, _ = self.dimensions
        if self.window_at_noise is not None and self.window_at_noise < (self.window or math.inf):
            raise ValueError(
                f"window_at_noise={self.window_at_noise} shrinks to window={self.window} as the "
                "noise goes; set window to no more than that, or drop window_at_noise"
            )
        if self.global_blocks and not self.has_windows:
            raise ValueError(
                f"global_blocks={self.global_blocks}: without a window all blocks are global; set "
                "window or window_frames, or drop it"
            )
        if self.global_blocks >= depth:
            raise ValueError(
                f"global_blocks={self.global_blocks} leaves no block of {depth} a window; "
                f"at most {depth - 1}"
            )
        if self.has_windows and self.attention_backend == "xformers":
            raise ValueError("attention_backend=xformers has no windows; use auto, or flex on CUDA")
        return self

    @property
    def has_windows(self) -> bool:
        return self.window is not None or self.window_frames is not None

    def windows(
        self, grid: Grid, level: Float[Tensor, " b"] | None = None
    ) -> tuple[Window | None, ...]:
        """Each block's window. `level` is needed with `window_at_noise`."""
        depth, _, _ = self.dimensions
        if not self.has_windows:
            return (None,) * depth
        num = depth - self.global_blocks
        frames = _shared_out(self.window_frames and self.window_frames // 2, num)
        cells = _shared_out(self.window and self.window // 2, num)
        of_clip: list[Tensor] | list[None] = [None] * num
        if self.window_at_noise is not None:
            assert self.window is not None and level is not None
            most, least = self.window_at_noise // 2, self.window // 2
            cells = _shared_out(most, num)
            radius = (most + (least - most) * level).round().long()
            of_clip = _shared_out(radius, num)
        windows = [
            Window.of(grid, frames=t, cells=s, of_clip=r)
            for t, s, r in zip(frames, cells, of_clip, strict=True)
        ]
        return (*[None] * self.global_blocks, *windows)

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Depth, width, heads."""
        depth, width, heads = SIZES[self.size]
        return self.depth or depth, self.width or width, self.heads or heads


@dataclass(frozen=True)
class Hidden:
    """The trunk's output, and the hidden states after each layer that was asked for."""

    out: Float[Tensor, "b T H W c"]
    layers: tuple[Float[Tensor, "b n c"], ...] = ()


class Backbone(nn.Module):
    """See the module's text."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        depth, self.width, heads = config.dimensions
        self.rotary = Rotary3d(self.width // heads)
        self.blocks = nn.ModuleList(
            Block(
                self.width,
                heads,
                factorised=config.attention == "factorised",
                backend=config.attention_backend,
            )
            for _ in range(depth)
        )
        self.place = nn.Linear(self.width // heads, self.width)
        self.modulation = nn.Linear(self.width, 2 * self.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        hidden: Float[Tensor, "b T H W c"],
        condition: Float[Tensor, "b c"],
        context: Float[Tensor, "b m c"] | None = None,
        *,
        local: Float[Tensor, "b T H W c"] | None = None,
        level: Float[Tensor, " b"] | None = None,
        layers: Sequence[int] = (),
    ) -> Hidden:
        """`layers`: 0-indexed blocks whose output to return as well, in the order of depth.

        `context` tokens stand before the clip, all at the place of its first position, and are
        left out of the output. They need joint attention, without windows. `local` is added to the
        hidden vectors of the same position after the global blocks. `level` sets the width of a
        window that follows it.
        """
        grid = Grid(*hidden.shape[1:4])
        turns = self.rotary.turns(grid, hidden.device)
        condition = F.silu(condition)
        x = rearrange(hidden, "b T H W c -> b (T H W) c")
        x = x + self.place(torch.view_as_real(turns).flatten(1))  # n (pairs 2) -> n c
        num_context = 0 if context is None else context.shape[1]
        if context is not None:
            assert not self.config.has_windows, "context tokens are a path around every window"
            x = torch.cat([context.to(x.dtype), x], dim=1)
            turns = torch.cat([torch.ones_like(turns[:1]).expand(num_context, -1), turns])
        kept: list[Tensor] = []
        windows = self.config.windows(grid, level)
        for i, (block, window) in enumerate(zip(self.blocks, windows, strict=True)):
            if local is not None and i == self.config.global_blocks:
                x = x + F.pad(local.flatten(1, 3), (0, 0, num_context, 0))  # none for context
            x = block(x, condition, turns, grid, window)
            if i in layers:
                kept.append(x[:, num_context:])
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        x = modulate(x[:, num_context:], shift, scale)
        return Hidden(rearrange(x, "b (T H W) c -> b T H W c", T=grid.t, H=grid.h), tuple(kept))


Radius = TypeVar("Radius", int, Tensor)


def _shared_out(radius: Radius | None, num: int) -> list[Radius] | list[None]:
    """Shares of `num` blocks that sum up to the radius. One more of it is one more of one share, so
    a smaller window lies within a larger one at every block."""
    if radius is None:
        return [None] * num
    middle_first = sorted(range(num), key=lambda i: abs(2 * i + 1 - num))
    return [(radius + num - 1 - middle_first.index(i)) // num for i in range(num)]
