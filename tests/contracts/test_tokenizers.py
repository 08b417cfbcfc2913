"""What every tokenizer promises, checked on each variant there is, and on one that is made here."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vidcomp.tokenizers
from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import TOKENIZERS, Tokenizer, code_usage, foreground
from vidcomp.types import Grid, Latents

VARIANTS = TOKENIZERS.names()

TOY = '''
"""The smallest tokenizer: a linear map of each block of pixels, and back."""
from torch import nn
from vidcomp.config import UserError
from vidcomp.nn.conv import fold_video, unfold_video
from vidcomp.tokenizers import base
from vidcomp.types import Grid, LatentSpec

class Config(base.Config):
    def build(self):
        return Toy()

class Fold(nn.Linear):
    def forward(self, video):
        return super().forward(fold_video(video, Grid(2, 4, 4)))

class Unfold(nn.Linear):
    def forward(self, latents):
        return unfold_video(super().forward(latents), Grid(2, 4, 4))

class Toy(base.Tokenizer):
    def __init__(self):
        super().__init__(LatentSpec(Grid(2, 4, 4), 5), Fold(96, 5), Unfold(5, 96))

    def bottleneck(self, features, rng):
        return base.Bottleneck(features)

    def dequantize(self, codes):
        raise UserError("toy has no codes")
'''


def clips(tokenizer: Tokenizer, *, num_latents: int = 3, batch: int = 2, seed: int = 0) -> Tensor:
    """Noise of the smallest size that has neighbours in space."""
    stride = tokenizer.spec.strides
    size = (1 + (num_latents - 1) * stride.t, 2 * stride.h, 3 * stride.w)
    return Rng.make(seed, "clips", torch.arange(batch)).uniform(3, *size) * 2 - 1


def train_rng(batch: int = 2) -> Rng:
    return Rng.make(0, "train", torch.arange(batch))


def encode_and_decode_keep_their_shapes(tokenizer: Tokenizer) -> None:
    for num_latents in (1, 3):
        video = clips(tokenizer, num_latents=num_latents)
        latents = tokenizer.encode(video)
        assert latents.grid == Grid(num_latents, 2, 3) == tokenizer.spec.grid(*video.shape[2:])
        assert latents.values.shape[-1] == tokenizer.spec.channels
        decoded = tokenizer.decode(latents)
        assert decoded.shape == video.shape
        assert decoded.abs().max() <= 1


def codes_stand_for_the_values(tokenizer: Tokenizer) -> None:
    tokenizer.measure_latents([clips(tokenizer)])
    latents = tokenizer.encode(clips(tokenizer, seed=1))
    sizes = tokenizer.spec.codebook_sizes
    if sizes is None:
        assert latents.codes is None
        with pytest.raises(UserError, match="no codes"):
            tokenizer.lookup(torch.zeros(1, 1, 1, 1, 1, dtype=torch.int64))
        return
    assert latents.codes is not None
    assert latents.codes.shape == (*latents.values.shape[:-1], len(sizes))
    assert latents.codes.min() >= 0
    assert (latents.codes.amax((0, 1, 2, 3)) < torch.tensor(sizes)).all()
    torch.testing.assert_close(
        tokenizer.lookup(latents.codes).values, latents.values, rtol=0, atol=0
    )


def encode_is_deterministic(tokenizer: Tokenizer) -> None:
    video = clips(tokenizer)
    first = tokenizer.train().encode(video)
    tokenizer.eval().loss(video, train_rng())
    assert same(tokenizer.encode(video), first, atol=0)


def nothing_looks_ahead(tokenizer: Tokenizer) -> None:
    video, stride = clips(tokenizer), tokenizer.spec.strides.t
    latents = tokenizer.encode(video)
    for keep in (1, 2):  # latents whose frames stay as they were
        changed = video.clone()
        changed[:, :, 1 + (keep - 1) * stride :] *= -1
        other = tokenizer.encode(changed)
        assert same(head(other, keep), head(latents, keep), atol=1e-5)
        assert not torch.allclose(other.values[:, keep:], latents.values[:, keep:])

        ahead = latents.values.clone()
        ahead[:, keep:] *= -1
        frames = 1 + (keep - 1) * stride
        torch.testing.assert_close(
            tokenizer.decode(Latents(ahead))[:, :, :frames],
            tokenizer.decode(latents)[:, :, :frames],
            rtol=0,
            atol=1e-5,
        )


def an_image_is_a_clip_of_one_frame(tokenizer: Tokenizer) -> None:
    video = clips(tokenizer)
    latents = tokenizer.encode(video)
    image = tokenizer.encode(video[:, :, :1])
    assert same(image, head(latents, 1), atol=1e-5)
    torch.testing.assert_close(
        tokenizer.decode(image), tokenizer.decode(latents)[:, :, :1], rtol=0, atol=1e-5
    )


def illegal_sizes_name_the_legal_ones(tokenizer: Tokenizer) -> None:
    stride = tokenizer.spec.strides
    video = clips(tokenizer)
    if stride.t > 1:
        with pytest.raises(
            UserError, match=rf"legal lengths .* {1 + stride.t}, {1 + 2 * stride.t}"
        ):
            tokenizer.encode(video[:, :, :-1])
    if stride.w > 1:
        with pytest.raises(UserError, match=rf"width .* {2 * stride.w} and {3 * stride.w}"):
            tokenizer.encode(video[..., :-1])
    with pytest.raises(UserError, match=r"\[-1, 1\]"):
        tokenizer.encode(video * 2)


def measured_latents_are_normalised(tokenizer: Tokenizer) -> None:
    before = tokenizer.decode(tokenizer.encode(clips(tokenizer)))
    videos = [clips(tokenizer, seed=seed, batch=4) for seed in range(3)]
    for _ in range(2):  # measuring again changes nothing
        tokenizer.measure_latents(videos)
        values = torch.cat([tokenizer.encode(video).values for video in videos]).flatten(0, 3)
        zero, one = torch.zeros(values.shape[1]), torch.ones(values.shape[1])
        torch.testing.assert_close(values.mean(0), zero, rtol=0, atol=1e-4)
        torch.testing.assert_close(values.std(0, correction=0), one, rtol=0, atol=1e-4)
    after = tokenizer.decode(tokenizer.encode(clips(tokenizer)))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="at least one clip"):
        tokenizer.measure_latents([])


def a_clip_loss_ignores_the_other_clips(tokenizer: Tokenizer) -> None:
    video = clips(tokenizer, batch=3)
    together = tokenizer.loss(video, train_rng(3)).total()
    alone = tokenizer.loss(video[1:2], train_rng(3)[1:2]).total()
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def gradients_reach_every_parameter(tokenizer: Tokenizer) -> None:
    if not learns(tokenizer):
        return
    tokenizer.loss(clips(tokenizer), train_rng()).total().mean().backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def training_reduces_the_loss(tokenizer: Tokenizer) -> None:
    video = clips(tokenizer, num_latents=2) * 0.2 + 0.5
    if not learns(tokenizer):
        assert tokenizer.loss(video, train_rng()).total().max() < 1e-12, "nothing is left to learn"
        return
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=5e-3)
    losses: list[float] = []
    for step in range(15):
        rng = Rng.make(0, "train", torch.arange(2), step=step)
        loss = tokenizer.loss(video, rng).total().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokenizer.after_step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def a_checkpoint_holds_everything(tokenizer: Tokenizer) -> None:
    video = clips(tokenizer)
    tokenizer.train().loss(video, train_rng())
    tokenizer.after_step()
    tokenizer.measure_latents([video])
    latents, decoded = tokenizer.encode(video), tokenizer.decode(tokenizer.encode(video))
    saved = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    with torch.no_grad():
        for value in tokenizer.state_dict().values():
            value.zero_()
    tokenizer.load_state_dict(saved)
    assert same(tokenizer.encode(video), latents, atol=0)
    torch.testing.assert_close(tokenizer.decode(latents), decoded, rtol=0, atol=0)


def autocast_leaves_latents_and_losses_in_full_precision(tokenizer: Tokenizer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = tokenizer.loss(clips(tokenizer), train_rng()).total()
        latents = tokenizer.encode(clips(tokenizer))
        decoded = tokenizer.decode(latents)
    if learns(tokenizer):
        loss.mean().backward()
    assert loss.dtype == latents.values.dtype == decoded.dtype == torch.float32


CHECKS: tuple[Callable[[Tokenizer], None], ...] = (
    encode_and_decode_keep_their_shapes,
    codes_stand_for_the_values,
    encode_is_deterministic,
    nothing_looks_ahead,
    an_image_is_a_clip_of_one_frame,
    illegal_sizes_name_the_legal_ones,
    measured_latents_are_normalised,
    a_clip_loss_ignores_the_other_clips,
    gradients_reach_every_parameter,
    training_reduces_the_loss,
    a_checkpoint_holds_everything,
    autocast_leaves_latents_and_losses_in_full_precision,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, check: Callable[[Tokenizer], None]) -> None:
    check(TOKENIZERS.config(name).build())


def test_a_variant_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(
        vidcomp.tokenizers, "__path__", [*vidcomp.tokenizers.__path__, str(tmp_path)]
    )
    assert TOKENIZERS.names() == sorted([*VARIANTS, "toy"])
    try:
        for check in CHECKS:
            check(TOKENIZERS.config({"name": "toy"}).build())
    finally:
        sys.modules.pop("vidcomp.tokenizers.toy", None)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_comes_back_from_what_is_stored(name: str) -> None:
    config = TOKENIZERS.config(name)
    assert TOKENIZERS.config(config.model_dump(mode="json")) == config


def test_usage_counts_codes_and_their_entropy() -> None:
    assert code_usage(torch.tensor([[3, 3], [3, 3]]), 8) == (1 / 8, 1.0)
    even = code_usage(torch.arange(64) % 4, 8)
    assert even.share == 0.5
    assert even.perplexity == pytest.approx(4)
    assert code_usage(torch.zeros(0, dtype=torch.int64), 8).share == 0


def test_foreground_is_what_differs_from_the_background() -> None:
    video = torch.full((2, 3, 2, 8, 8), -0.8)
    video[1] = 0.3
    video[:, 0, 1, 2:4, 3:6] = 0.9  # one channel of one frame
    expected = torch.zeros(2, 1, 2, 8, 8)
    expected[:, :, 1, 2:4, 3:6] = 1
    torch.testing.assert_close(foreground(video), expected)


def learns(tokenizer: Tokenizer) -> bool:
    """Whether it has parameters: pixels themselves have none."""
    return any(parameter.requires_grad for parameter in tokenizer.parameters())


def same(a: Latents, b: Latents, *, atol: float) -> bool:
    """Codes equal, values within `atol`."""
    if (a.codes is None) != (b.codes is None):
        return False
    if a.codes is not None and b.codes is not None and not torch.equal(a.codes, b.codes):
        return False
    return torch.allclose(a.values, b.values, rtol=0, atol=atol)


def head(latents: Latents, keep: int) -> Latents:
    """The first latents in time."""
    codes = None if latents.codes is None else latents.codes[:, :keep]
    return Latents(latents.values[:, :keep], codes)
