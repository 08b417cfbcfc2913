"""The index: a file is checked once until it changes, and nothing that was checked is lost."""

import shutil
from pathlib import Path

import pytest
import torch
from strange import numbered

from vidcomp.media import MediaError, Source, VideoInfo, index_files, verify, write_video
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.index import INDEX


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The files that are decoded to be checked."""
    names: list[str] = []

    def counted(source: Source, *, name: str | None = None) -> VideoInfo:
        names.append(str(name))
        return verify(source, name=name)

    monkeypatch.setattr("vidcomp.media.index.verify", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    root.mkdir()
    for k in range(3):
        write_video(root / f"{k}.mp4", numbered(2 + k, 32, 48), fps=8.0)
    return root


PATHS = ["0.mp4", "1.mp4", "2.mp4"]


def test_a_file_is_checked_once_until_it_changes(folder: Path, checked: list[str]) -> None:
    first = index_files(folder, PATHS)
    assert sorted(checked) == PATHS
    assert first.records["num_frames"].tolist() == [2, 3, 4]
    second = index_files(folder, PATHS[::-1])
    assert second.records.tolist() == first.records.tolist()[::-1] and len(checked) == 3
    write_video(folder / "1.mp4", numbered(7, 32, 48), fps=8.0)
    assert index_files(folder, PATHS).records["num_frames"].tolist() == [2, 7, 4]
    assert checked[3:] == ["1.mp4"]


def test_a_copy_is_known_by_its_content(folder: Path, tmp_path: Path, checked: list[str]) -> None:
    first = index_files(folder, PATHS)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = index_files(tmp_path / "copy", PATHS)
    assert len(checked) == 3
    fields = [name for name in first.records.dtype.names or () if name != "mtime_ns"]
    assert copy.records[fields].tolist() == first.records[fields].tolist()


def test_a_change_of_content_alone_is_seen_in_the_hash(folder: Path, checked: list[str]) -> None:
    """As long as before: only its date and hash tell."""
    before = index_files(folder, PATHS).records["digest"].tolist()
    content = bytearray((folder / "1.mp4").read_bytes())
    at = content.find(b"x264 - core")  # the encoder's own note, which changes no pixel
    content[at] ^= 1
    (folder / "1.mp4").write_bytes(content)
    after = index_files(folder, PATHS).records["digest"].tolist()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_other_files_stay_known(folder: Path, checked: list[str]) -> None:
    for paths in (PATHS, PATHS[:1], PATHS[1:], PATHS):
        assert index_files(folder, paths).paths == tuple(paths)
    assert len(checked) == 3


def test_a_broken_file_stays_known_until_it_changes(folder: Path, checked: list[str]) -> None:
    (folder / "1.mp4").write_text("not a video")
    index = index_files(folder, PATHS, raise_problems=False)
    assert [bool(problem) for problem in index.problems] == [False, True, False]
    assert index.problems[1].startswith("1.mp4: ")
    for _ in range(2):
        assert index_files(folder, PATHS, raise_problems=False).problems == index.problems
        with pytest.raises(MediaError, match=r"clips/1\.mp4: .*on_error=skip"):
            index_files(folder, PATHS)
    assert len(checked) == 3
    write_video(folder / "1.mp4", numbered(3, 32, 48), fps=8.0)
    assert index_files(folder, PATHS).problems == ["", "", ""]


def test_a_missing_file_is_looked_for_again(folder: Path, checked: list[str]) -> None:
    (folder / "2.mp4").rename(folder / "away.mp4")
    with pytest.raises(MediaError, match=r"2\.mp4: there is no such file"):
        index_files(folder, PATHS)
    (folder / "away.mp4").rename(folder / "2.mp4")
    assert index_files(folder, PATHS).problems == ["", "", ""]


@pytest.mark.parametrize("end", [KeyboardInterrupt, MemoryError])
def test_what_was_checked_before_an_interruption_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str], end: type[BaseException]
) -> None:
    def stopped(source: Source, *, name: str | None = None) -> VideoInfo:
        if name == "2.mp4":
            raise end
        return verify(source, name=name)

    with monkeypatch.context() as patched:
        patched.setattr("vidcomp.media.index.verify", stopped)
        with pytest.raises(end):
            index_files(folder, PATHS)
    index_files(folder, PATHS)
    assert checked == ["2.mp4"]


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"PK\x03\x04 damaged"])
def test_a_damaged_index_is_made_again(folder: Path, checked: list[str], content: bytes) -> None:
    (folder / INDEX).write_bytes(content)
    assert index_files(folder, PATHS).problems == ["", "", ""]
    assert len(checked) == 3


def test_other_decoders_check_again(
    folder: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index_files(folder, PATHS)
    monkeypatch.setattr("vidcomp.media.index.metadata.version", lambda name: "99")
    index_files(folder, PATHS)
    index_files(folder, PATHS)
    assert len(checked) == 6


def test_a_folder_that_cannot_be_written_is_remembered_elsewhere(
    folder: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidcomp.media import write_bytes

    def refuse(path: Path, content: bytes) -> None:
        if path.parent == folder:
            raise PermissionError(path)
        write_bytes(path, content)

    monkeypatch.setattr("vidcomp.media.index.write_bytes", refuse)
    for _ in range(2):
        files = ClipFiles(folder, PATHS, Reading(num_frames=2))
    assert len(checked) == 3 and not (folder / INDEX).exists()
    assert torch.equal(files.frames(torch.tensor([1]))[0], numbered(2, 32, 48))
