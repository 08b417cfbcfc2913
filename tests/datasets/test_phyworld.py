"""PhyWorld as published: parts of videos that are bytes, upside down, and where the balls are."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from published import mp4, phyworld_video, steady, write_phyworld

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, DataRoot, Dataset

CONFIG = Path(__file__).parents[2] / "configs" / "data" / "phyworld.yaml"


def reader(path: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "phyworld", "path": path, **settings}).build()


def colliding(num_videos: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Two balls, red on the left and blue on the right, as they come closer."""
    radii, speeds = np.tile([1.2, 0.8], (num_videos, 1)), np.tile([1.0, 2.0], (num_videos, 1))
    t = 0.1 * np.arange(num_frames)
    left, right = np.stack([2 + t, 0 * t + 4], -1), np.stack([8 - 2 * t, 0 * t + 4], -1)
    return np.tile(np.stack([left, right], 1), (num_videos, 1, 1, 1)), np.hstack([radii, speeds])


def centre(frames: torch.Tensor, channel: int) -> torch.Tensor:
    """Mean x, y of the pixels of a red (0) or blue (2) ball, by frame."""
    ball = (frames[..., channel] > 150) & (frames[..., 1] < 110) & (frames[..., 2 - channel] < 110)
    rows, columns = torch.arange(ball.shape[1]) * 1.0, torch.arange(ball.shape[2]) * 1.0
    area = ball.sum((1, 2))
    x, y = (ball.sum(1).float() @ columns) / area, (ball.sum(2).float() @ rows) / area
    return torch.stack([x, y], dim=1)


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ball in two parts of different size, as the published files are merged."""
    path = tmp_path_factory.mktemp("rolling") / "uniform_motion_30K.hdf5"
    write_phyworld(path, {"00000": steady(4, 9), "00001": steady(2, 9, seed=1)}, side=64)
    return path


def test_videos_are_in_the_order_of_the_parts_and_flipped(rolling: Path) -> None:
    dataset = reader(rolling)
    assert (len(dataset), dataset.num_frames, dataset.height, dataset.width) == (6, 9, 64, 64)
    assert dataset.fps == 10 and len(dataset.factors) == 0
    assert dataset.classes().shape == (6, 0) and dataset.values().shape == (6, 0, 0)
    frames = dataset.clips(torch.tensor([5, 0])).frames
    for clip, (positions, initial), row in (
        (frames[0], steady(2, 9, seed=1), 1),
        (frames[1], steady(4, 9), 0),
    ):
        stored = phyworld_video(positions[row][:, None], initial[row, :1])
        true = torch.from_numpy(stored[:, ::-1].copy()).float()
        error, upside_down = ((clip.float() - x).abs().mean() for x in (true, true.flip(1)))
        assert error < 1.5 and error < upside_down / 3


@pytest.mark.parametrize("size", [{}, {"height": 32, "width": 32}, {"height": 24, "width": 48}])
def test_positions_are_those_of_the_pixels(tmp_path: Path, size: dict[str, int]) -> None:
    path = tmp_path / "collision_30K.hdf5"
    write_phyworld(path, {"00000": colliding(2, 6)}, side=96)
    dataset = reader(path, num_frames=5, **size)
    clips, truth = dataset.clips(torch.arange(2)), dataset.truth(torch.arange(2))
    assert truth is not None and truth.positions_px.shape == (2, 5, 2, 2)
    assert truth.present.all()
    for ball, channel in enumerate((0, 2)):
        off = centre(clips.frames[0], channel) - truth.positions_px[0, :, ball]
        axes = [0, 1] if dataset.height == dataset.width else [0]  # cut above and below
        assert off[:, axes].abs().max() < 1, (ball, off)


def test_ranges_make_factors(rolling: Path) -> None:
    ranges = {"speed": (1.0, 2.0, 4.0), "radius": (0.7, 1.0, 1.2)}
    dataset = reader(rolling, ranges=ranges)
    initial = np.concatenate([steady(4, 9)[1], steady(2, 9, seed=1)[1]])
    kept = initial[initial[:, 0] <= 1.2]
    assert 0 < len(dataset) == len(kept) < 6
    assert dataset.factors.names == ("speed", "radius")
    speed, radius = dataset.factors.items
    assert speed.class_names == ("1 to 2", "2 to 4") and speed.temporal and not radius.temporal
    assert speed.kind == radius.kind == "continuous"
    assert dataset.classes()[:, 0].tolist() == (kept[:, 1] >= 2).tolist()
    assert dataset.classes()[:, 1].tolist() == (kept[:, 0] >= 1).tolist()
    values = dataset.values()
    assert np.allclose(values[:, :, 0], kept[:, ::-1])
    off = (values - dataset.factors.prototypes(dataset.classes())).abs()
    assert (off <= dataset.factors.spreads(dataset.classes()) + 1e-5).all()


def test_edges_belong_to_a_class(tmp_path: Path) -> None:
    positions, initial = steady(5, 3)
    initial[:, 0] = np.linspace(0.7, 1.4, 5) + 1e-15 * np.array([-1, 0, -1, 0, 1])
    write_phyworld(tmp_path / "a.hdf5", {"00000": (positions, initial)})
    dataset = reader(tmp_path / "a.hdf5", ranges={"radius": (0.7, 1.05, 1.4)})
    assert dataset.classes()[:, 0].tolist() == [0, 0, 1, 1, 1]


def test_a_part_may_be_one_video(tmp_path: Path) -> None:
    positions, initial = steady(2, 4)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for row in range(2):
            frames = phyworld_video(positions[row][:, None], initial[row, :1])
            stream = np.frombuffer(mp4(frames), dtype=np.uint8)
            file[f"video_streams/{row:05d}"] = stream
            file[f"position_streams/{row:05d}"] = positions[row]
            file[f"init_streams/{row:05d}"] = initial[row]
    write_phyworld(tmp_path / "b.hdf5", {"00000": (positions, initial)})
    alone, merged = reader(tmp_path / "a.hdf5"), reader(tmp_path / "b.hdf5")
    everything = torch.arange(2)
    assert torch.equal(alone.clips(everything).frames, merged.clips(everything).frames)
    one, other = alone.truth(everything), merged.truth(everything)
    assert one is not None and other is not None
    assert torch.equal(one.positions_px, other.positions_px)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_open_the_file_for_themselves(rolling: Path) -> None:
    dataset = reader(rolling)
    frames = dataset.clips(torch.arange(6)).frames
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.clips(torch.arange(6)).frames, frames)
    children: list[int] = []
    for i in (2, 4):
        child = os.fork()  # as workers of a DataLoader, after the parent has read
        if child == 0:
            same = torch.equal(dataset.clips(torch.tensor([i])).frames[0], frames[i])
            os._exit(0 if same else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_bad_files_are_named(tmp_path: Path, rolling: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(UserError, match=r"no file .*a\.hdf5; expected .*huggingface\.co/datasets"):
        reader(path)
    path.write_bytes(rolling.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"a\.hdf5: it is cut off or not HDF5"):
        reader(path)
    positions, initial = steady(3, 4)
    write_phyworld(path, {"00000": (positions, initial)})
    with h5py.File(path, "a") as file:
        del file["init_streams/00000"]
        file["init_streams/00000"] = initial[:2]
    with pytest.raises(UserError, match="part 00000 has 3 videos, 3 rows of positions and 2 of"):
        reader(path)
    with h5py.File(path, "a") as file:
        del file["init_streams"]
    with pytest.raises(UserError, match=r"has no 'init_streams/00000', it holds .*video_streams"):
        reader(path)
    write_phyworld(path, {"00000": (positions, initial)})
    with h5py.File(path, "a") as file:
        file["video_streams/00000"][1] = file["video_streams/00000"][1][:900]
    with pytest.raises(UserError, match=r"a\.hdf5, video 1 of part 00000"):
        reader(path).clips(torch.arange(3))
    with pytest.raises(UserError, match=r"uniform_motion_30K\.hdf5, video 0 .*10"):
        reader(rolling, num_frames=10)


def test_bad_ranges_are_named(rolling: Path) -> None:
    with pytest.raises(UserError, match=r"1 ball\(s\) have no 'size'; .*radius, speed"):
        reader(rolling, ranges={"size": (0.7, 1.0)})
    with pytest.raises(ValueError, match="two or more rising edges"):
        reader(rolling, ranges={"radius": (1.0, 0.7)})
    with pytest.raises(UserError, match="no video in these ranges"):
        reader(rolling, ranges={"radius": (3.0, 4.0)})


def test_the_shipped_config_holds_large_and_fast_out(rolling: Path) -> None:
    data = DataRoot.load(CONFIG, [f"data.dataset.path={rolling}", "data.dataset.num_frames=9"]).data
    dataset = data.dataset.build()
    assert (dataset.height, dataset.width) == (64, 64)
    split = data.split.build(dataset.factors)
    assert len(dataset) == 6 and split.level_names == ("seen", "level-1")
    held_out = split.combinations_of("level-1")
    assert [dataset.factors.describe(row) for row in held_out] == ["1.05 to 1.4 2.5 to 4"]
