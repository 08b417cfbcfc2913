"""The convolutional trunk: folding is inverted, nothing looks ahead, and torch's conv3d agrees."""

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from vidcomp.nn.conv import CausalBlock, Decoder, Encoder, fold_video, unfold_video
from vidcomp.seeding import Rng
from vidcomp.types import Grid


@pytest.mark.parametrize("strides", [Grid(1, 1, 1), Grid(1, 4, 2), Grid(2, 4, 4), Grid(4, 2, 3)])
@pytest.mark.parametrize("num_latents", [1, 3])
def test_unfold_inverts_fold(strides: Grid, num_latents: int) -> None:
    size = (1 + (num_latents - 1) * strides.t, 2 * strides.h, 3 * strides.w)
    video = Rng.make(0, "video", torch.arange(2)).normal(3, *size)
    folded = fold_video(video, strides)
    assert folded.shape == (2, num_latents, 2, 3, 3 * strides.size)
    assert torch.equal(unfold_video(folded, strides), video)


def test_the_first_block_in_time_is_frame_0_alone() -> None:
    video = Rng.make(0, "video", torch.arange(1)).normal(3, 5, 8, 8)
    first = rearrange(
        fold_video(video, Grid(4, 8, 8))[:, 0], "b 1 1 (c p h w) -> b c p h w", p=4, h=8, w=8
    )
    assert torch.equal(first, video[:, :, :1].expand_as(first))


def test_a_block_equals_three_dimensional_convolutions() -> None:
    """RMS norm, (1, 3, 3), SiLU, then (3, 1, 1) with the first latent repeated in front."""
    block = CausalBlock(6)
    x = Rng.make(0, "x", torch.arange(2)).normal(4, 3, 5, 6)
    volume = rearrange(x, "b T H W c -> b c T H W")
    normed = volume / volume.square().mean(1, keepdim=True).sqrt()
    y = F.conv3d(normed, block.space.weight[:, :, None], block.space.bias, padding=(0, 1, 1))
    y = F.pad(F.silu(y), (0, 0, 0, 0, 2, 0), mode="replicate")
    kernel = rearrange(block.time.weight, "o (k i) -> o i k 1 1", k=3)
    expected = volume + F.conv3d(y, kernel, block.time.bias)
    torch.testing.assert_close(
        block(x), rearrange(expected, "b c T H W -> b T H W c"), rtol=1e-4, atol=1e-5
    )


def test_encoder_and_decoder_have_no_gradient_from_the_future() -> None:
    strides = Grid(2, 4, 4)
    encoder = Encoder(channels=5, width=16, depth=2, strides=strides)
    decoder = Decoder(channels=5, width=16, depth=2, strides=strides)
    video = Rng.make(0, "video", torch.arange(1)).normal(3, 7, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(video)[:, 1].square().sum(), video)
    reached = gradient.abs().sum((0, 1, 3, 4)) > 0
    assert reached.tolist() == [True, True, True, False, False, False, False]

    latents = Rng.make(0, "latents", torch.arange(1)).normal(4, 2, 2, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(decoder(latents)[:, :, 1:3].square().sum(), latents)
    assert (gradient.abs().sum((0, 2, 3, 4)) > 0).tolist() == [True, True, False, False]
