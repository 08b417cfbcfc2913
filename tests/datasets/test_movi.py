"""Kubric's raw MOVi folders: palettes, fractions of frames, floors and every mistake."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from published_movi import write_movi
from published_videos import moving

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.media import MediaError
from vidcomp.world.annotations import Collision, contacts

TWO = moving(6, [(6, 8), (14, 22)])


def reader(root: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "movi", "path": root, **settings}).build()


def test_images_are_read_without_their_alpha(tmp_path: Path) -> None:
    clips = [write_movi(tmp_path, name, TWO, seed=k) for k, name in enumerate(["10", "9"])]
    dataset = reader(tmp_path)
    assert (len(dataset), dataset.num_frames, dataset.fps) == (2, 6, 12)
    frames = dataset.clips(torch.arange(2)).frames.numpy()
    assert np.array_equal(frames, np.stack(clips[::-1])), "scene 9 comes before scene 10"


def test_segmentations_are_palette_indices(tmp_path: Path) -> None:
    """Not their colours, and not luminance: also where they are plain grey."""
    write_movi(tmp_path, "0", TWO)
    grey = tmp_path / "0" / "segmentation_00005.png"
    with Image.open(grey) as image:
        Image.fromarray(np.array(image)).save(grey)
    truth = reader(tmp_path).truth(torch.tensor([0]))
    assert truth is not None and truth.segments is not None
    for t, places in enumerate(TWO.tolist()):
        for k, (x, y) in enumerate(places):
            assert truth.segments[0, t, y, x] == 1 + k
    assert set(truth.segments.unique().tolist()) == {0, 1, 2}
    write_movi(tmp_path, "1", TWO, segmentation=False)  # either all scenes have them or none
    truth = reader(tmp_path).truth(torch.tensor([0]))
    assert truth is not None and truth.segments is None


def test_image_positions_are_shares_of_the_picture(tmp_path: Path) -> None:
    write_movi(tmp_path, "0", TWO)
    truth = reader(tmp_path).truth(torch.tensor([0]))
    assert truth is not None and truth.positions is not None
    assert np.allclose(truth.positions_px[0], TWO, atol=1e-4)
    assert np.allclose(truth.positions[0, ..., :2], TWO / 10, atol=1e-5)


def test_positions_and_segments_follow_the_size(tmp_path: Path) -> None:
    write_movi(tmp_path, "0", TWO, size=(32, 48))
    dataset = reader(tmp_path, num_frames=2, height=16, width=16)
    truth = dataset.truth(torch.tensor([0]))
    assert truth is not None and truth.segments is not None
    assert np.allclose(truth.positions_px[0], (TWO[:2] + 0.5) / 2 - 0.5 - [4, 0], atol=1e-4)
    y, x = (truth.segments[0, 1] == 2).nonzero().float().mean(0)
    assert (torch.stack([x, y]) - truth.positions_px[0, 1, 1]).abs().amax() < 0.6


def test_frames_of_events_count_from_the_simulation(tmp_path: Path) -> None:
    """The first image is the simulation's frame 1; -1 is the floor."""
    events = [(0, 1, 3.4), (1, -1, 1.0), (-1, 0, 5.0), (0, -1, 0.0), (1, 0, 6.5), (-1, -1, 2.0)]
    write_movi(tmp_path, "0", TWO, collisions=events)
    write_movi(tmp_path, "1", TWO, collisions=[(0, -1, 2.0)])
    truth = reader(tmp_path).truth(torch.arange(2))
    assert truth is not None and truth.contacts is not None
    assert truth.contacts[0].nonzero().tolist() == [[0, 1, 2], [3, 0, 1], [3, 1, 0], [4, 0, 2]]
    assert truth.contacts[1].nonzero().tolist() == [[1, 0, 2]]
    assert reader(tmp_path).classes()[:, 1].tolist() == [1, 0], "the floor is no collision"
    assert reader(tmp_path, num_frames=3).classes()[:, 1].tolist() == [0, 0], "it comes later"


