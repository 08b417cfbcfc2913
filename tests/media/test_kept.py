"""What can be made again is kept, also of folders on a read-only disk."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidcomp.config import UserError
from vidcomp.media import MediaError, write_bytes
from vidcomp.media.hdf5 import Hdf5
from vidcomp.media.kept import keep, places
from vidcomp.media.notes import remembered

FILES = [f"{k}.json" for k in range(4)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for k, name in enumerate(FILES):
        (tmp_path / "data" / name).write_text(json.dumps({"a": k}))
    return tmp_path / "data"


def read_only(*folders: Path, patch: pytest.MonkeyPatch) -> None:
    """What `open` says of a file in these folders, as on a disk that is mounted so."""
    real = Path.open

    def refuse(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wxa") and set(self.parents) & set(folders):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return real(self, mode, *args, **options)

    patch.setattr(Path, "open", refuse)


def notes_of(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What is remembered, and which files were read for it."""
    read: list[str] = []

    def reading(path: Path) -> Any:
        read.append(path.name)
        return json.loads(path.read_text())

    return remembered(folder, "test-1", FILES, reading, expected="JSON"), read


def test_notes_of_the_files_after_a_bad_one_are_kept(folder: Path) -> None:
    assert notes_of(folder)[1] == FILES
    (folder / "0.json").write_text('{"a": 100}')
    (folder / "1.json").write_text("broken!!")
    with pytest.raises(MediaError, match=r"1\.json cannot be read"):
        notes_of(folder)
    (folder / "1.json").write_text('{"a": 11}')
    notes, read = notes_of(folder)
    assert read == ["1.json"]
    assert [note["a"] for note in notes.values()] == [100, 11, 2, 3]


def test_notes_of_a_read_only_disk_are_in_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only(folder, patch=monkeypatch)
    assert notes_of(folder)[1] == FILES
    assert notes_of(folder) == ({name: {"a": k} for k, name in enumerate(FILES)}, [])
    assert {path.name for path in folder.iterdir()} == set(FILES)


def test_rows_of_a_read_only_disk_are_unpacked_into_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    images = np.arange(800).reshape(200, 4).astype(np.int64)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(100, 4))
    file, rows = Hdf5(folder / "a.h5", expected="images", source="nowhere"), np.array([3, 150])
    with monkeypatch.context() as patch:
        read_only(folder, folder.parent / "cache", patch=patch)
        with pytest.raises(UserError, match=r"neither .* can be written.*set XDG_CACHE_HOME"):
            file.unpacked("images", rows)
    read_only(folder, patch=monkeypatch)
    path = file.unpacked("images", rows)
    assert folder.parent / "cache" in path.parents
    assert np.array_equal(np.load(path), images[rows])
    assert file.unpacked("images", rows) == path


def test_folders_of_one_name_do_not_share_a_place(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "data"
    other.mkdir(parents=True)
    assert len({*places(folder, "a"), *places(other, "a")}) == 4
    assert keep(other, "a", lambda place: write_bytes(place, b"a")) == other / "a"
