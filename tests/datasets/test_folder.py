"""Anybody's own files: videos and images of any size, and every mistake named in one line."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.datasets.folder import cover
from vidcomp.media import MediaError, write_video


def noise(t: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (t, h, w, 3), generator=generator).to(torch.uint8)


def reader(folder: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "folder", "path": folder, **settings}).build()


def own_folder(folder: Path, sizes: list[tuple[int, int, int]]) -> list[torch.Tensor]:
    """Videos in a tree, and a table that lists them in another order than the alphabet's."""
    clips = [noise(*size, seed=k) for k, size in enumerate(sizes)]
    lines = ["path,shape,speed,speed.0"]
    for k, clip in enumerate(clips):
        path = folder / ("red" if k % 2 else "blue") / f"{9 - k}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, clip, fps=8.0)
        lines.append(f"{path.relative_to(folder)},{'ring' if k % 2 else 'star'},fast,{k / 2}")
    (folder / "factors.csv").write_text("\n".join(lines) + "\n")
    return clips


def test_own_videos_with_a_table_are_a_dataset(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(5, 20, 28)] * 4)
    write_video(tmp_path / "not in the table.mp4", noise(2, 8, 8), fps=8.0)
    dataset = reader(tmp_path, temporal=["speed"])
    clips = dataset.clips(torch.arange(4))
    assert torch.equal(clips.frames, torch.stack(own))
    assert dataset.factors.names == ("shape", "speed")
    assert dataset.factors.items[1].temporal and not dataset.factors.items[0].temporal
    assert clips.classes.tolist() == [[1, 0], [0, 0], [1, 0], [0, 0]]
    assert clips.values[:, 1, 0].tolist() == [0, 0.5, 1, 1.5]
    assert dataset.truth(torch.arange(4)) is None


@pytest.mark.parametrize("cache_gb", [0.0, 2 * 5 * 20 * 28 * 3 / 1e9, 1.0])
def test_the_cache_changes_nothing(tmp_path: Path, cache_gb: float) -> None:
    own = torch.stack(own_folder(tmp_path, [(5, 20, 28)] * 4))
    dataset = reader(tmp_path, cache_gb=cache_gb)
    for order in ([3, 0], [0, 1, 2, 3], [2, 2, 0]):
        assert torch.equal(dataset.clips(torch.tensor(order)).frames, own[order])


def test_cached_clips_are_not_read_again(tmp_path: Path) -> None:
    own_folder(tmp_path, [(5, 20, 28)] * 4)
    cached, uncached = reader(tmp_path), reader(tmp_path, cache_gb=0)
    first = cached.clips(torch.arange(4)).frames
    shutil.rmtree(tmp_path / "red")
    assert torch.equal(cached.clips(torch.arange(4)).frames, first)
    with pytest.raises(MediaError, match="red"):
        uncached.clips(torch.arange(4))


def test_files_of_different_length_need_a_length(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(5, 20, 28), (3, 20, 28)])
    with pytest.raises(
        UserError, match=r"8\.mp4 has 3 frames, not 5; set num_frames to 3 or fewer"
    ):
        reader(tmp_path)
    with pytest.raises(UserError, match="has 3 frames, not 4"):
        reader(tmp_path, num_frames=4)
    frames = reader(tmp_path, num_frames=3).clips(torch.arange(2)).frames
    assert torch.equal(frames, torch.stack([clip[:3] for clip in own]))


def test_files_of_different_size_need_a_size(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28), (2, 40, 30)])
    with pytest.raises(UserError, match=r"8\.mp4 is 40x30, not 20x28; set height and width"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="both height and width, or neither"):
        reader(tmp_path, height=16)
    dataset = reader(tmp_path, height=16, width=18)
    assert dataset.clips(torch.arange(2)).frames.shape == (2, 2, 16, 18, 3)


