"""The count world in three dimensions: where the picture shows spheres is where they are told to
be, and each can be counted."""

from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vidcomp.datasets.base import DATASETS, Clips, Dataset
from vidcomp.probes.base import PROBES, ClipSet, Subject
from vidcomp.types import video_from_frames
from vidcomp.world.splits import SplitConfig
from vidcomp.world.truth import Truth

STUDY: dict[str, Any] = {"height": 48, "width": 48, "radius_px": 3.5, "colours": "independent"}
CLIPS: dict[str, Any] = STUDY | {"num_frames": 5, "speed_px": (0.4, 1.2)}


def world(name: str = "counting3d", **settings: Any) -> Dataset:
    return DATASETS.config({"name": name, "num_clips": 66, **STUDY, **settings}).build()


@cache
def seen(num_frames: int) -> tuple[Clips, Truth]:
    speed = (0.4, 1.2) if num_frames > 1 else (0.0, 0.0)
    clips, truth = world(num_frames=num_frames, speed_px=speed).clips_and_truth(torch.arange(33))
    assert truth is not None
    return clips, truth


def empty_floor() -> Tensor:
    dataset = world(counts=[0, 1], num_clips=4)
    frames = dataset.clips((dataset.classes()[:, 0] == 0).nonzero()[:, 0]).frames
    assert len(frames.unique(dim=0)) == 1, "light and camera are the same in all clips"
    return frames[0, 0]


@pytest.mark.parametrize("num_frames", [1, 5])
def test_spheres_are_seen_where_they_are_told_to_be(num_frames: int) -> None:
    clips, truth = seen(num_frames)
    assert clips.locations is not None and truth.segments is not None
    masks = truth.masks()
    b, t, n = truth.present[:, None].expand(-1, num_frames, -1).nonzero().unbind(1)
    shown = masks[b, t, n].float()
    area = shown.sum((1, 2))
    pixel = torch.arange(48.0)
    middle = torch.stack([(shown.sum(1) * pixel).sum(1), (shown.sum(2) * pixel).sum(1)], dim=1)
    off = middle / area[:, None] - truth.positions_px[b, t, n]
    assert off.abs().amax() < 0.35 and off.mean(0).abs().amax() < 0.05
    told = clips.locations.points[b, t, n] * 48 - 0.5
    assert torch.allclose(told, truth.positions_px[b, t, n], atol=1e-4)
    radius_px = (area.mean() / torch.pi).sqrt()
    assert 3.5 * 0.93 < radius_px < 3.5


def test_the_crowd_is_that_of_the_flat_world() -> None:
    clips, _ = seen(5)
    flat = world("counting", num_frames=5, speed_px=(0.4, 1.2)).clips(torch.arange(33))
    assert clips.locations is not None and flat.locations is not None
    for name, x in flat.locations.tensors().items():
        assert torch.allclose(clips.locations.tensors()[name].float(), x.float(), atol=1e-5), name
    assert torch.equal(clips.classes, flat.classes)


def test_nothing_hides_and_nothing_touches() -> None:
    _, truth = seen(5)
    assert truth.visibility is not None and truth.positions is not None
    there = truth.present[:, None].expand(-1, 5, -1)
    assert truth.visibility[there].amin() > 0.9  # a ray may graze
    assert (truth.positions[there][:, 2] == 1).all(), "they stand on the floor"
    away = (truth.positions[:, :, :, None] - truth.positions[:, :, None]).norm(dim=-1)
    both = there[..., None] & there[..., None, :] & ~torch.eye(10, dtype=torch.bool)
    assert away[both].amin() > 2, "in radii"


def test_light_and_shadow() -> None:
    """A sphere is brightest where the lamp stands, to the left, and darkens the floor beyond. What
    is far from all of them is as if there were none."""
    clips, truth = seen(1)
    floor = empty_floor().float().amax(-1)
    frames = clips.frames[:, 0].float().amax(-1)
    assert truth.segments is not None
    bare = truth.segments[:, 0] == 0
    darkest = frames.where(bare, 255.0).flatten(1).amin(1)
    some = truth.present.any(1)
    assert (darkest[some] < 0.75 * floor.mean()).all() and (darkest[~some] == floor.amin()).all()
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    points = truth.positions_px[:, 0, :, :, None, None]  # b n xy 1 1
    dx, dy = x - points[:, :, 0], y - points[:, :, 1]
    own = truth.masks()[:, 0]
    light = frames[:, None].expand_as(dx)
    assert light[own & (dx < -1.5)].mean() > 1.2 * light[own & (dx > 1.5)].mean()
    far = (dx.hypot(dy) > 5 * 3.5) | ~truth.present[..., None, None]
    alone = far.all(1)
    assert alone.any() and (frames - floor)[alone].abs().amax() <= 3


@pytest.mark.parametrize(
    "settings",
    [
        STUDY,
        CLIPS,
        {"colours": "one", "height": 32, "width": 32, "radius_px": 2.5},
        {"colours": "distinct", "height": 64, "width": 96, "radius_px": 6.0},
    ],
)
def test_the_probe_counts_every_sphere(settings: dict[str, Any]) -> None:
    dataset = world(**settings, num_clips=44)
    drawn = dataset.clips(torch.arange(44))
    split = SplitConfig(rule="range", seen={"count": (1, 3)}).build(dataset.factors)
    clips = ClipSet(video_from_frames(drawn.frames), drawn.classes, drawn.values, drawn.locations)
    judge = PROBES.config("counting").build(dataset.factors)
    scores = judge.run(Subject({"real": clips}, split)).scores
    for n in range(11):
        assert scores[f"real/n/{n}/exact"].value == 1
        if n:
            assert scores[f"real/n/{n}/recall"].value == scores[f"real/n/{n}/precision"].value == 1
            assert scores[f"real/n/{n}/error_px"].value < settings["radius_px"] / 4
    if dataset.num_frames > 1:
        assert scores["real/level-1/switches"].value == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"radius_px": 6.0}, r"10 objects, but \d fit 48 x 48 pixels; ask for fewer, or"),
        ({"within": 0.5}, r"10 objects, but \d fit 48 x 48 pixels; ask for fewer, or"),
        ({"counts": [0]}, "shows the floor alone; name another count"),
        ({"shapes": ["cube"]}, "unknown key 'shapes'"),
        ({"speed_px": [1, 2]}, "cannot be seen in one frame"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        world(**settings)
