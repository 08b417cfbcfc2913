"""CATER: AVI files of Motion-JPEG, frame numbers that are strings, and every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_videos import write_cater

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.media import MediaError

CONTAIN = ("_contain", "Spl_0", 4, 7)


def reader(root: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "cater", "path": root, **settings}).build()


@pytest.mark.parametrize(("videos", "prefix"), [("videos", "CATER_new_"), ("images", "CLEVR_new_")])
def test_the_release_and_the_generator_are_both_read(
    tmp_path: Path, videos: str, prefix: str
) -> None:
    for variant, count in (("all_actions", 5), ("max2action", 7)):  # of the same names
        write_cater(tmp_path / variant, 3, count, videos=videos, prefix=prefix)
    dataset = reader(tmp_path)
    assert (len(dataset), dataset.num_frames, dataset.fps) == (2, 13, 24)
    assert dataset.factors.items[0].class_names == ("5", "6", "7")
    assert dataset.classes()[:, 0].tolist() == [0, 2]
    assert dataset.values()[:, 0, 0].tolist() == [5, 7]
    frames = dataset.clips(torch.arange(2)).frames
    assert (frames[1, 5, 4, 9] - torch.tensor([220.0, 40, 40])).abs().amax() < 60  # the snitch


def test_a_containment_belongs_to_the_clip_that_shows_it(tmp_path: Path) -> None:
    moves = [("_slide", None, 0, 12), CONTAIN]
    write_cater(tmp_path, 0, 5, movements=moves)
    dataset = reader(tmp_path, num_frames=3, windows="all")
    assert dataset.factors.names == ("count", "containment")
    assert dataset.factors.items[1].temporal
    assert dataset.classes()[:, 1].tolist() == [0, 1, 1, 0], "frames 0-2, 3-5, 6-8, 9-11"
    assert len(dataset.groups().unique()) == 1


def test_pixels_are_known_at_first_and_the_world_throughout(tmp_path: Path) -> None:
    centres = write_cater(tmp_path, 0, 5)
    dataset = reader(tmp_path, num_frames=3, temporal_stride=2, windows="all", height=16, width=24)
    truth = dataset.truth(torch.arange(2))
    assert truth is not None and truth.positions is not None
    assert truth.present.all() and truth.present.shape == (2, 5)
    # pixel_coords are distances from the corner, so half a pixel more than a pixel's number
    assert np.allclose(truth.positions_px[0, 0], centres[0] / 2 - 0.5)
    assert truth.positions_px[0, 1:].isnan().all() and truth.positions_px[1].isnan().all()
    shown = torch.from_numpy(centres[[[0, 2, 4], [6, 8, 10]]] / 10).float()
    assert torch.allclose(truth.positions[..., :2], shown)


def test_scenes_of_different_size_are_one_batch(tmp_path: Path) -> None:
    write_cater(tmp_path, 0, 5)
    write_cater(tmp_path, 1, 8)
    truth = reader(tmp_path).truth(torch.arange(2))
    assert truth is not None and truth.present.sum(1).tolist() == [5, 8]


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*expected videos/CATER_new_000000\.avi"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match="0 videos, no scenes; expected videos/CATER"):
        reader(tmp_path)
    for number in range(2):
        write_cater(tmp_path, number, 5)
    video = tmp_path / "videos" / "CATER_new_000001.avi"
    (tmp_path / "other" / "videos").mkdir(parents=True)
    moved = video.rename(tmp_path / "other" / "videos" / video.name)  # of another variant
    with pytest.raises(UserError, match=r"scenes/CATER_new_000001\.json has no CATER_new_000001"):
        reader(tmp_path)
    assert len(reader(tmp_path, on_error="skip")) == 1
    moved.rename(video)
    scene = tmp_path / "scenes" / "CATER_new_000001.json"
    plain = json.loads(scene.read_text())
    scene.write_text(json.dumps({k: v for k, v in plain.items() if k != "movements"}))
    with pytest.raises(
        MediaError, match=r"CATER_new_000001\.json lacks 'movements'; expected a CA"
    ):
        reader(tmp_path)
    del plain["objects"][2]["locations"]["9"]
    scene.write_text(json.dumps(plain))
    with pytest.raises(MediaError, match=r"CATER_new_000001\.json lacks '9'"):
        reader(tmp_path).truth(torch.tensor([1]))
