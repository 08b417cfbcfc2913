"""The transformer block: attention and MLP, modulated by a condition (adaLN-zero, arXiv:2212.09748).

Queries and keys are normalised (arXiv:2302.05442), which keeps bf16 training stable. Attention is joint
over all positions, or factorised: over space within a frame, then over time at a place.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.nn.attention import AttentionBackend, attend
from vidcomp.nn.embeddings import rotate
from vidcomp.types import Grid


class Attention(nn.Module):
    """Multi-head self-attention with QK-norm and rotary positions."""

    def __init__(self, width: int, heads: int, backend: AttentionBackend) -> None:
        super().__init__()
        self.heads = heads
        self.backend: AttentionBackend = backend
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.q_gain = nn.Parameter(torch.ones(width // heads))
        self.k_gain = nn.Parameter(torch.ones(width // heads))

    def forward(
        self, x: Float[Tensor, "b n c"], angles: Float[Tensor, "n pairs"]
    ) -> Float[Tensor, "b n c"]:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        # The gains follow the dtype of autocast: torch's fused norm needs both alike.
        q = rotate(F.rms_norm(q, q.shape[-1:], self.q_gain.to(q.dtype)), angles)
        k = rotate(F.rms_norm(k, k.shape[-1:], self.k_gain.to(k.dtype)), angles)
        return self.out(rearrange(attend(q, k, v, backend=self.backend), "b h n d -> b n (h d)"))


class Block(nn.Module):
    """x + gate * attention(modulated x), then the same with the MLP.

    The gates start at zero, so a fresh block is the identity.
    """

    def __init__(
        self, width: int, heads: int, *, factorised: bool = False, backend: AttentionBackend = "auto"
    ) -> None:
        super().__init__()
        self.factorised = factorised
        self.attention = Attention(width, heads, backend)
        self.temporal = Attention(width, heads, backend) if factorised else None
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.num_branches = 3 if factorised else 2
        self.modulation = nn.Linear(width, 3 * self.num_branches * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        condition: Float[Tensor, "b c"],
        angles: Float[Tensor, "n pairs"],
        grid: Grid,
    ) -> Float[Tensor, "b n c"]:
        """`condition` has been through its nonlinearity already: it is the same for all blocks."""
        parts = self.modulation(condition)[:, None].chunk(3 * self.num_branches, dim=-1)
        shift, scale, gate = parts[:3]
        if self.temporal is None:
            x = x + gate * self.attention(modulate(x, shift, scale), angles)
        else:
            t, s = grid.t, grid.h * grid.w
            inner = rearrange(modulate(x, shift, scale), "b (t s) c -> (b t) s c", t=t)
            # Within a frame only differences in space matter, so frame 0's angles serve every frame.
            spatial = self.attention(inner, angles[:s])
            x = x + gate * rearrange(spatial, "(b t) s c -> b (t s) c", t=t)
            shift, scale, gate = parts[6:]
            inner = rearrange(modulate(x, shift, scale), "b (t s) c -> (b s) t c", t=t)
            temporal = self.temporal(inner, angles[::s])
            x = x + gate * rearrange(temporal, "(b s) t c -> b (t s) c", s=s)
        shift, scale, gate = parts[3:6]
        return x + gate * self.mlp(modulate(x, shift, scale))


def modulate(
    x: Float[Tensor, "b n c"], shift: Float[Tensor, "b 1 c"], scale: Float[Tensor, "b 1 c"]
) -> Float[Tensor, "b n c"]:
    """Layer norm without its own gain, then scale and shift by the condition."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]).to(scale.dtype), 1 + scale)