def test_contacts_of_the_packed_form_and_with_strides() -> None:
    """TFDS has 65535 for the floor; a contact between two shown frames belongs to the later."""
    seen = contacts([Collision(0, 65535, 3), Collision(0, 1, 4.5)], 2, [1, 3, 5])
    assert seen.nonzero().tolist() == [[1, 0, 2], [2, 0, 1], [2, 1, 0]]
    before = contacts([Collision(0, 1, f) for f in (-1, -0.9, 1, 5.1)], 2, [1, 3, 5])
    assert before.any((1, 2)).tolist() == [True, False, False]


def test_counts_are_of_what_is_seen(tmp_path: Path) -> None:
    late = np.concatenate([TWO, moving(6, [(-7, 4)])], axis=1)  # comes in after three frames
    write_movi(tmp_path, "0", late)
    write_movi(tmp_path, "1", TWO)
    assert reader(tmp_path).factors.items[0].class_names == ("2", "3")
    assert reader(tmp_path).classes()[:, 0].tolist() == [1, 0]
    early = reader(tmp_path, num_frames=3)
    truth = early.truth(torch.arange(2))
    assert truth is not None
    assert truth.present.tolist() == [[True, True, False]] * 2
    assert early.values()[:, 0, 0].tolist() == [2, 2]


@pytest.mark.parametrize("workers, cached", [(0, 2), (1, 2), (2, 1), (4, 0)])
def test_the_cache_is_shared_out_among_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, cached: int
) -> None:
    for scene in range(3):
        write_movi(tmp_path, str(scene), TWO)
    two_clips = 2 * len(TWO) * 32 * 32 * 3
    dataset = reader(tmp_path, cache_gb=two_clips / 1e9)
    info = SimpleNamespace(num_workers=workers) if workers else None
    monkeypatch.setattr("vidcomp.datasets.movi.get_worker_info", lambda: info)
    first = dataset.clips(torch.arange(3)).frames
    for scene in range(3):
        (tmp_path / str(scene) / "rgba_00001.png").unlink()
    kept = 0
    for scene in range(3):
        with contextlib.suppress(MediaError):
            assert torch.equal(dataset.clips(torch.tensor([scene])).frames[0], first[scene])
            kept += 1
    assert kept == cached


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*expected a folder for each scene"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no metadata\.json; expected a folder"):
        reader(tmp_path)
    write_movi(tmp_path, "0", TWO)
    write_movi(tmp_path, "1", TWO[:4], size=(40, 40))
    with pytest.raises(UserError, match="1 has 4 frames, not 6; set num_frames to 4 or fewer"):
        reader(tmp_path)
    with pytest.raises(UserError, match="1 is 40x40, not 32x32; set height and width"):
        reader(tmp_path, num_frames=4)
    with pytest.raises(ValueError, match="both height and width, or neither"):
        reader(tmp_path, height=16)
    dataset = reader(tmp_path, num_frames=4, height=16, width=16, cache_gb=0)
    (tmp_path / "1" / "rgba_00001.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"rgba_00001\.png cannot be read"):
        dataset.clips(torch.tensor([1]))
    (tmp_path / "0" / "rgba_00002.png").unlink()
    with pytest.raises(MediaError, match=r"0 lacks 1 of 4 images, such as rgba_00002; expected"):
        dataset.clips(torch.tensor([0]))


@pytest.mark.parametrize("key", ["metadata", "instances"])
def test_files_that_lack_something_are_named(tmp_path: Path, key: str) -> None:
    write_movi(tmp_path, "0", TWO)
    events, path = tmp_path / "0" / "events.json", tmp_path / "0" / "metadata.json"
    kept = events.read_text()
    events.unlink()
    with pytest.raises(MediaError, match=r"there is no .*events\.json; expected a folder"):
        reader(tmp_path)
    events.write_text(kept)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in plain.items() if k != key}))
    with pytest.raises(MediaError, match=rf"metadata\.json lacks '{key}'"):
        reader(tmp_path)
    path.write_text(json.dumps(plain))
    (tmp_path / "0" / "rgba_00003.png").unlink()
    with pytest.raises(MediaError, match="0 lacks 1 of 6 images, such as rgba_00003"):
        reader(tmp_path)