def test_resizing_covers_the_frame_and_keeps_the_centre() -> None:
    stripes = torch.zeros(2, 40, 80, 3, dtype=torch.uint8)
    stripes[:, :, 20:60] = 250  # the middle half
    assert (cover(stripes, height=20, width=20)[:, :, 1:-1] == 250).all()
    wide = cover(stripes, height=20, width=40)[0, 10, :, 0].tolist()
    assert wide[:8] == [0] * 8 and wide[12:28] == [250] * 16 and wide[32:] == [0] * 8
    thin = (torch.arange(64) % 4 == 0) * 200  # one column of four
    lines = thin.to(torch.uint8)[None, None, :, None].expand(1, 64, 64, 3)
    grey = cover(lines, height=16, width=16).float()
    assert (grey - 50).abs().amax() < 15  # their mean: without anti-aliasing all or none are seen
    same = noise(2, 9, 11)
    assert torch.equal(cover(same, height=9, width=11), same)


def test_pictures_are_clips_of_one_frame(tmp_path: Path) -> None:
    """By the same code, whatever the suffix: and a video's first frame can be mixed in."""
    clips = [noise(1, 24, 32, seed=k) for k in range(3)]
    for name, clip in zip(["a.png", "sub dir.png"], clips, strict=False):
        Image.fromarray(clip[0].numpy()).save(tmp_path / name)
    write_video(tmp_path / "c.mp4", clips[2], fps=8.0)
    (tmp_path / "factors.csv").write_text("path,shape\na.png,ring\nsub dir.png,star\nc.mp4,star\n")
    dataset = reader(tmp_path)
    assert (dataset.num_frames, dataset.height, dataset.width) == (1, 24, 32)
    assert torch.equal(dataset.clips(torch.arange(3)).frames, torch.stack(clips))


def test_no_code_asks_whether_it_is_an_image() -> None:
    """The suffixes of pictures stand in one list of all suffixes, and none is looked at alone."""
    package = Path(__file__).parents[2] / "vidcomp"
    sources = {
        p: p.read_text()
        for part in ("media", "datasets", "world")
        for p in (package / part).glob("*.py")
    }
    assert [path.name for path, text in sources.items() if ".png" in text] == ["video.py"]
    assert [path.name for path in package.rglob("*.py") if "is_image" in path.read_text()] == []


def test_the_fingerprint_is_of_content_not_of_place_or_date(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    own_folder(tmp_path / "a", [(2, 20, 28)] * 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy)
    a, b = reader(tmp_path / "a"), reader(tmp_path / "b", cache_gb=0, decoder="pyav")
    assert a.fingerprint == b.fingerprint
    assert reader(tmp_path / "a", num_frames=1).fingerprint != a.fingerprint
    write_video(tmp_path / "b" / "red" / "8.mp4", noise(2, 20, 28, seed=9) // 2, fps=8.0)
    assert reader(tmp_path / "b").fingerprint != a.fingerprint


def test_a_folder_without_a_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*python tools/render.py"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match="has no clips"):
        reader(tmp_path)
    write_video(tmp_path / "a.mp4", noise(1, 8, 8), fps=8.0)
    with pytest.raises(UserError, match=r"1 clips but no factors\.csv; .*'a\.mp4,circle,red'"):
        reader(tmp_path)


def test_bad_files_are_named(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28)] * 2)
    (tmp_path / "red" / "8.mp4").write_text("not a video")
    with pytest.raises(MediaError, match=r"red/8\.mp4"):
        reader(tmp_path)
    (tmp_path / "red" / "8.mp4").unlink()
    with pytest.raises(UserError, match=r"factors\.csv lists 'red/8\.mp4', but there is no such"):
        reader(tmp_path)


def test_a_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = own_folder(tmp_path, [(2, 20, 28)] * 2)

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("vidcomp.media.index.write_bytes", refuse)
    assert torch.equal(reader(tmp_path).clips(torch.arange(2)).frames, torch.stack(own))
