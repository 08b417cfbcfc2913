"""Clips of files: the windows, sizes and crops that were asked for, each by itself."""

from pathlib import Path

import pytest
import torch
from strange import CLOSED_GOPS, OPEN_GOPS, Encoding, broken_file, encode, numbered

from vidcomp.config import UserError
from vidcomp.media import MediaError, has_decord, write_video
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.resize import cover, covering_size
from vidcomp.seeding import Rng


def noise(t: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (t, h, w, 3), generator=generator).to(torch.uint8)


def stored(folder: Path, sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[torch.Tensor]]:
    """Lossless files of noise, and what they show."""
    clips = [noise(*size, seed=k) for k, size in enumerate(sizes)]
    names = [f"{k}.mp4" for k in range(len(sizes))]
    for name, clip in zip(names, clips, strict=True):
        write_video(folder / name, clip, fps=8.0)
    return names, clips


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [1, 3, 4])
def test_windows_are_slices_of_the_file(tmp_path: Path, num_frames: int, stride: int) -> None:
    names, clips = stored(tmp_path, [(12, 20, 28), (17, 20, 28), (10, 20, 28)])
    step = num_frames * stride
    expected: list[torch.Tensor] = []
    files: list[int] = []
    for k, clip in enumerate(clips):
        for start in range(0, len(clip), step):
            window = clip[start : start + step : stride]
            if len(window) == num_frames:
                expected.append(window)
                files.append(k)
    how = {"num_frames": num_frames, "temporal_stride": stride}
    every = ClipFiles(tmp_path, names, Reading(windows="all", **how))
    assert every.file_of.tolist() == files
    assert every.fps == pytest.approx(8 / stride)
    assert torch.equal(every.frames(torch.arange(len(every))), torch.stack(expected))
    first = ClipFiles(tmp_path, names, Reading(windows="first", **how))
    assert len(first) == 3 and first.starts.tolist() == [0, 0, 0]
    wanted = torch.stack([clip[:step:stride] for clip in clips])
    assert torch.equal(first.frames(torch.arange(3)), wanted)


def test_a_stride_without_a_length_takes_the_whole_file(tmp_path: Path) -> None:
    names, clips = stored(tmp_path, [(12, 20, 28), (11, 20, 28)])
    files = ClipFiles(tmp_path, names, Reading(temporal_stride=2))
    assert torch.equal(files.frames(torch.arange(2)), torch.stack([clip[::2] for clip in clips]))


def test_a_clip_depends_on_nothing_but_its_index_and_stream(tmp_path: Path) -> None:
    names, clips = stored(tmp_path, [(2, 30, 60), (2, 60, 30), (2, 30, 40)])
    files = ClipFiles(tmp_path, names, Reading(height=20, width=20, crop="random", cache_gb=0))
    cached = ClipFiles(tmp_path, names, Reading(height=20, width=20, crop="random"))
    items = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    rng = Rng.make(0, "train", torch.arange(7))
    batch = files.frames(items, rng)
    for _ in range(2):
        assert torch.equal(cached.frames(items, rng), batch)
    for k in range(7):
        rows = torch.tensor([k])
        assert torch.equal(files.frames(items[rows], rng[rows])[0], batch[k])
    assert not torch.equal(batch[0], batch[3])  # the same clip, drawn twice
    centre = files.frames(torch.arange(3))
    for k, clip in enumerate(clips):
        assert torch.equal(centre[k], cover(clip, height=20, width=20))


def test_random_crops_are_windows_of_the_resized_clip_and_reach_its_edges(tmp_path: Path) -> None:
    column = torch.arange(40, dtype=torch.uint8)[None, None, :, None] * 5
    write_video(tmp_path / "a.mp4", column.expand(1, 20, 40, 3).contiguous(), fps=8.0)
    files = ClipFiles(tmp_path, ["a.mp4"], Reading(height=20, width=37, crop="random"))
    crops = files.frames(torch.zeros(60).long(), Rng.make(0, "crop", torch.arange(60)))
    lefts = {int(crop[0, 0, 0, 0]) // 5 for crop in crops}
    assert lefts == {0, 1, 2, 3}
    for crop in crops:
        assert (crop[0, :, :, 0].long().diff(dim=1) == 5).all()


def test_points_follow_the_pixels(tmp_path: Path) -> None:
    """A bright disc is found where its centre is said to be."""
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(100.0), indexing="ij")
    points = torch.tensor([[[40.0, 22.0]], [[57.0, 36.0]]])  # t n 2
    clip = torch.stack([((x - p[0, 0]) ** 2 + (y - p[0, 1]) ** 2 < 50) * 255 for p in points])
    video = clip[..., None].expand(-1, -1, -1, 3).to(torch.uint8).contiguous()
    write_video(tmp_path / "a.mp4", video, fps=8.0)
    for height, width in ((30, 50), (24, 24), (90, 100), (60, 100)):
        files = ClipFiles(tmp_path, ["a.mp4"], Reading(height=height, width=width))
        frames = files.frames(torch.tensor([0]))[0, ..., 0].float()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        total = frames.sum((1, 2))
        seen = torch.stack([(frames * g).sum((1, 2)) / total for g in (columns, rows)], -1)
        told = files.points_to_clip(points[None], torch.tensor([0]))[0, :, 0]
        assert (seen - told).abs().amax() < 0.06


