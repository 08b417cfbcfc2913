"""The 3-D scenes as a dataset, beyond the contract."""

import pytest
import torch
from pydantic import ValidationError

from vidcomp.datasets import shapes3d
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.world.scene3d.concepts import LIBRARIES


def scenes(**changes: object) -> Dataset:
    raw = {"name": "scene3d", "style": "clevr", "num_clips": 12, "num_frames": 3, "height": 24}
    raw |= {"width": 24, "factors": {"shape": ["cube", "sphere"], "motion": ["right", "away"]}}
    return DATASETS.config(raw | changes).build()


def test_more_clips_or_objects_at_most_leave_the_picture_size() -> None:
    clips = scenes(num_objects=[2, 4], num_clips=3).clips(torch.arange(3))
    assert clips.frames.shape == (3, 3, 24, 24, 3)
    longer = scenes(num_objects=[2, 4], num_clips=12).clips(torch.arange(3))
    assert torch.equal(clips.frames, longer.frames)


def test_a_rectangle_shows_more_of_the_same_scene() -> None:
    still = {"num_frames": 1, "factors": {"shape": ["cube", "sphere"]}, "num_objects": [4, 4]}
    square = scenes(**still, height=32, width=32).clips(torch.arange(4)).frames
    wide = scenes(**still, height=32, width=48).clips(torch.arange(4)).frames
    middle = wide[:, :, :, 8:-8].int() - square.int()
    assert (middle.abs() <= 1).float().mean() > 0.99  # edge pixels of the square lack a neighbour


def test_frames_differ_where_something_moves() -> None:
    dataset = scenes(num_clips=4)
    clips = dataset.clips(torch.arange(4))
    assert (clips.frames[:, 0] != clips.frames[:, 2]).flatten(1).any(1).all()


def test_names_are_those_of_the_reader_of_the_original() -> None:
    """So a study of the rendered room is one of 3D Shapes with another dataset."""
    ours = {factor.name: factor.class_names for factor in LIBRARIES["room"]}
    for hue in ("object_hue", "floor_hue", "wall_hue"):
        assert ours[hue] == shapes3d.HUES
    assert ours["scale"] == shapes3d.SCALES
    assert ours["orientation"] == shapes3d.ANGLES
    assert set(ours["shape"]) == set(shapes3d.SHAPES) - {"capsule"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_objects": [0, 3]}, "fewest, most"),
        ({"num_objects": [4, 3]}, "fewest, most"),
        ({"num_objects": [3, 11]}, "fewest, most"),
        ({"style": "room", "num_objects": [1, 2]}, "a room holds 1 object"),
        ({"style": "room", "factors": {"colour": ["red"]}}, "no factor 'colour'; legal: floor_hue"),
        ({"num_frames": 1}, "motion cannot be seen in one frame"),
        ({"style": "cave"}, "clevr"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        scenes(**changes)


@pytest.mark.parametrize("style", ["clevr", "room"])
def test_nothing_moves_in_a_single_frame(style: str) -> None:
    still, moving = (
        scenes(style=style, factors={"shape": ["cube", "sphere"]}, num_frames=t) for t in (1, 4)
    )
    rows = torch.arange(8)
    truth, longer = still.truth(rows), moving.truth(rows)
    assert truth is not None and truth.velocities_px is not None
    assert truth.velocities_px.shape == (8, 1, *truth.present.shape[1:], 2)
    assert not truth.velocities_px.any()
    assert longer is not None and longer.velocities_px is not None
    steps = longer.positions_px.diff(dim=1)
    assert torch.equal(longer.velocities_px[:, 1:], steps)
    assert torch.equal(longer.velocities_px[:, 0], steps[:, 0]) and steps.any()
