"""Video files: exact through both decoders, whole or absent. Bad ones: tests/media."""

import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from vidcomp.config import UserError
from vidcomp.media import (
    Cell,
    MediaError,
    grid,
    has_decord,
    read_video,
    verify,
    write_bytes,
    write_gif,
    write_video,
)

DECODERS = [
    "pyav",
    pytest.param("decord", marks=pytest.mark.skipif(not has_decord(), reason="no wheel of decord")),
]


def noise(t: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(t * h * w)
    return torch.randint(0, 256, (t, h, w, 3), generator=generator).to(torch.uint8)


def moving_disc(t: int, h: int = 64, w: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    clip = (noise(1, h, w) // 4).repeat(t, 1, 1, 1)
    for k in range(t):
        clip[k][(y - h / 2) ** 2 + (x - 8 - k % (w - 16)) ** 2 < 64] = 255
    return clip


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(1, 32, 32), (2, 16, 40), (5, 31, 33), (9, 32, 32), (17, 9, 9)])
def test_lossless_is_lossless(tmp_path: Path, size: tuple[int, int, int], decoder: str) -> None:
    clip = noise(*size)
    write_video(tmp_path / "a.mp4", clip, fps=8.0)
    assert torch.equal(read_video(tmp_path / "a.mp4", decoder=decoder), clip)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_window_of_a_file_or_of_its_bytes(tmp_path: Path, decoder: str) -> None:
    clip = noise(9, 17, 17)
    write_video(tmp_path / "a.mp4", clip, fps=8.0)
    path = tmp_path / "a.mp4"
    for frames in (range(4), range(3, 8), range(1, 9, 3), range(8, 9)):
        wanted = clip[list(frames)]
        assert torch.equal(read_video(path, decoder=decoder, frames=frames), wanted)
        assert torch.equal(read_video(path.read_bytes(), decoder=decoder, frames=frames), wanted)
    with pytest.raises(MediaError, match=r"a\.mp4: 10 frames were asked for, 9 are there"):
        read_video(path, decoder=decoder, frames=range(10))
    with pytest.raises(MediaError, match="clip 3: 2 frames were asked for, 1 are there"):
        read_video(path.read_bytes(), decoder=decoder, frames=range(8, 10), name="clip 3")


@pytest.mark.parametrize("fps", [8.0, 12.5, 24000 / 1001, 30.0])
def test_verify_counts_and_measures(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", noise(5, 24, 40), fps=fps)
    info = verify(tmp_path / "a.mp4")
    assert (info.num_frames, info.height, info.width) == (5, 24, 40)
    assert info.fps == pytest.approx(fps, rel=1e-4)
    assert info.decord_is_exact == has_decord()


@pytest.mark.parametrize("codec, suffix", [("h264", "mp4"), ("vp9", "webm")])
def test_clips_for_people_look_the_same(tmp_path: Path, codec: str, suffix: str) -> None:
    clip = moving_disc(9).float()
    clip = torch.nn.functional.interpolate(clip.permute(0, 3, 1, 2), scale_factor=4.0)
    clip = clip.permute(0, 2, 3, 1).to(torch.uint8)
    path = tmp_path / f"a.{suffix}"
    write_video(path, clip, fps=8.0, codec=codec)
    back = read_video(path)
    assert back.shape == clip.shape
    grey_error = (back.float().mean(-1) - clip.float().mean(-1)).square().mean()
    assert 10 * torch.log10(255**2 / grey_error) > 30
    with pytest.raises(UserError, match="even height and width"):
        write_video(path, noise(1, 31, 32), fps=8.0, codec=codec)


def test_only_uint8_clips_are_written(tmp_path: Path) -> None:
    for bad in (torch.zeros(2, 8, 8, 3), torch.zeros(3, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(Exception, match="uint8"):
            write_video(tmp_path / "a.mp4", bad, fps=8.0)
    with pytest.raises(UserError, match="uint8"):
        write_video(tmp_path / "a.mp4", torch.zeros(0, 8, 8, 3, dtype=torch.uint8), fps=8.0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, noise(2, 8, 8), fps=8.0)
    before = path.read_bytes()

    def full(self: Path, mode: str) -> FullDisk:
        return FullDisk(self, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError) as error:
            write_video(path, noise(3, 8, 8), fps=8.0)
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class FullDisk(io.FileIO):
    """A file of which half is written."""

    def write(self, content: Any) -> int:
        super().write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_two_writers_of_one_file_leave_one_of_both(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    contents = [bytes([65 + k]) * 200_000 for k in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write_bytes, path, contents[k % 2]) for k in range(200)]:
            done.result()
    assert path.read_bytes() in contents and list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"a")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("size", [8, 16, 24])
def test_sizes_that_decord_cannot_read_are_left_to_pyav(tmp_path: Path, size: int) -> None:
    clip = noise(3, size, size)
    write_video(tmp_path / "a.mp4", clip, fps=8.0)
    assert not verify(tmp_path / "a.mp4").decord_is_exact
    assert torch.equal(read_video(tmp_path / "a.mp4"), clip)


# Images are clips of one frame.


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_png_is_a_clip_of_one_frame(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(noise(1, 20, 30)[0].numpy()).convert(mode)
    image.save(tmp_path / "a.png")
    clip = read_video(tmp_path / "a.png")
    assert torch.equal(clip[0], torch.from_numpy(np.array(image.convert("RGB"))))
    info = verify(tmp_path / "a.png")
    assert (info.num_frames, info.height, info.width) == (1, 20, 30)


def test_a_jpeg_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    flat = torch.full((1, 24, 32, 3), 90, dtype=torch.uint8)
    flat[..., 0] = 200
    Image.fromarray(flat[0].numpy()).save(tmp_path / "a.jpg", quality=95)
    clip = read_video(tmp_path / "a.jpg")
    assert clip.shape == (1, 24, 32, 3)
    assert (clip.float() - flat.float()).abs().amax() <= 3


# Grids.


def test_a_grid_shows_its_clips_pixel_for_pixel() -> None:
    clips = [noise(t, 6, 10) for t in (3, 1, 2)]
    cells = [Cell(clip) for clip in clips]
    labels = ["circle red", "triangle blue that is long"]
    video = grid([[cells[0], cells[1]], [None, cells[2]]], column_labels=labels)
    assert len(video) == 3
    assert video.shape[1] % 2 == 0 and video.shape[2] % 2 == 0
    for clip in clips:
        for k in range(3):
            large = clip[min(k, len(clip) - 1)].repeat_interleave(3, 0).repeat_interleave(3, 1)
            windows = video[k].unfold(0, 18, 1).unfold(1, 30, 1)  # y x 3 18 30
            same = (windows == large.permute(2, 0, 1)).all(-1).all(-1).all(-1)
            assert same.sum() == 1
    assert (video[0, :10] < 100).any(), "labels stand on top"


def test_a_grid_needs_clips_of_one_size() -> None:
    with pytest.raises(UserError, match="one size"):
        grid([[Cell(noise(1, 8, 8)), Cell(noise(1, 8, 9))]])
    with pytest.raises(UserError, match="got none"):
        grid([[None]])


def test_a_gif_holds_every_frame_and_loops(tmp_path: Path) -> None:
    clip = torch.zeros(5, 16, 24, 3, dtype=torch.uint8)
    for k in range(5):
        clip[k, :, 4 * k : 4 * k + 4] = 255
    write_gif(tmp_path / "clip.gif", clip, fps=8.0)
    with Image.open(tmp_path / "clip.gif") as picture:
        assert picture.info["loop"] == 0
        assert picture.info["duration"] == pytest.approx(125, abs=5)  # in hundredths of a second
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    assert np.array_equal(np.stack(frames), clip.numpy())
