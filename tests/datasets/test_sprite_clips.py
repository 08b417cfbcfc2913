"""Sprites and events as datasets: pure in (seed, i), balanced, and strict about their settings."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from vidcomp.datasets.base import DATASETS, Dataset

BITS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}


def sprites(**changes: object) -> Dataset:
    raw = {"name": "sprites", "num_clips": 40, "num_frames": 3, "factors": BITS, **changes}
    return DATASETS.config(raw).build()


RICH = {
    "shape": ["heart", "square"],
    "texture": ["plain", "dots"],
    "turn": ["straight", "counter"],
    "rotation": ["spin", "upright"],
    "presence": ["appear", "stay", "vanish"],
}
EVENTS = {"event": ["pass", "collide"], "order": ["a_first", "b_first"], "colour": ["red", "blue"]}


def events(**changes: object) -> Dataset:
    raw = {"name": "events", "num_clips": 40, "num_frames": 5, "factors": EVENTS, **changes}
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
    varying = ["background", "lighting"]
    for make, settings in (
        (sprites, {}),
        (sprites, {"factors": RICH, "varying": varying}),
        (events, {"varying": varying}),
    ):
        coarse = make(num_frames=9, **settings).clips(everything).frames
        fine = make(num_frames=17, **settings).clips(everything).frames
        assert (coarse.int() - fine[:, ::2].int()).abs().amax() <= 1
    still = {"shape": ["circle", "star"]}
    image, video = (sprites(num_frames=t, factors=still).clips(everything).frames for t in (1, 9))
    assert torch.equal(image[:, 0], video[:, 0])


@pytest.mark.parametrize("make", [sprites, events])
def test_a_larger_frame_shows_the_same_scene(make: Callable[..., Dataset]) -> None:
    everything = torch.arange(40)
    small, large = (make(height=s, width=s).truth(everything) for s in (32, 64))
    assert small is not None and large is not None
    assert torch.allclose((small.positions_px + 0.5) * 2, large.positions_px + 0.5, atol=1e-4)


@pytest.mark.parametrize("make", [sprites, events])
def test_the_truth_is_complete(make: Callable[..., Dataset]) -> None:
    """All but 3-D positions, and a step is the velocity where nothing is touched."""
    dataset = make(num_frames=9)
    truth = dataset.truth(torch.arange(40))
    assert truth is not None
    assert set(truth.tensors()) == {
        "present",
        "positions_px",
        "velocities_px",
        "segments",
        "visibility",
        "contacts",
    }
    velocities, contacts = truth.velocities_px, truth.contacts
    assert velocities is not None and contacts is not None
    steady = (velocities[:, 1:] == velocities[:, :-1]).all(-1) & ~contacts[:, 1:].any(-1)
    assert steady.float().mean() > 0.5
    step = truth.positions_px.diff(dim=1)
    assert torch.allclose(step[steady], velocities[:, 1:][steady], atol=1e-3)


def test_what_varies_changes_the_content() -> None:
    """And so the fingerprint, and nothing about the factors."""
    plain, lit = sprites(), sprites(varying=["lighting"])
    assert plain.fingerprint != lit.fingerprint
    first, second = (dataset.clips(torch.arange(40)) for dataset in (plain, lit))
    assert not torch.equal(first.frames, second.frames)
    assert torch.equal(first.values, second.values)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"num_clips": 0}, "greater than or equal to 1"),
        ({"factors": {}}, "factors is empty"),
        ({"factors": {"shape": ["circel"]}}, "did you mean 'circle'"),
        ({"num_frames": 1}, "motion cannot be seen in one frame"),
        ({"frames": 9}, "did you mean 'num_frames'"),
        ({"varying": ["colour"]}, "varying: no 'colour'; legal: background, lighting"),
        ({"factors": {"event": ["pass"]}}, "no factor 'event'"),
        ({"factors": {"rotation": ["spin"]}, "num_frames": 9}, "of a plain circle"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        sprites(**changes)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"num_frames": 4}, "greater than or equal to 5"),
        ({"factors": {"speed": ["fast"]}}, "no factor 'speed'"),
        ({"factors": {"motion": ["still"]}}, "no class 'still'"),
        ({"factors": {**EVENTS, "occlusion": ["behind"]}}, "of sprites that collide"),
    ],
)
def test_mistakes_about_events_are_named(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        events(**changes)


def test_nothing_moves_in_a_single_frame() -> None:
    """Velocities are ways per frame, and there is no next one."""
    rows = torch.arange(8)
    looks = {"shape": ["circle", "square"]}
    still = sprites(factors=looks, num_frames=1).truth(rows)
    moving = sprites(factors=looks, num_frames=2).truth(rows)
    assert still is not None and still.velocities_px is not None
    assert still.velocities_px.shape == (8, 1, 1, 2) and not still.velocities_px.any()
    assert moving is not None and moving.velocities_px is not None
    assert torch.allclose(moving.velocities_px[:, :1], moving.positions_px.diff(dim=1), atol=1e-4)


def test_at_prototypes_clips_change_in_their_values_alone() -> None:
    rows, looks = torch.arange(8), {"colour": ["red", "blue"], "size": ["large", "small"]}
    dataset = sprites(factors=looks, num_frames=1)
    drawn = dataset.at_prototypes()
    assert drawn is not None
    after, before = drawn.clips(rows), dataset.clips(rows)
    assert torch.equal(after.classes, before.classes)
    assert torch.equal(after.values, dataset.factors.prototypes(after.classes))
    assert (after.frames != before.frames).flatten(1).any(1).all()
    assert torch.equal(dataset.clips(rows).values, before.values)  # the dataset is as it was
    assert sprites(factors={"shape": ["circle", "square"]}).at_prototypes() is None
