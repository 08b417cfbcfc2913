"""The one entry to attention. Which kernel runs is decided here and nowhere else; all agree within
tolerance.

``auto`` means torch's SDPA, but the plain product on CPU in bf16 for short sequences, where torch's
flash kernel is 4 to 9 times slower forward and backward (48 positions, 4 heads of 32, one thread:
19 ms against 2.6 ms; from about 400 positions on it wins). xformers has no CPU kernel and
FlexAttention none backward, so both are refused off CUDA. ``flex`` is for windows
(`vidcomp.nn.windows`): where all positions attend to all, it is SDPA.
"""

import importlib.util
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError

AttentionBackend = Literal["auto", "sdpa", "plain", "xformers", "flex"]

_PLAIN_BELOW = 400  # positions


def attend(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads m d"],
    v: Float[Tensor, "b heads m d"],
    *,
    mask: Bool[Tensor, "b 1 n m"] | None = None,
    backend: AttentionBackend = "auto",
) -> Float[Tensor, "b heads n d"]:
    """softmax(q k^T / sqrt(d)) v, over the keys that `mask` allows each query: at least one."""
    match choose(backend, q):
        case "plain":
            scores = q @ k.mT * q.shape[-1] ** -0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            return torch.softmax(scores, dim=-1).to(v.dtype) @ v
        case "xformers":
            assert mask is None, "BackboneConfig refuses windows with xformers"
            return _xformers(q, k, v)
        case _:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def choose(
    backend: AttentionBackend, q: Float[Tensor, "b heads n d"]
) -> Literal["sdpa", "plain", "xformers", "flex"]:
    """The kernel for queries like `q`; raises UserError if the one asked for cannot run here."""
    if backend == "auto":
        short = q.shape[-2] < _PLAIN_BELOW
        return "plain" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and short else "sdpa"
    if backend in ("xformers", "flex") and not q.is_cuda:
        raise UserError(
            f"attention_backend={backend} needs CUDA tensors, these are on {q.device.type}; "
            "use attention_backend=auto"
        )
    if backend == "xformers" and importlib.util.find_spec("xformers") is None:
        raise UserError(
            "attention_backend=xformers: it is not installed; pip install 'vidcomp[xformers]', "
            "or use attention_backend=auto"
        )
    return backend


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention  # pyright: ignore

    # xformers lays heads out behind positions: b n heads d.
    q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    return memory_efficient_attention(q, k, v).transpose(1, 2)  # pyright: ignore
