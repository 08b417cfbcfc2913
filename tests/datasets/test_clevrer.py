"""CLEVRER in the layouts it comes in: what annotations and proposals tell, and every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_videos import coco_rle, moving, write_clevrer

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.media import MediaError
from vidcomp.media.masks import mask_from_rle
from vidcomp.media.resize import cover_labels, cover_points

THREE = moving(8, [(8, 8), (20, 16), (8, 24)])


def reader(root: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "clevrer", "path": root, **settings}).build()


def test_masks_are_those_of_pycocotools() -> None:
    """Strings that pycocotools 2.0 made of the same masks."""
    shapes = np.zeros((20, 30), dtype=bool)
    shapes[3:12, 5:9] = shapes[10:17, 8:25] = shapes[0, 0] = shapes[19, 29] = True
    text = "01V38UM000052I000000000000000000000000000000i2J"
    assert np.array_equal(mask_from_rle({"size": [20, 30], "counts": text}), shapes)
    noise = [
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 0, 0],
        [1, 1, 0, 1, 1],
        [1, 0, 0, 1, 0],
    ]
    rle = {"size": [7, 5], "counts": "011101010M023OM0010N0"}
    assert mask_from_rle(rle).int().tolist() == noise


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_decoding_inverts_encoding(share: float) -> None:
    mask = np.random.default_rng(0).random((61, 47)) < share
    assert np.array_equal(mask_from_rle(coco_rle(mask)), mask)


def test_a_mask_that_does_not_fill_its_picture_is_an_error() -> None:
    rle = coco_rle(np.ones((4, 5), dtype=bool))
    for broken in ({**rle, "size": [4, 6]}, {**rle, "counts": rle["counts"][:-1]}):
        with pytest.raises(ValueError, match="do not fill"):
            mask_from_rle(broken)


def test_labels_are_covered_as_pictures_are() -> None:
    """A label image of whole blocks, halved or cut at the sides, keeps its blocks."""
    labels = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    large = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(cover_labels(large, height=2, width=3), labels)
    assert torch.equal(cover_labels(large, height=16, width=8), large[:, :, 8:16])


@pytest.mark.parametrize("size", [(16, 24), (20, 20), (64, 72)])
def test_points_are_covered_as_labels_are(size: tuple[int, int]) -> None:
    """The middle of a block stays its middle."""
    height, width = size
    labels = torch.zeros(1, 32, 48, dtype=torch.uint8)
    labels[0, 8:16, 16:28] = 1
    covered = cover_labels(labels, height=height, width=width)[0]
    middle = covered.nonzero().float().mean(0).flip(0)
    point = torch.tensor([(16 + 27) / 2, (8 + 15) / 2])
    moved = cover_points(point, of=(32, 48), height=height, width=width)
    assert torch.allclose(moved, middle, atol=0.5)


@pytest.mark.parametrize("rerooted", [False, True])
def test_videos_are_found_in_any_layout(tmp_path: Path, rerooted: bool) -> None:
    for number in (999, 1000, 10_000):  # on both sides of a shard, and of train and validation
        write_clevrer(tmp_path, number, THREE, rerooted=rerooted)
    write_clevrer(tmp_path, 15_000, THREE, annotated=False, rerooted=rerooted)
    dataset = reader(tmp_path)
    assert len(dataset) == 3, "test videos have no annotations and are left out"
    assert (dataset.num_frames, dataset.height, dataset.width, dataset.fps) == (8, 32, 48, 25)
    clips = dataset.clips(torch.arange(3))
    red = torch.tensor([220, 40, 40])
    off = (clips.frames[:, 3, 8, 11] - red).abs().amax()  # the first object, three steps on
    assert off < 25


def test_counts_are_of_objects_that_come_into_view(tmp_path: Path) -> None:
    write_clevrer(tmp_path, 0, THREE)
    write_clevrer(tmp_path, 1, THREE, hidden=[1], proposals=False)
    dataset = reader(tmp_path)
    assert dataset.factors.names == ("count", "collision")
    count = dataset.factors.items[0]
    assert (count.class_names, count.kind, count.temporal) == (("2", "3"), "ordinal", False)
    assert dataset.classes()[:, 0].tolist() == [1, 0]
    assert dataset.values()[:, 0, 0].tolist() == [3, 2]
    truth = dataset.truth(torch.tensor([1, 0]))
    assert truth is not None
    assert truth.present.tolist() == [[True, False, True], [True, True, True]]


def test_collisions_belong_to_the_clip_that_shows_them(tmp_path: Path) -> None:
    write_clevrer(tmp_path, 0, THREE, collisions=[(0, 2, 5)])
    dataset = reader(tmp_path, num_frames=2, temporal_stride=2, windows="all")
    assert dataset.factors.items[1].temporal
    assert dataset.classes()[:, 1].tolist() == [0, 1], "frames 0 and 2, then 4 and 6"
    assert len(dataset.groups().unique()) == 1
    truth = dataset.truth(torch.arange(2))
    assert truth is not None and truth.contacts is not None
    assert truth.contacts.nonzero().tolist() == [[1, 1, 0, 2], [1, 1, 2, 0]]


def test_positions_come_from_proposals_by_their_attributes(tmp_path: Path) -> None:
    write_clevrer(tmp_path, 0, THREE)
    dataset = reader(tmp_path, num_frames=3, temporal_stride=3)
    truth = dataset.truth(torch.tensor([0]))
    assert truth is not None and truth.positions is not None and truth.segments is not None
    assert np.allclose(truth.positions_px[0], THREE[::3], atol=1e-4)
    assert np.allclose(truth.positions[0, ..., :2], THREE[::3] / 10, atol=1e-5)
    assert truth.segments[0, 1, 8, 11] == 1 and truth.segments[0, 1, 16, 23] == 2
    assert (truth.segments[0, 0, 24, 8], truth.segments[0, 0, 0, 0]) == (3, 0)


def test_positions_follow_the_crop(tmp_path: Path) -> None:
    write_clevrer(tmp_path, 0, THREE)
    dataset = reader(tmp_path, height=16, width=16)  # 24 wide when it covers, 4 cut on each side
    truth = dataset.truth(torch.tensor([0]))
    assert truth is not None and truth.segments is not None
    assert np.allclose(truth.positions_px[0], (THREE + 0.5) / 2 - 0.5 - [4, 0], atol=1e-4)
    assert truth.segments.shape == (1, 8, 16, 16)
    assert truth.segments[0, 0, 8, 6] == 2


def test_without_proposals_positions_in_the_picture_are_unknown(tmp_path: Path) -> None:
    write_clevrer(tmp_path, 0, THREE, proposals=False)
    truth = reader(tmp_path).truth(torch.tensor([0]))
    assert truth is not None and truth.positions is not None
    assert truth.positions_px.isnan().all() and truth.segments is None
    assert truth.positions.isfinite().all()


def test_annotations_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clevrer(tmp_path, 0, THREE, collisions=[(0, 1, 2)])
    first = reader(tmp_path)

    def refuse(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr("vidcomp.datasets.clevrer._note", refuse)
    assert reader(tmp_path).fingerprint == first.fingerprint


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*expected video_00000\.mp4 and annotation"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match="0 videos and 0 annotations"):
        reader(tmp_path)
    write_clevrer(tmp_path, 0, THREE)
    write_clevrer(tmp_path, 1, THREE)
    video = next(tmp_path.rglob("video_00001.mp4"))
    moved = video.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"annotation_00001\.json is of video_00001\.mp4, which is"):
        reader(tmp_path)
    assert len(reader(tmp_path, on_error="skip")) == 1
    moved.rename(video)
    copy = tmp_path / "copy" / video.name
    copy.parent.mkdir()
    copy.write_bytes(video.read_bytes())
    with pytest.raises(UserError, match=r"holds video_00001\.mp4 twice, as copy/"):
        reader(tmp_path)
    copy.unlink()
    annotation = next(tmp_path.rglob("annotation_00001.json"))
    plain = json.loads(annotation.read_text())
    for broken, expected in [
        (
            json.dumps({**plain, "motion_trajectory": plain["motion_trajectory"][:5]}),
            "fewer frames",
        ),
        (json.dumps({k: v for k, v in plain.items() if k != "collision"}), "lacks 'collision'"),
        ("{", "cannot be read"),
    ]:
        annotation.write_text(broken)
        with pytest.raises(MediaError, match=rf"annotation_00001\.json {expected}|{expected}") as e:
            reader(tmp_path)
        assert "annotation_00001.json" in str(e.value) and "\n" not in str(e.value)
