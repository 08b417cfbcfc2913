"""Fidelity: closed forms, and SSIM against the definition written as loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes.base import ClipSet, Subject
from vidcomp.probes.fidelity import Config, flicker, psnr_db, ssim
from vidcomp.seeding import Rng
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

FACTORS = choose({"colour": ("red", "blue")})


def clips(
    *, batch: int = 2, num_frames: int = 3, height: int = 14, width: int = 17, seed: int = 0
) -> Tensor:
    rng = Rng.make(seed, "clips", torch.arange(batch))
    return rng.uniform(3, num_frames, height, width) * 1.6 - 0.8


@pytest.mark.parametrize("offset", [0.01, 0.1])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    video = clips()
    made = video + 2 * offset  # pixels in [0, 1] differ by `offset`
    assert psnr_db(made, video).tolist() == pytest.approx([-20 * math.log10(offset)] * 2, abs=1e-3)


def test_equal_clips_are_as_good_as_it_gets() -> None:
    video = clips()
    assert psnr_db(video, video).tolist() == pytest.approx([100, 100])
    assert ssim(video, video).tolist() == pytest.approx([1, 1])
    assert flicker(video, video).tolist() == [0, 0]


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, Eq. 13, window by window, for one channel of one frame in [0, 1]."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values: list[float] = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + 0.01**2) * (2 * cov + 0.03**2)
            values.append(top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return float(np.mean(values))


def test_ssim_agrees_with_the_definition() -> None:
    real = clips()
    made = 0.7 * real + 0.2 * clips(seed=1)
    slow = [
        np.mean(
            [
                slow_ssim(
                    real[i, c, t].double().numpy() / 2 + 0.5,
                    made[i, c, t].double().numpy() / 2 + 0.5,
                )
                for c in range(3)
                for t in range(3)
            ]
        )
        for i in range(2)
    ]
    assert ssim(made, real).tolist() == pytest.approx(slow, abs=1e-6)
    assert 0.1 < slow[0] < 0.99


def test_ssim_refuses_frames_smaller_than_its_window() -> None:
    with pytest.raises(UserError, match="11 x 11 pixels, got 10 x 17"):
        ssim(clips(height=10), clips(height=10))


def test_flicker_sees_change_in_time_only() -> None:
    video = clips(num_frames=4)
    assert flicker(video + 0.1, video).tolist() == pytest.approx([0, 0], abs=1e-6)
    blinking = video + 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    assert flicker(blinking, video).tolist() == pytest.approx(
        [0.1, 0.1], rel=1e-4
    )  # 0.2 of [-1, 1]
    assert flicker(clips(num_frames=1), clips(num_frames=1, seed=1)).tolist() == [0, 0]


def test_findings_are_by_level_and_need_both_sources() -> None:
    split = SplitConfig(rule="explicit", train=({"colour": "red"},)).build(FACTORS)
    classes = torch.tensor([[0], [1], [0], [1]])
    real = ClipSet(clips(batch=4), classes, FACTORS.prototypes(classes))
    made = replace(real, video=real.video + 0.2 * classes[:, :, None, None, None])
    probe = Config().build(FACTORS)
    scores = probe.run(Subject({"real": real, "reconstruction": made}, split)).scores
    assert scores["reconstruction/seen/psnr_db"].value == pytest.approx(100)
    assert scores["reconstruction/level-1/psnr_db"].value == pytest.approx(20, abs=1e-3)
    assert scores["reconstruction/level-1/ssim"].n == 2
    with pytest.raises(UserError, match="lacks 'reconstruction'"):
        probe.run(Subject({"real": real}, split))
    short = ClipSet(made.video[:3], made.classes[:3], made.values[:3])
    with pytest.raises(UserError, match="row i"):
        probe.run(Subject({"real": real, "reconstruction": short}, split))
