"""The transformer block: attention and MLP, modulated by a condition (adaLN-zero,
arXiv:2212.09748).

Queries and keys are layer-normalised (arXiv:2302.05442), which keeps bf16 training stable.
Attention is joint over all positions, or factorised: over space within a frame, then over time at a
place. Either may be kept within a window (`vidcomp.nn.windows`).

Unlike DiT's, linear layers have no biases: the modulation shifts their inputs anyway, and on a CPU
each bias is one more pass over memory, forward and backward.
"""

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.nn.attention import AttentionBackend, attend
from vidcomp.nn.embeddings import rotate
from vidcomp.nn.windows import Window, attend_within
from vidcomp.types import Grid


class Attention(nn.Module):
    """Multi-head self-attention with QK-norm and rotary positions."""

    def __init__(self, width: int, heads: int, backend: AttentionBackend) -> None:
        super().__init__()
        self.heads = heads
        self.backend: AttentionBackend = backend
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_gain = nn.Parameter(torch.ones(width // heads))
        self.k_gain = nn.Parameter(torch.ones(width // heads))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        turns: Complex[Tensor, "n pairs"],
        window: Window | None = None,
    ) -> Float[Tensor, "b n c"]:
        if window is not None and window.own_place_only:
            return self.out(self._own_value(x))
        qkv = rearrange(self.qkv(x), "b n (three h d) -> b n three h d", three=3, h=self.heads)
        q, k, v = qkv.unbind(2)
        q, k = rotate(normalised(q, self.q_gain), turns), rotate(normalised(k, self.k_gain), turns)
        q, k, v = (part.to(v.dtype).transpose(1, 2) for part in (q, k, v))  # b h n d
        if window is None:
            attended = attend(q, k, v, backend=self.backend)
        else:
            attended = attend_within(q, k, v, window, backend=self.backend)
        return self.out(rearrange(attended, "b h n d -> b n (h d)"))

    def _own_value(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Attention over one key, whatever queries and keys are."""
        values = F.linear(x, self.qkv.weight[2 * x.shape[-1] :])
        # No gradient is not a zero one: several processes would wait for the gains' for ever.
        return values + 0 * (self.q_gain + self.k_gain).sum()


class Block(nn.Module):
    """x + gate * attention(modulated x), then the same with the MLP.

    The gates start at zero, so a fresh block is the identity.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        factorised: bool = False,
        backend: AttentionBackend = "auto",
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, backend)
        self.temporal = Attention(width, heads, backend) if factorised else None
        # Exact, not the tanh formula of DiT: torch's CPU kernel for that is 2.6 times slower.
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.num_branches = 3 if factorised else 2
        self.modulation = nn.Linear(width, 3 * self.num_branches * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        condition: Float[Tensor, "b c"],
        turns: Complex[Tensor, "n pairs"],
        grid: Grid,
        window: Window | None = None,
    ) -> Float[Tensor, "b n c"]:
        """`condition` has been through its nonlinearity already: it is the same for all blocks."""
        parts = self.modulation(condition)[:, None].chunk(3 * self.num_branches, dim=-1)
        shift, scale, gate = parts[:3]
        if self.temporal is None:
            x = torch.addcmul(x, gate, self.attention(modulate(x, shift, scale), turns, window))
        else:
            t, s = grid.t, grid.h * grid.w
            in_space = window and window.on(Grid(1, grid.h, grid.w))
            in_time = window and window.on(Grid(t, 1, 1))
            inner = rearrange(modulate(x, shift, scale), "b (t s) c -> (b t) s c", t=t)
            # Only differences of positions matter, so frame 0 and place 0 serve all the others.
            spatial = self.attention(inner, turns[:s], in_space)
            x = torch.addcmul(x, gate, rearrange(spatial, "(b t) s c -> b (t s) c", t=t))
            shift, scale, gate = parts[6:]
            inner = rearrange(modulate(x, shift, scale), "b (t s) c -> (b s) t c", t=t)
            temporal = self.temporal(inner, turns[::s], in_time)
            x = torch.addcmul(x, gate, rearrange(temporal, "(b s) t c -> b (t s) c", s=s))
        shift, scale, gate = parts[3:6]
        return torch.addcmul(x, gate, self.mlp(modulate(x, shift, scale)))


def normalised(x: Float[Tensor, "b n h d"], gain: Float[Tensor, " d"]) -> Float[Tensor, "b n h d"]:
    """Layer norm of each head, without a bias. The gain follows the dtype that autocast chose."""
    return F.layer_norm(x, x.shape[-1:], gain.to(x.dtype))


def modulate(
    x: Float[Tensor, "b n c"], shift: Float[Tensor, "b 1 c"], scale: Float[Tensor, "b 1 c"]
) -> Float[Tensor, "b n c"]:
    """Layer norm without its own gain, then scale and shift by the condition."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]).to(scale.dtype), 1 + scale)
