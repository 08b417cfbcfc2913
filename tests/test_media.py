"""Video files: exact through both decoders, whole or absent, and every bad file named."""

import errno
import io
from pathlib import Path

import av
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
    index_files,
    read_video,
    verify,
    write_gif,
    write_video,
)

DECODERS = [
    "pyav",
    pytest.param("decord", marks=pytest.mark.skipif(not has_decord(), reason="no wheel of decord")),
]
decord_only = pytest.mark.skipif(not has_decord(), reason="no wheel of decord here")


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
def test_the_first_frames_and_no_more(tmp_path: Path, decoder: str) -> None:
    clip = noise(9, 17, 17)
    write_video(tmp_path / "a.mp4", clip, fps=8.0)
    assert torch.equal(read_video(tmp_path / "a.mp4", decoder=decoder, num_frames=4), clip[:4])
    with pytest.raises(MediaError, match=r"a\.mp4: asked for 10 frames, but it has 9"):
        read_video(tmp_path / "a.mp4", decoder=decoder, num_frames=10)


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

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as error:
        write_video(path, noise(3, 8, 8), fps=8.0)
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# Bad files.


def encode(clip: torch.Tensor, path: Path, *, faststart: bool = False, **options: str) -> bytes:
    """As yuv420p H.264 with settings that are not ours; also returns the file's bytes."""
    mux = {"movflags": "faststart"} if faststart else {}
    settings = {k.replace("_", "-"): v for k, v in options.items()}
    with av.open(str(path), "w", format="mp4", options=mux) as out:
        stream = out.add_stream("libx264", rate=8, options=settings)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        for image in clip.numpy():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return path.read_bytes()


def audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def broken_file(kind: str, path: Path) -> None:
    match kind:
        case "missing":
            pass
        case "directory":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("this is not a video\n" * 50)
        case "random":
            path.write_bytes(bytes(noise(1, 40, 40).flatten().tolist()))
        case "cut, index at the end":
            whole = encode(moving_disc(24), path)
            path.write_bytes(whole[: len(whole) // 2])
        case "cut, index at the start":
            whole = encode(moving_disc(24), path, faststart=True)
            path.write_bytes(whole[: len(whole) // 2])
        case "audio":
            path.write_bytes(audio_only())
        case _:
            raise AssertionError(kind)


BROKEN = [
    "missing",
    "directory",
    "empty",
    "text",
    "random",
    "cut, index at the end",
    "cut, index at the start",
    "audio",
]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, kind: str, decoder: str) -> None:
    path = tmp_path / "clip.mp4"
    broken_file(kind, path)
    with pytest.raises(MediaError, match=r"clip\.mp4") as error:
        read_video(path, decoder=decoder)
    assert "\n" not in str(error.value)
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        verify(path)


def test_a_cut_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Between two packets FFmpeg sees nothing wrong: then the header's number of frames tells."""
    path = tmp_path / "clip.mp4"
    whole = encode(moving_disc(24), path, faststart=True)
    for size in range(whole.find(b"mdat"), len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            read_video(path)


def test_flipped_bits_are_found_when_a_file_is_checked(tmp_path: Path) -> None:
    """decord conceals them in silence, which is why PyAV sees every frame once."""
    path = tmp_path / "clip.mp4"
    whole = bytearray(encode(moving_disc(24), path))
    start = whole.find(b"mdat") + 200
    for k in range(start, whole.find(b"moov") - 8, 97):
        whole[k] ^= 0x5A
    path.write_bytes(bytes(whole))
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        verify(path)


@pytest.mark.parametrize("size", [8, 16, 24])
def test_sizes_that_decord_cannot_read_are_left_to_pyav(tmp_path: Path, size: int) -> None:
    clip = noise(3, size, size)
    write_video(tmp_path / "a.mp4", clip, fps=8.0)
    assert not verify(tmp_path / "a.mp4").decord_is_exact
    assert torch.equal(read_video(tmp_path / "a.mp4"), clip)


@decord_only
def test_open_gop_is_read_through_pyav(tmp_path: Path) -> None:
    """decord is wrong there. If this fails because it is right, that is news: look again."""
    path = tmp_path / "open.mp4"
    params = "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"
    encode(moving_disc(60), path, x264_params=params)
    info = verify(path)
    assert info.num_frames == 60
    assert not info.decord_is_exact


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


def test_a_cut_png_is_named(tmp_path: Path) -> None:
    Image.fromarray(noise(1, 64, 64)[0].numpy()).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"a\.png"):
        verify(tmp_path / "a.png")


# The index.


def test_the_index_checks_a_file_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def counted(path: Path):
        checked.append(path.name)
        return verify(path)

    monkeypatch.setattr("vidcomp.media.index.verify", counted)
    paths = ["a.mp4", "b.mp4"]
    for k, name in enumerate(paths):
        write_video(tmp_path / name, noise(2 + k, 8, 8), fps=8.0)
    first = index_files(tmp_path, paths)
    assert sorted(checked) == paths
    assert index_files(tmp_path, paths) == first and len(checked) == 2
    write_video(tmp_path / "b.mp4", noise(5, 8, 8), fps=8.0)
    assert index_files(tmp_path, paths)["b.mp4"].info.num_frames == 5
    assert checked[2:] == ["b.mp4"]
    (tmp_path / ".index.json").write_text("[1, 2")
    assert index_files(tmp_path, paths[:1])["a.mp4"] == first["a.mp4"]


def test_what_was_checked_before_a_broken_file_is_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(2, 8, 8), fps=8.0)
    broken_file("text", tmp_path / "b.mp4")
    with pytest.raises(MediaError, match=r"b\.mp4"):
        index_files(tmp_path, ["a.mp4", "b.mp4"])
    assert "a.mp4" in (tmp_path / ".index.json").read_text()


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
