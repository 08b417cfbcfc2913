"""The trunk that every objective shares: a spatiotemporal transformer on the latent grid.

It knows nothing of masks, noise or codes: hidden vectors in, hidden vectors out, modulated by one
condition vector a clip, and attending to context tokens if there are any.

Positions enter twice, both times as the sines and cosines of the same angles, so any grid can be
asked for: attention is rotary in time, height and width, and a linear map of them is added to the
input. Rotary positions alone are not enough: where all positions are masked all values are equal,
so is every mean of them, and the first codes of a clip would be drawn as if they had no place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import Settings
from vidcomp.nn.attention import AttentionBackend
from vidcomp.nn.blocks import Block, modulate
from vidcomp.nn.embeddings import Rotary3d
from vidcomp.types import Grid

SIZES = {"tiny": (4, 320, 5), "small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Depth, width and heads; all but tiny are DiT's S, B and L (arXiv:2212.09748, Table 1)."""


class BackboneConfig(Settings):
    """One dial, `size`, fixes depth, width and heads; each of these overrides it when given.

    attention=factorised attends over space, then over time, in place of both jointly.
    """

    size: Literal["tiny", "small", "base", "large"] = "tiny"
    depth: PositiveInt | None = None
    width: PositiveInt | None = None
    heads: PositiveInt | None = None
    attention: Literal["joint", "factorised"] = "joint"
    attention_backend: AttentionBackend = "auto"

    @model_validator(mode="after")
    def _heads_divide(self) -> "BackboneConfig":
        _, width, heads = self.dimensions
        if width % (2 * heads) or width // heads < 6:
            raise ValueError(
                f"width {width} and heads {heads} leave {width / heads:g} channels a head; "
                "they must be an even number of at least 6"
            )
        return self

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
        layers: Sequence[int] = (),
    ) -> Hidden:
        """`layers`: 0-indexed blocks whose output to return as well, in the order of depth.

        `context` tokens stand before the clip, all at the place of its first position, and are
        left out of the output. They need joint attention.
        """
        grid = Grid(*hidden.shape[1:4])
        turns = self.rotary.turns(grid, hidden.device)
        condition = F.silu(condition)
        x = rearrange(hidden, "b T H W c -> b (T H W) c")
        x = x + self.place(torch.view_as_real(turns).flatten(1))  # n (pairs 2) -> n c
        num_context = 0 if context is None else context.shape[1]
        if context is not None:
            x = torch.cat([context.to(x.dtype), x], dim=1)
            turns = torch.cat([torch.ones_like(turns[:1]).expand(num_context, -1), turns])
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, condition, turns, grid)
            if i in layers:
                kept.append(x[:, num_context:])
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        x = modulate(x[:, num_context:], shift, scale)
        return Hidden(rearrange(x, "b (T H W) c -> b T H W c", T=grid.t, H=grid.h), tuple(kept))
