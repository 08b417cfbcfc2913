"""Embeddings of numbers and positions: Fourier features of a scalar, rotary positions in time and space."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidcomp.types import Grid


class FourierEmbedding(nn.Module):
    """A vector of numbers as sines and cosines, through a two-layer MLP.

    Frequencies run from 1 to `max_frequency` per unit, so inputs should be of order 1.
    """

    def __init__(self, size: int, width: int, *, max_frequency: float = 64.0) -> None:
        super().__init__()
        num = 32
        frequencies = 2 * math.pi * max_frequency ** (torch.arange(num) / (num - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(size * 2 * num, width), nn.SiLU(), nn.Linear(width, width))

    frequencies: Tensor

    def forward(self, x: Float[Tensor, "b size"]) -> Float[Tensor, "b width"]:
        angles = (x[..., None] * self.frequencies).flatten(1)
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class Rotary3d(nn.Module):
    """Rotary positions with the head's channels shared out among time, height and width.

    Relative in all three axes: the score of two positions depends on their difference only
    (arXiv:2104.09864, axis by axis). A quarter of the pairs goes to time, the rest to space.
    """

    def __init__(self, head_width: int, *, theta: float = 100.0) -> None:
        super().__init__()
        pairs = head_width // 2
        assert head_width % 2 == 0 and pairs >= 3, "a head needs a rotated pair for each axis"
        of_time = max(1, pairs // 4)
        of_height = (pairs - of_time) // 2
        self.pairs = (of_time, of_height, pairs - of_time - of_height)
        self.theta = theta

    def angles(self, grid: Grid, device: torch.device) -> Float[Tensor, "n pairs"]:
        """The rotation of each pair of channels at each of the n = T*H*W positions."""
        axes: list[Tensor] = []
        for size, num in zip(grid, self.pairs, strict=True):
            frequencies = self.theta ** (-torch.arange(num, device=device) / num)
            axes.append(torch.arange(size, device=device)[:, None] * frequencies)
        t, h, w = axes
        spread = (
            t[:, None, None].expand(*grid, -1),
            h[None, :, None].expand(*grid, -1),
            w[None, None, :].expand(*grid, -1),
        )
        return torch.cat(spread, dim=-1).flatten(0, 2)


def rotate(x: Float[Tensor, "... n d"], angles: Float[Tensor, "n pairs"]) -> Float[Tensor, "... n d"]:
    """Turn channel pairs (i, i + d/2) by `angles`."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
