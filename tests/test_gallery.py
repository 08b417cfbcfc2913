"""Previews: every shipped world can be looked at, and what is on the picture is what is true."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tiny import DATA, ROOT, SPRITES, STILLS, run_tool, write_config

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, DataConfig, Dataset
from vidcomp.media import read_video, write_gif, write_video
from vidcomp.report.boxes import draw_boxes, truth_boxes
from vidcomp.report.gallery import Preview, Shown, choose, draw, write_preview
from vidcomp.types import Frames
from vidcomp.world.truth import Truth

YAMLS = sorted((ROOT / "configs" / "data").glob("*.yaml"))
EVENTS: dict[str, Any] = {
    "name": "events",
    "num_clips": 16,
    "num_frames": 13,
    "factors": {"event": ["pass", "collide"], "order": ["a_first", "b_first"]},
}
BLUE_PIXELS = (31, 119, 180)  # tab:blue, the border of what is seen


def built(data: Mapping[str, Any]) -> tuple[Dataset, DataConfig]:
    config = DataConfig.model_validate(data)
    return config.dataset.build(), config


def shown_of(data: Mapping[str, Any], *, combinations: int = 32, clips: int = 2) -> list[Shown]:
    dataset, config = built(data)
    split = config.split.build(dataset.factors)
    return choose(dataset, split, combinations=combinations, clips=clips)


def is_drawn(path: Path) -> bool:
    data = Preview.load(path).data
    return (data.render is not None and not hasattr(data.render, "path")) or data.folder is None


@pytest.mark.parametrize("path", [p for p in YAMLS if is_drawn(p)], ids=lambda path: path.stem)
def test_every_world_that_is_drawn_can_be_looked_at(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "preview.png"
    settings = Preview.load(path, [f"out={out}", "combinations=2", "clips=1"])
    assert write_preview(settings).startswith("8 clips of 2 of the ")
    with Image.open(out) as picture:
        assert min(picture.size) >= 100


def test_the_tool_writes_what_the_suffix_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config({"data": DATA}, tmp_path / "data.yaml")
    for suffix in ("gif", "mp4", "png"):
        out = tmp_path / f"preview.{suffix}"
        assert run_tool("render", "preview", config, f"out={out}", "clips=1") == 0
        assert f"8 clips of 8 combinations and levels: {out}" in capsys.readouterr().out
    with Image.open(tmp_path / "preview.gif") as picture:
        assert getattr(picture, "n_frames", 1) == 5  # the last one stands longer
        assert picture.info["loop"] == 0
    video, still = read_video(tmp_path / "preview.mp4"), read_video(tmp_path / "preview.png")
    assert len(video) == 5 + 6 and (video[5].float() - video[-1].float()).abs().mean() < 1
    assert len(still) == 1 and still.shape[1] > 4 * video.shape[1], "moments stand below each other"

    assert run_tool("render", "preview", config, f"out={tmp_path / 'preview.tiff'}") == 2
    words = capsys.readouterr().err
    assert "legal suffixes: .gif, .mp4, .png" in words and words.count("\n") == 1


def test_a_picture_shows_its_clips_pixel_for_pixel() -> None:
    dataset, _ = built(STILLS)
    shown = shown_of(STILLS, clips=1)
    picture = draw(dataset, shown, truth=False, still=True)[0]
    for column in shown:
        clip = dataset.clips(torch.tensor(column.rows)).frames[0, 0]
        large = clip.repeat_interleave(8, 0).repeat_interleave(8, 1)  # 16 to 128 pixels
        places = [
            (y, x)
            for y in range(picture.shape[0] - 127)
            for x in range(13, picture.shape[1] - 127, 144)
            if torch.equal(picture[y, x : x + 128], large[0])
            and torch.equal(picture[y : y + 128, x : x + 128], large)
        ]
        assert len(places) == 1
        y, x = places[0]
        assert (tuple(picture[y - 1, x].tolist()) == BLUE_PIXELS) == (column.level == 0)


def test_what_is_shown_is_labelled_with_its_level_and_combination() -> None:
    dataset, config = built(DATA)
    split = config.split.build(dataset.factors)
    shown = shown_of(DATA)
    assert len(shown) == 8 and len({row for column in shown for row in column.rows}) == 16
    for column in shown:
        rows = torch.tensor(column.rows)
        classes = dataset.classes()[rows]
        assert {dataset.factors.describe(c) for c in classes} == {column.label}
        assert set(split.levels(classes, dataset.values()[rows]).tolist()) == {column.level}


def test_levels_take_turns_where_not_all_can_be_shown() -> None:
    assert [column.level for column in shown_of(DATA, combinations=3)] == [0, 0, 1, 1, 2, 2]
    assert {column.level for column in shown_of(DATA, combinations=7)} == {0, 1, 2}
    assert len(shown_of(DATA, combinations=7)) == 7


def test_numbers_are_named_and_images_stand_beside_clips() -> None:
    counting = Preview.load(ROOT / "configs/data/counting.yaml").data
    dataset = counting.dataset.build()
    some = choose(dataset, counting.split.build(dataset.factors), combinations=2, clips=1)
    assert [column.label for column in some[::4]] == ["count 1", "count 0"]

    parts = [{"dataset": STILLS["dataset"]}, {"dataset": SPRITES}]
    mixture = {"dataset": {"name": "mixture", "parts": parts}, "split": {}}
    images_then_clips = [[row < 80 for row in column.rows] for column in shown_of(mixture)]
    assert images_then_clips == [[True, False]] * len(images_then_clips)
    assert len(draw(built(mixture)[0], shown_of(mixture), truth=True, still=False)) > 5


def test_a_folder_of_videos_without_labels(tmp_path: Path) -> None:
    dataset, _ = built(DATA)
    for i in range(3):
        clip = dataset.clips(torch.tensor([i])).frames[0]
        write_video(tmp_path / f"{i}.mp4", clip, fps=8.0)
    data = {"dataset": {"name": "folder", "path": tmp_path, "labels": "none"}, "split": {}}
    shown = shown_of(data, clips=1)
    assert [column.rows for column in shown] == [(0,), (1,), (2,)]
    assert len(draw(built(data)[0], shown, truth=False, still=False)) > 5
    with pytest.raises(UserError, match="leave out truth=true"):
        draw(built(data)[0], shown, truth=True, still=False)


def boxed(frames: Frames, truth: Truth, scale: int) -> tuple[Frames, Frames]:
    """Frames enlarged, without boxes and with them."""
    plain = frames.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    drawn = plain.clone()
    draw_boxes(drawn, truth, scale=scale)
    return plain, drawn


def test_boxes_stand_around_what_is_seen_and_hide_none_of_it() -> None:
    dataset = DATASETS.config(SPRITES | {"height": 24, "width": 24}).build()
    clips, truth = dataset.clips_and_truth(torch.arange(8))
    assert truth is not None
    plain, drawn = boxed(clips.frames, truth, scale=4)
    changed = (plain != drawn).any(-1)
    seen = truth.masks()[:, :, 0].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert not (changed & seen).any()
    for b, t in np.ndindex(*changed.shape[:2]):
        for axis in (0, 1):  # the box ends where the object does, and a line of one pixel later
            line, of_object = (x[b, t].any(axis).nonzero()[:, 0] for x in (changed, seen))
            inside = (of_object > 0) & (of_object < 95)
            assert inside.any() and line.amin() == max(of_object.amin() - 1, 0)
            assert line.amax() == min(of_object.amax() + 1, 95)


def test_boxes_are_bold_where_objects_touch_and_missing_where_none_is_seen() -> None:
    dataset = DATASETS.config(EVENTS).build()
    clips, truth = dataset.clips_and_truth(torch.arange(16))
    assert truth is not None and truth.contacts is not None
    touches = truth.contacts.any(-1)
    assert touches.any() and not touches.all()
    only = Truth(truth.present, truth.positions_px, segments=truth.segments)
    drawn, thin = (boxed(clips.frames, t, scale=3)[1] for t in (truth, only))
    assert torch.equal((drawn != thin).flatten(2).any(2), touches.any(-1))

    hidden = Truth(truth.present, truth.positions_px, segments=torch.zeros_like(truth.segments))
    plain, drawn = boxed(clips.frames, hidden, scale=3)
    assert torch.equal(plain, drawn)


def test_boxes_tell_what_a_generator_is_told_from_the_rest_and_from_clutter() -> None:
    places = torch.tensor([[[[6.0, 6.0], [18.0, 6.0], [6.0, 18.0], [18.0, 18.0]]]])
    truth = Truth(
        torch.tensor([[True, True, True, False]]),
        places,
        labelled=torch.tensor([[True, False, False, False]]),
        clutter=torch.tensor([[False, False, True, False]]),
    )
    plain, drawn = boxed(torch.zeros(1, 1, 24, 24, 3, dtype=torch.uint8), truth, scale=4)
    changed = (plain != drawn).any(-1)[0, 0]
    (told, counted), (clutter, absent) = (half.chunk(2, 1) for half in changed.chunk(2, 0))
    around = 4 * (3 * 4 + 1)  # a line about three pixels, each as wide as four
    assert told.sum() == around and not clutter.any() and not absent.any()
    assert around / 3 < counted.sum() < around * 2 / 3


def test_a_legend_stands_below_where_some_are_told_of() -> None:
    counting = {"name": "counting", "num_clips": 22, "label": "one"}
    dataset, config = built({"dataset": counting, "split": {}})
    shown = choose(dataset, config.split.build(dataset.factors), combinations=2, clips=1)
    with_legend, without = (draw(dataset, shown, truth=t, still=True)[0] for t in (True, False))
    strip = with_legend[len(without) :]
    assert len(strip) and (strip < 128).any() and strip.shape[1] == without.shape[1]
    sprites, _ = built(DATA)
    heights = {draw(sprites, shown_of(DATA), truth=t, still=True).shape[1] for t in (True, False)}
    assert len(heights) == 1, "of sprites no generator is told"


def test_where_only_places_are_known_a_small_box_marks_them() -> None:
    places = torch.tensor([[[[5.0, 7.0], [0.0, 0.0], [-50.0, 90.0], [torch.nan, 3.0]]]])
    truth = Truth(torch.tensor([[True, False, True, True]]), places)
    boxes = truth_boxes(truth)
    assert boxes[0, 0, 0].tolist() == [4, 6, 6, 8] and boxes[0, 0, 1].isnan().all()
    plain, drawn = boxed(torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8), truth, scale=2)
    rows, columns = (plain != drawn).any(-1)[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (11, 18), "rows 6 to 8, and a line"
    assert (columns.min(), columns.max()) == (7, 14)


def test_what_stands_still_does_not_flicker_in_a_gif(tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    ground = torch.stack([4 * y, 4 * x, 2 * (x + y)], dim=-1)
    clip = ground.to(torch.uint8).repeat(6, 1, 1, 1)
    for k in range(6):
        clip[k, 40:, 8 * k : 8 * k + 8] = torch.tensor([40 * k, 255 - 40 * k, 255]).to(torch.uint8)
    write_gif(tmp_path / "a.gif", clip, fps=8.0)
    with Image.open(tmp_path / "a.gif") as picture:
        frames = np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(picture)])
    assert len(frames) == 6 and (frames[:, :40] == frames[:1, :40]).all()
    assert np.abs(frames.astype(int) - clip.numpy()).mean() < 6
