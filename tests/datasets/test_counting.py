"""The count world beyond the contract: what is drawn can be counted, and is where it is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Clips, DataRoot, Dataset, build
from vidcomp.seeding import Rng
from vidcomp.storage import store
from vidcomp.world.crowd import PALETTE, WHITE

CONFIGS = Path(__file__).parents[2] / "configs" / "data"
FOREGROUND = 125  # of 255: half of an object's brightest channel over the ground
TOUCHING = np.ones((3, 3))  # diagonal neighbours are one component


def world(**settings: Any) -> Dataset:
    return DATASETS.config({"name": "counting", "num_clips": 110, **settings}).build()


def everything(dataset: Dataset) -> Clips:
    return dataset.clips(torch.arange(len(dataset)))


def detect(frame: Tensor) -> np.ndarray:
    """The centres of what is bright, (x, y) in pixels: the detector that scores generators."""
    bright = frame.amax(-1).numpy() > FOREGROUND
    components, count = ndimage.label(bright, structure=TOUCHING)
    found = ndimage.center_of_mass(bright, components, range(1, count + 1))
    return np.array(found).reshape(-1, 2)[:, ::-1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"colours": "one"},
        {"height": 64, "width": 64},
        {"height": 64, "width": 64, "radius_px": 5.0},
        {"shapes": ["circle", "square", "triangle", "star"], "gap_px": 1.5},
        {"num_frames": 9, "speed_px": [0.5, 2.0], "height": 40, "num_clips": 33},
    ],
)
def test_components_count_every_object_in_every_frame(settings: dict[str, Any]) -> None:
    """The upper bound of every score: recall and precision of real clips are one, for each N."""
    dataset = world(**settings)
    clips, truth = everything(dataset), dataset.truth(torch.arange(len(dataset)))
    assert truth is not None
    radius = settings.get("radius_px", 2.5)
    for clip, count in enumerate(clips.values[:, 0, 0].tolist()):
        for frame in range(dataset.num_frames):
            found = detect(clips.frames[clip, frame])
            places = truth.positions_px[clip, frame, truth.present[clip]].numpy()
            assert len(found) == len(places) == count
            away = np.linalg.norm(found[:, None] - places[None], axis=-1)
            assert (away[linear_sum_assignment(away)] < radius / 2).all()


def test_every_count_is_drawn_as_often() -> None:
    dataset = world(counts=[0, 2, 5])
    clips, truth = everything(dataset), dataset.truth(torch.arange(110))
    assert dataset.factors.items[0].class_names == ("0", "2", "5")
    assert clips.classes[:108, 0].bincount().tolist() == [36, 36, 36]
    assert truth is not None and torch.equal(truth.present.sum(1).float(), clips.values[:, 0, 0])
    assert torch.equal(dataset.values(), clips.values)


def test_nothing_is_nothing() -> None:
    dataset = world(counts=[0], num_clips=3)
    clips, truth = everything(dataset), dataset.truth(torch.arange(3))
    assert len(clips.frames.unique()) == 1
    assert clips.locations is not None and clips.locations.points.shape == (3, 1, 0, 2)
    assert truth is not None and truth.present.shape == (3, 0)
    padded = everything(world(counts=[0, 4]))
    empty = padded.classes[:, 0] == 0
    assert padded.locations is not None and not padded.locations.given[empty].any()
    assert (padded.frames[empty] == clips.frames[0]).all()


@pytest.mark.parametrize("placement", ["free", "mirrored"])
@pytest.mark.parametrize("within", [1.0, 0.75])
def test_objects_stay_inside_and_apart_while_they_move(placement: str, within: float) -> None:
    settings = {"num_frames": 12, "speed_px": [0.5, 2.5], "placement": placement, "width": 48}
    dataset = world(**settings, within=within, counts=[2, 5], num_clips=40)
    truth = dataset.truth(torch.arange(40))
    assert truth is not None and truth.contacts is not None and truth.velocities_px is not None
    assert truth.visibility is not None
    absent = ~truth.present[:, None]
    assert (truth.visibility == 1)[truth.present[:, None].expand(-1, 12, -1)].all()
    x = truth.positions_px
    away = (x[:, :, :, None] - x[:, :, None]).norm(dim=-1)
    away = away + 1e9 * (torch.eye(5) + absent[..., None] + absent[..., None, :])
    assert away.amin() > 5 + 2 - 1e-3
    assert truth.contacts[..., :5].any() and truth.contacts[..., 5].any()
    high = x.masked_fill(absent[..., None], -1e9).amax((1, 2))
    low = x.masked_fill(absent[..., None], 1e9).amin((1, 2))
    assert (high - low <= torch.tensor([within * 48, within * 32]) - 5 + 1e-3).all()
    bounced = truth.contacts.any(-1)[:, 1:]
    steady = (x[:, 1:] - x[:, :-1] - truth.velocities_px[:, 1:]).abs().amax(-1)
    assert steady[~bounced].amax() < 1e-3


def test_mirrored_places_tell_each_other() -> None:
    dataset = world(placement="mirrored", counts=[2], num_clips=50)
    locations = everything(dataset).locations
    assert locations is not None
    left, right = locations.points[:, 0].unbind(1)
    assert torch.allclose(left[:, 0] + right[:, 0], torch.tensor(1.0), atol=1e-5)
    assert torch.equal(left[:, 1], right[:, 1])


def test_a_larger_frame_with_more_objects_is_as_dense() -> None:
    """Sizes are in pixels: what an object covers does not depend on the frame."""
    few, many = world(counts=[10]), world(counts=[40], height=64, width=64, colours="one")
    share = [(everything(d).frames.amax(-1) > FOREGROUND).float().mean() for d in (few, many)]
    assert float(share[0]) == pytest.approx(float(share[1]), rel=0.02)
    sparse = everything(world(counts=[10], height=64, width=64)).frames
    assert float((sparse.amax(-1) > FOREGROUND).float().mean()) == pytest.approx(
        float(share[0]) / 4, rel=0.02
    )


def test_labels_change_what_is_told_and_no_pixel() -> None:
    told = {label: everything(world(label=label)) for label in ("all", "one", "subset")}
    count = told["all"].values[:, 0, 0].long()
    given: dict[str, Tensor] = {}
    for label, clips in told.items():
        assert torch.equal(clips.frames, told["all"].frames)
        assert clips.locations is not None
        given[label] = clips.locations.given.sum(1)
        assert torch.equal(clips.locations.all_given().given, clips.locations.present)
    assert torch.equal(given["all"], count)
    assert torch.equal(given["one"], count.clamp_max(1))
    assert ((given["subset"] >= count.clamp_max(1)) & (given["subset"] <= count)).all()


def test_who_is_told_of_does_not_depend_on_the_place() -> None:
    locations = everything(world(label="one", counts=[3], num_clips=3000)).locations
    assert locations is not None
    among = locations.points[:, 0].mean((0, 1))
    told = locations.points[:, 0][locations.given].mean(0)
    assert (told - among).abs().amax() < 4 * 0.28 / 3000**0.5  # a coordinate has deviation 0.28


@pytest.mark.parametrize("colours", ["distinct", "independent", "one"])
def test_locations_are_where_the_pixels_are_and_tell_the_looks(colours: str) -> None:
    settings = {"num_frames": 3, "speed_px": [1.0, 1.0], "width": 44, "shapes": ["circle", "cross"]}
    dataset = world(**settings, colours=colours)
    clips, truth = everything(dataset), dataset.truth(torch.arange(110))
    locations = clips.locations
    assert locations is not None and truth is not None and truth.segments is not None
    b, t, n = (locations.present[:, None].expand(-1, 3, -1)).nonzero().unbind(1)
    pixel = (locations.points[b, t, n] * torch.tensor([44, 32])).long()
    assert torch.equal(truth.segments[b, t, pixel[:, 1], pixel[:, 0]].long(), n + 1)
    seen = clips.frames[b, t, pixel[:, 1], pixel[:, 0]] / 255
    assert torch.allclose(seen, locations.attributes[b, n, :3], atol=0.01)
    crosses = locations.attributes[b, n, 4] == 1
    assert torch.equal(locations.attributes[b, n, 3:].sum(1), torch.ones(len(b)))
    area = (truth.segments[b, t] == (n + 1)[:, None, None]).sum((1, 2))
    assert area[crosses].float().mean() < area[~crosses].float().mean()
    speed = (locations.velocities * torch.tensor([44, 32])).norm(dim=-1)
    assert speed[:, 0][locations.present].mean() == pytest.approx(1, abs=1e-3)
    rows = [
        {tuple(c) for c in rgb[here].mul(10).round().int().tolist()}
        for rgb, here in zip(locations.attributes[..., :3], locations.present, strict=True)
    ]
    number = locations.present.sum(1).tolist()
    different = [len(row) for row in rows]
    match colours:
        case "distinct":
            assert different == number
        case "independent":
            assert sum(different) < sum(number)
            assert {c for row in rows for c in row} == {
                tuple(round(10 * x) for x in rgb) for rgb in PALETTE
            }
        case _:
            assert {c for row in rows for c in row} == {tuple(round(10 * x) for x in WHITE)}


@pytest.mark.parametrize("placement", ["free", "mirrored"])
def test_clutter_is_drawn_and_never_told_of(placement: str) -> None:
    dataset = world(counts=[1, 3], clutter=[0, 4], placement=placement)
    clips, truth = everything(dataset), dataset.truth(torch.arange(110))
    assert clips.locations is not None and truth is not None
    assert clips.locations.present.shape == (110, 7)
    assert (
        not clips.locations.points[:, :, 3:].any() and not clips.locations.attributes[:, 3:].any()
    )
    assert torch.equal(clips.locations.present.sum(1).float(), clips.values[:, 0, 0])
    extra = truth.present.sum(1) - clips.locations.given.sum(1)
    assert set(extra.tolist()) == {0, 1, 2, 3, 4}
    found = [len(detect(frame)) for frame in clips.frames[:, 0]]
    assert torch.equal(torch.tensor(found), truth.present.sum(1))
    b, n = clips.locations.given.nonzero().unbind(1)
    column, row = (clips.locations.points[b, 0, n] * 32).long().unbind(1)
    seen = clips.frames[b, 0, row, column] / 255
    assert torch.allclose(seen, clips.locations.attributes[b, n], atol=0.01)


@pytest.mark.parametrize("label", ["all", "one", "subset"])
def test_stored_clips_have_the_locations_of_drawn_ones(tmp_path: Path, label: str) -> None:
    """In any batch, whether they are looked at or trained on, and fewer frames of them too."""
    config = {"label": label, "counts": [0, 2, 3], "clutter": [0, 2], "num_clips": 12}
    drawn = DATASETS.config(
        {"name": "counting", **config, "num_frames": 3, "speed_px": [1.0, 2.0], "width": 40}
    )
    store(drawn, tmp_path)
    told = everything(drawn.build()).locations
    assert told is not None and told.given.any()
    rows = torch.tensor([7, 0, 11])
    for num_frames in (3, 2):
        raw = {"name": "folder", "path": tmp_path, "num_frames": num_frames}
        read = DATASETS.config(raw).build()
        for clips in (read.clips(rows), read.draw(rows, Rng.make(0, "draw", rows))):
            assert clips.locations is not None
            assert torch.equal(clips.locations.points, told.points[rows, :num_frames])
            assert torch.equal(clips.locations.velocities, told.velocities[rows, :num_frames])
            assert torch.equal(clips.locations.attributes, told.attributes[rows])
            assert torch.equal(clips.locations.present, told.present[rows])
            assert torch.equal(clips.locations.given, told.given[rows])


def test_resized_or_randomly_cropped_clips_have_no_locations(tmp_path: Path) -> None:
    """Those on disk would be wrong."""
    store(DATASETS.config({"name": "counting", "num_clips": 11}), tmp_path)
    for how in ({}, {"crop": "random"}):
        raw = {"name": "folder", "path": tmp_path, "height": 16, "width": 16, **how}
        assert everything(DATASETS.config(raw).build()).locations is None


def test_clips_do_not_depend_on_how_many_there_are() -> None:
    few, many = everything(world()), world(num_clips=500).clips(torch.arange(110))
    assert torch.equal(few.frames, many.frames)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("counting*.yaml")), ids=lambda path: path.stem)
def test_other_counts_than_one_to_three_are_held_out(path: Path) -> None:
    dataset, split = build(DataRoot.load(path, ["data.dataset.num_clips=22"]).data)
    classes, values = dataset.classes(), dataset.values()
    levels = split.levels(classes, values)
    trained = (values[:, 0, 0] >= 1) & (values[:, 0, 0] <= 3)
    assert torch.equal(levels == 0, trained) and levels.amax() == 1
    assert {split.factors.describe(row) for row in classes} == {str(n) for n in range(11)}
    split.refuse_held_out(classes[trained], values[trained])
    with pytest.raises(UserError, match=r"held-out .*'(0|4|5|6|7|8|9|10), count"):
        split.refuse_held_out(classes, values)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"counts": []}, "different numbers from 0 up"),
        ({"counts": [2, 1]}, "different numbers from 0 up"),
        ({"counts": [1, 1]}, "different numbers from 0 up"),
        ({"counts": [-1, 1]}, "different numbers from 0 up"),
        ({"clutter": [3, 1]}, "clutter=.3, 1. is not .least, most."),
        ({"speed_px": [2, 1], "num_frames": 3}, "speed_px=.2.0, 1.0. is not"),
        ({"speed_px": [1, 2]}, "cannot be seen in one frame"),
        ({"shapes": []}, "one or more different"),
        ({"shapes": ["circle", "circle"]}, "one or more different"),
        ({"shapes": ["cirle"]}, "did you mean 'circle'"),
        ({"counts": [13], "height": 64}, "13 objects, but there are 12 distinct colours"),
        ({"clutter": [0, 3]}, "13 objects, but there are 12 distinct colours"),
        ({"radius_px": 17.0}, "10 objects, but 0 fit 32 x 32 pixels"),
        ({"counts": [1], "radius_px": 16.0}, "1 objects, but 0 fit 32 x 32 pixels"),
        ({"radius_px": 12.0}, "10 objects, but 1 fit 32 x 32 pixels"),
        (
            {"counts": [10], "within": 0.4},
            "10 objects, but [1-4] fit 32 x 32 pixels; ask for fewer",
        ),
        ({"counts": [14], "colours": "one"}, "14 objects, but 1[123] fit 32 x 32 pixels"),
        ({"counts": [300], "colours": "one", "height": 512, "width": 512}, "255 fit 512"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        world(**settings)


def test_what_is_said_to_fit_does() -> None:
    with pytest.raises(ValidationError) as error:
        world(counts=[20], colours="one")
    fit = int(str(error.value).split("but ")[1].split(" ")[0])
    assert len(everything(world(counts=[fit], colours="one")).frames) == 110