@pytest.mark.skipif(not has_decord(), reason="no wheel of decord here")
def test_decord_is_chosen_where_it_is_right_and_can_seek(tmp_path: Path) -> None:
    encode(tmp_path / "closed.mp4", numbered(32), Encoding(options=CLOSED_GOPS))
    encode(tmp_path / "open.mp4", numbered(32), Encoding(options=OPEN_GOPS))
    encode(tmp_path / "one key frame.mp4", numbered(32))
    names = ["closed.mp4", "open.mp4", "one key frame.mp4"]
    how = {"num_frames": 4, "windows": "all"}
    chosen = {
        decoder: ClipFiles(tmp_path, names, Reading(decoder=decoder, **how))
        for decoder in ("auto", "decord", "pyav")
    }
    assert chosen["auto"].decoders == {"pyav": 18, "decord": 6}
    assert chosen["decord"].decoders == {"pyav": 8, "decord": 16}
    assert chosen["pyav"].decoders == {"pyav": 24}
    frames = [files.frames(torch.arange(24)) for files in chosen.values()]
    assert torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])
    assert len({files.fingerprint_parts for files in chosen.values()}) == 1


def test_without_decord_all_is_read_by_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    encode(tmp_path / "a.mp4", numbered(32), Encoding(options=CLOSED_GOPS))
    files = ClipFiles(tmp_path, ["a.mp4"], Reading(num_frames=4, windows="all"))
    assert files.decoders == {"pyav": 8}
    assert files.frames(torch.tensor([7])).shape == (1, 4, 64, 96, 3)
    with pytest.raises(UserError, match="decord is not installed here; set decoder=auto"):
        ClipFiles(tmp_path, ["a.mp4"], Reading(decoder="decord"))


def test_broken_and_short_files_are_left_out_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, clips = stored(tmp_path, [(5, 20, 28)] * 30)
    for name in names[2:25]:
        broken_file("text", tmp_path / name)
    (tmp_path / names[25]).unlink()
    write_video(tmp_path / names[26], clips[26][:2], fps=8.0)
    with pytest.raises(MediaError, match=r"2\.mp4: .*; on_error=skip goes on without"):
        ClipFiles(tmp_path, names, Reading(num_frames=3))
    for _ in range(2):
        files = ClipFiles(tmp_path, names, Reading(num_frames=3, on_error="skip"))
        assert files.file_of.tolist() == [0, 1, 27, 28, 29]
        assert len(files.skipped) == 25
        told = capsys.readouterr().err.splitlines()
        assert told[0].endswith("25 of 30 files are left out:")
        assert told[1].startswith("  2.mp4: ") and told[-1] == "  and 5 more"
    assert "25.mp4: there is no such file" in files.skipped
    assert "26.mp4: 2 frames are too few for a clip" in files.skipped
    wanted = torch.stack([clips[k][:3] for k in (0, 1, 27, 28, 29)])
    assert torch.equal(files.frames(torch.arange(5)), wanted)
    with pytest.raises(UserError, match="none of the 23 files can be read"):
        ClipFiles(tmp_path, names[2:25], Reading(on_error="skip"))


def test_the_fingerprint_is_of_the_content_and_of_how_it_is_read(tmp_path: Path) -> None:
    names, clips = stored(tmp_path, [(5, 20, 28)] * 2)

    def fingerprint(**how: object) -> str:
        return ClipFiles(tmp_path, names, Reading.model_validate(how)).fingerprint_parts

    plain = fingerprint()
    assert fingerprint(cache_gb=0) == fingerprint(decoder="pyav") == plain
    ways = [
        {"num_frames": 2},
        {"num_frames": 2, "windows": "all"},
        {"num_frames": 2, "temporal_stride": 2},
        {"height": 10, "width": 10},
        {"height": 10, "width": 10, "crop": "random"},
    ]
    assert len({plain, *(fingerprint(**how) for how in ways)}) == 6
    write_video(tmp_path / names[1], clips[0], fps=8.0)
    assert fingerprint() != plain


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"height": 16}, "both height and width, or neither"),
        ({"crop": "random"}, "crop=random needs height and width"),
        ({"windows": "all"}, "windows=all needs num_frames"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Reading.model_validate(settings)


def test_a_clip_is_covered_with_its_shape_kept() -> None:
    for h, w, height, width in ((48, 64, 24, 24), (7, 9, 64, 64), (100, 50, 30, 60), (5, 5, 5, 5)):
        tall, wide = covering_size(h, w, height, width)
        assert tall >= height and wide >= width and (tall == height or wide == width)
        assert abs(tall / h - wide / w) <= 1 / min(h, w)
