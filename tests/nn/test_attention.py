"""Attention: every kernel computes the same function, and what cannot run is refused in a line."""

import math

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.nn.attention import AttentionBackend, attend, choose

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def heads(dtype: torch.dtype, *, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v of 2 clips, 3 heads, 8 channels, laid out as the block lays them out."""
    generator = torch.Generator().manual_seed(queries * 100 + keys)
    q, k, v = (
        torch.randn(2, n, 3, 8, generator=generator).to(dtype).transpose(1, 2)
        for n in (queries, keys, keys)
    )
    return q, k, v


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query at a time, in double precision."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
    for i in range(q.shape[-2]):
        scores = (q[..., i : i + 1, :].double() * k.double()).sum(-1) / math.sqrt(q.shape[-1])
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[..., i, :] = (weights[..., None] * v.double()).sum(-2)
    return out


@pytest.mark.parametrize("queries, keys", [(1, 1), (1, 5), (6, 6), (7, 3)])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", ["auto", "plain", "sdpa"])
def test_every_backend_agrees_with_the_formula(
    backend: AttentionBackend, dtype: torch.dtype, queries: int, keys: int
) -> None:
    q, k, v = heads(dtype, queries=queries, keys=keys)
    out = attend(q, k, v, backend=backend)
    assert out.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.double(), reference(q, k, v), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_backends_have_the_same_gradients(dtype: torch.dtype) -> None:
    inputs = heads(dtype, queries=9, keys=9)
    upstream = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    def gradients(backend: AttentionBackend) -> tuple[Tensor, ...]:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        return torch.autograd.grad(attend(*leaves, backend=backend), leaves, upstream)

    tolerance = 2 * TOLERANCE[dtype]
    for plain, sdpa in zip(gradients("plain"), gradients("sdpa"), strict=True):
        torch.testing.assert_close(plain, sdpa, rtol=tolerance, atol=tolerance)


def test_large_scores_neither_overflow_nor_mix() -> None:
    q, k, v = heads(torch.float32, queries=4, keys=4)
    for backend in ("plain", "sdpa"):
        out = attend(1e4 * q, 1e4 * k, v, backend=backend)
        best = (q @ k.mT).argmax(-1)
        torch.testing.assert_close(out, v.gather(2, best[..., None].expand_as(v)))


def test_auto_takes_the_plain_product_for_short_bf16_sequences_on_cpu_only() -> None:
    def chosen(dtype: torch.dtype, n: int) -> str:
        return choose("auto", torch.zeros(1, 1, n, 8, dtype=dtype))

    assert chosen(torch.bfloat16, 48) == "plain"
    assert chosen(torch.bfloat16, 1000) == "sdpa"
    assert chosen(torch.float32, 48) == "sdpa"


def test_xformers_is_refused_off_cuda_in_one_line() -> None:
    q, k, v = heads(torch.float32, queries=2, keys=2)
    with pytest.raises(UserError, match=r"needs CUDA .* cpu.*use attention_backend=auto") as e:
        attend(q, k, v, backend="xformers")
    assert "\n" not in str(e.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_xformers_agrees_or_is_refused_in_one_line() -> None:
    q, k, v = (x.cuda() for x in heads(torch.bfloat16, queries=9, keys=9))
    try:
        out = attend(q, k, v, backend="xformers")
    except UserError as error:
        assert "pip install" in str(error)
        return
    torch.testing.assert_close(out, attend(q, k, v, backend="sdpa"), rtol=2e-2, atol=2e-2)
