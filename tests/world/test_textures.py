"""Patterns: how much is dark, soft edges, and backgrounds that stay behind."""

import math

import pytest
import torch

from vidcomp.world.textures import (
    BACKGROUNDS,
    GROUND,
    NUM_DRAWS,
    TEXTURES,
    TONES,
    Background,
    paint_background,
    pattern,
)

SHARES = {"plain": 0.0, "stripes": 0.5, "checks": 0.5, "dots": math.pi * (0.25 / 0.75) ** 2}


def plane(size: float = 33.0, num: int = 1000) -> torch.Tensor:
    line = (torch.arange(num) + 0.5) * size / num
    return torch.stack([line.expand(num, -1), line[:, None].expand(-1, num)])


def backgrounds(kind: str, *, count: int = 20, height: int = 32, width: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    drawn = Background(
        torch.full((count,), BACKGROUNDS.index(kind)), torch.rand(count, NUM_DRAWS, generator=g)
    )
    place = torch.device("cpu")
    return paint_background(drawn, clips=count, height=height, width=width, device=place)


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("pixel", [0.02, 0.2])
def test_the_dark_share_is_that_of_the_geometry(texture: str, pixel: float) -> None:
    """Soft edges leave it as it is, but for the curvature of the dots."""
    x, y = plane()
    dark = pattern(texture, x, y, torch.tensor(pixel))
    assert dark.amin() >= 0 and dark.amax() <= 1
    assert float(dark.mean()) == pytest.approx(SHARES[texture], abs=0.02)


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_step_of_a_tenth_of_a_pixel_is_a_small_change(texture: str) -> None:
    """Nothing flickers where an object moves slowly."""
    x, y = plane(3.0, 200)
    pixel = torch.tensor(0.15)
    moved = pattern(texture, x + 0.1 * pixel, y, pixel) - pattern(texture, x, y, pixel)
    assert moved.abs().amax() <= 0.1 + 1e-5


def test_all_textures_differ() -> None:
    x, y = plane(3.0, 100)
    drawn = [pattern(texture, x, y, torch.tensor(0.1)) for texture in TEXTURES]
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            assert (first - second).abs().mean() > 0.2


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_are_dark_and_differ_from_clip_to_clip(kind: str) -> None:
    painted = backgrounds(kind)
    if kind == "dark":
        assert (painted == torch.tensor(GROUND)).all()
        return
    assert painted.amin() >= TONES[0] - 1e-6 and painted.amax() <= TONES[1] + 1e-6
    means = painted.mean((1, 2))
    assert (means[:, None] - means).norm(dim=-1)[~torch.eye(20, dtype=torch.bool)].amin() > 0
    assert (painted.std((1, 2)).amax(1) > 0.01).all()


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_larger_frame_shows_the_same_background(kind: str) -> None:
    small, large = (backgrounds(kind, height=s, width=s * 2).movedim(-1, 1) for s in (32, 128))
    pooled = torch.nn.functional.avg_pool2d(large, 4)
    assert (pooled - small).abs().mean() < 0.01


def test_a_gradient_is_a_ramp() -> None:
    painted = backgrounds("gradient")
    for axis in (1, 2):
        step = painted.diff(dim=axis).flatten(1, 2)
        assert ((step >= -1e-6).all(1) | (step <= 1e-6).all(1)).all()


def test_unknown_patterns_name_the_legal_ones() -> None:
    x, y = plane(1.0, 2)
    with pytest.raises(ValueError, match="no texture 'fur'; legal: plain, stripes"):
        pattern("fur", x, y, torch.tensor(0.1))
