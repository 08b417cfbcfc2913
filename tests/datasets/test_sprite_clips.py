"""Sprites as a dataset: pure in (seed, i), balanced, and strict about its settings."""

import pytest
import torch
from pydantic import ValidationError

from vidcomp.datasets.base import DATASETS, Dataset

BITS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}


def sprites(**changes: object) -> Dataset:
    raw = {"name": "sprites", "num_clips": 40, "num_frames": 3, "factors": BITS, **changes}
    return DATASETS.config(raw).build()


def test_more_clips_leave_the_first_ones_as_they_were() -> None:
    few, many = sprites(), sprites(num_clips=4000)
    everything = torch.arange(40)
    assert torch.equal(few.clips(everything).frames, many.clips(everything).frames)


def test_combinations_are_balanced() -> None:
    dataset = sprites(num_clips=4000)
    counts = torch.bincount(dataset.factors.combination_ids(dataset.classes()))
    assert counts.tolist() == [500] * 8


def test_more_frames_are_the_same_motion_in_finer_steps() -> None:
    """5 and 9 frames of a clip begin and end alike, and a still image is where a video begins."""
    everything = torch.arange(40)
    coarse = sprites(num_frames=5).clips(everything).frames
    fine = sprites(num_frames=9).clips(everything).frames
    assert (coarse.int() - fine[:, ::2].int()).abs().amax() <= 1
    still = {"shape": ["circle", "star"]}
    image, video = (sprites(num_frames=t, factors=still).clips(everything).frames for t in (1, 9))
    assert torch.equal(image[:, 0], video[:, 0])


def test_a_larger_frame_shows_the_same_scene() -> None:
    everything = torch.arange(40)
    small, large = (sprites(height=s, width=s).truth(everything) for s in (32, 64))
    assert small is not None and large is not None
    assert torch.allclose((small.positions_px + 0.5) * 2, large.positions_px + 0.5, atol=1e-4)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"num_clips": 0}, "greater than or equal to 1"),
        ({"factors": {}}, "factors is empty"),
        ({"factors": {"shape": ["circel"]}}, "did you mean 'circle'"),
        ({"num_frames": 1}, "motion cannot be seen in one frame"),
        ({"frames": 9}, "did you mean 'num_frames'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        sprites(**changes)
