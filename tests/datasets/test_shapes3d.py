"""3D Shapes as published: labels are values in the file's order, chunks run across images."""

import os
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from published import SHAPES3D_VALUES, shapes3d_labels, write_shapes3d

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, DataRoot, Dataset
from vidcomp.datasets.shapes3d import HUES, SCALES

CONFIG = Path(__file__).parents[2] / "configs" / "data" / "shapes3d.yaml"


def some_labels(count: int, seed: int = 0) -> np.ndarray:
    """Rows of the published table, as they come."""
    rows = np.random.default_rng(seed).choice(480_000, count, replace=False)
    return shapes3d_labels()[np.sort(rows)]


def reader(path: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "shapes3d", "path": path, **settings}).build()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the full size, with the labels alone: images that are not written take no room."""
    path = tmp_path_factory.mktemp("whole") / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (480_000, 64, 64, 3), np.uint8, chunks=(15_000, 4, 4, 1))
        file.create_dataset("labels", data=shapes3d_labels())
    return path


def test_the_papers_factors_and_split_of_the_whole_file(whole: Path) -> None:
    data = DataRoot.load(CONFIG, [f"data.dataset.path={whole}", "data.dataset.num_clips=null"]).data
    dataset = data.dataset.build()
    assert len(dataset) == 480_000 * 3 // 4 and dataset.factors.num_combinations == 240
    split = data.split.build(dataset.factors)
    names = ("seen", "level-1", "level-2")
    assert split.level_names == names
    assert [len(split.combinations_of(name)) for name in names] == [180, 52, 8]
    shown = dataset.factors.combination_ids(dataset.classes())
    assert (shown.bincount() == 10 * 10 * 15).all()


def test_classes_and_values_are_those_of_the_columns(tmp_path: Path) -> None:
    labels = some_labels(60)
    write_shapes3d(tmp_path / "3dshapes.h5", labels)
    dataset = reader(tmp_path / "3dshapes.h5")
    kept = labels[labels[:, 4] < 3]
    assert dataset.factors.names == ("shape", "object_hue", "scale")
    assert len(dataset) == len(kept) < 60
    ranks = [np.abs(v[:, None] - kept[:, c]).argmin(0) for c, v in enumerate(SHAPES3D_VALUES)]
    assert dataset.classes().tolist() == np.stack([ranks[4], ranks[2], ranks[3]], 1).tolist()
    values = dataset.values()
    assert torch.equal(values[:, 0], torch.zeros(len(kept), 1))
    assert np.allclose(values[:, 1:, 0], kept[:, [2, 3]])
    assert torch.equal(values, dataset.clips(torch.arange(len(kept))).values)


def test_chosen_classes_in_the_order_of_the_config(tmp_path: Path) -> None:
    labels = shapes3d_labels()[:: 480_000 // 97]
    images = write_shapes3d(tmp_path / "3dshapes.h5", labels)
    factors = {"orientation": ["-30", "30"], "wall_hue": ["cyan", "red", "rose"]}
    dataset = reader(tmp_path / "3dshapes.h5", factors=factors)
    angle, wall = labels[:, 5], labels[:, 1]
    kept = np.isin(angle, [-30, 30]) & np.isin(wall.round(1), [0.5, 0.0, 0.9])
    assert 0 < len(dataset) == kept.sum()
    assert dataset.classes()[:, 0].tolist() == (angle[kept] > 0).tolist()
    assert dataset.classes()[:, 1].tolist() == [
        {0.5: 0, 0.0: 1, 0.9: 2}[x] for x in wall[kept].round(1)
    ]
    frames = dataset.clips(torch.arange(len(dataset))).frames
    assert np.array_equal(frames[:, 0], images[kept])


@pytest.mark.parametrize("chunks", [None, (1, 64, 64, 3), (70, 8, 8, 1)])
def test_images_are_their_rows_whatever_the_chunks(
    tmp_path: Path, chunks: tuple[int, ...] | None
) -> None:
    labels = some_labels(150)
    images = write_shapes3d(tmp_path / "3dshapes.h5", labels, chunks=chunks)
    kept = images[labels[:, 4] < 3]
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    for dataset in (reader(tmp_path / "3dshapes.h5"), reader(tmp_path / "3dshapes.h5")):
        for batch in (order, order[[3, 0, 3]], order[:0]):
            assert np.array_equal(dataset.clips(batch).frames[:, 0], kept[batch.numpy()])
    unpacked = list(tmp_path.glob("*.npy"))
    assert len(unpacked) == (chunks == (70, 8, 8, 1))


def test_few_images_of_many_cost_little(tmp_path: Path) -> None:
    """As published, a chunk runs through thousands of images: only what was chosen is unpacked."""
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        shape, chunks = (9000, 64, 64, 3), (4500, 4, 4, 1)
        images = file.create_dataset("images", shape, np.uint8, chunks=chunks, compression="gzip")
        images[8999, 4:8, :4, 2] = 77
        file.create_dataset("labels", data=shapes3d_labels()[:9000])
    dataset = reader(path, factors={"orientation": ["30"]}, num_clips=600)
    unpacked = dataset.clips(torch.tensor([599, 2, 599])).frames
    assert unpacked.shape == (3, 1, 64, 64, 3)
    assert unpacked[0, 0, 5, 2].tolist() == [0, 0, 77] and unpacked[:2].sum() == 16 * 77
    (beside,) = tmp_path.glob("*.npy")
    assert beside.stat().st_size < 601 * 64 * 64 * 3


def test_a_subset_is_drawn_by_its_seed(tmp_path: Path) -> None:
    write_shapes3d(tmp_path / "3dshapes.h5", some_labels(60))
    path = tmp_path / "3dshapes.h5"
    first, again, other = (reader(path, num_clips=20, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    frames = [d.clips(torch.arange(20)).frames for d in (first, again, other)]
    assert torch.equal(frames[0], frames[1]) and not torch.equal(frames[0], frames[2])
    with pytest.raises(UserError, match=r"has \d+ images of the chosen classes; set num_clips to"):
        reader(path, num_clips=61)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_open_the_file_for_themselves(tmp_path: Path) -> None:
    images = write_shapes3d(tmp_path / "3dshapes.h5", shapes3d_labels()[:12])
    dataset = reader(tmp_path / "3dshapes.h5")
    assert np.array_equal(dataset.clips(torch.arange(12)).frames[:, 0], images)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.clips(torch.arange(12)).frames[:, 0], torch.from_numpy(images))
    child = os.fork()  # as a worker of a DataLoader, after the parent has read
    if child == 0:
        same = np.array_equal(dataset.clips(torch.tensor([7])).frames[0, 0], images[7])
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "3dshapes.h5"
    with pytest.raises(UserError, match=r"no file .*3dshapes\.h5; .*https://storage\.googleapis"):
        reader(path)
    labels = some_labels(12)
    write_shapes3d(path, labels)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"3dshapes\.h5: it is cut off or not HDF5 .*download"):
        reader(path)
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 64, 64, 3), np.uint8)
    with pytest.raises(UserError, match=r"has no 'labels', it holds images; expected"):
        reader(path)
    with h5py.File(path, "a") as file:
        file["labels"] = np.zeros((4, 6))
    with pytest.raises(UserError, match=r"3 images, but labels of shape \(4, 6\)"):
        reader(path)
    write_shapes3d(path, labels[:, ::-1])
    with pytest.raises(UserError, match=r"a floor_hue is -?\d.*, legal: 0, 0\.1, 0\.2"):
        reader(path)


def test_a_damaged_chunk_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "3dshapes.h5"
    write_shapes3d(path, some_labels(150), chunks=(75, 16, 16, 3))
    with h5py.File(path, "r") as file:
        chunk = file["images"].id.get_chunk_info(5)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 20 : chunk.byte_offset + 60] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"3dshapes\.h5: .*download it from"):
        reader(path).clips(torch.tensor([0]))
    assert [p.name for p in tmp_path.iterdir()] == ["3dshapes.h5"]


def test_unknown_names_are_named() -> None:
    for factors, message in (
        ({"hue": ["red"]}, "no factor 'hue'; legal: floor_hue, object_hue"),
        ({"shape": ["ball"]}, "no class 'ball'; .*capsule, cube, cylinder, sphere"),
    ):
        with pytest.raises(ValueError, match=message):
            DATASETS.config({"name": "shapes3d", "path": "x.h5", "factors": factors})


def test_without_h5py_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shapes3d(tmp_path / "3dshapes.h5", some_labels(12))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install vidcomp\[hdf5\]"):
        reader(tmp_path / "3dshapes.h5")


def test_hues_and_scales_have_one_name_each() -> None:
    assert len(set(HUES)) == 10 and len(set(SCALES)) == 8
    assert SCALES == ("0.75", "0.82", "0.89", "0.96", "1.04", "1.11", "1.18", "1.25")
