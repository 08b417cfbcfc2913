"""Files as cameras, sites and accidents make them: the right frames, or one error that names it."""

import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from strange import (
    BROKEN,
    OPEN_GOPS,
    STRANGE,
    Encoding,
    broken_file,
    encode,
    numbered,
    numbers_shown,
)

from vidcomp.media import MediaError, has_decord, index_files, read_video, verify
from vidcomp.media.clips import ClipFiles, Reading

decord_only = pytest.mark.skipif(not has_decord(), reason="no wheel of decord here")
MEDIA = Path(__file__).parents[2] / "../shared/media"


def each_by_itself(path: Path) -> torch.Tensor:
    """Frames that share nothing on their way to RGB."""
    with av.open(str(path)) as file:
        images = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("name", STRANGE)
def test_every_frame_is_the_right_one(tmp_path: Path, name: str) -> None:
    """By PyAV, and by whichever decoder is chosen for windows anywhere in the file."""
    source = numbered(40)
    encode(tmp_path / name, source, STRANGE[name])
    whole = read_video(tmp_path / name)
    assert numbers_shown(whole, source) == list(range(40))
    assert torch.equal(whole, each_by_itself(tmp_path / name))
    info = verify(tmp_path / name)
    assert (info.num_frames, info.height, info.width) == (40, 64, 96)
    for decoder in ("auto", "decord") if has_decord() else ("auto",):
        reading = Reading(num_frames=5, windows="all", decoder=decoder)
        files = ClipFiles(tmp_path, [name], reading)
        assert len(files) == 8
        shuffled = torch.tensor([5, 0, 7, 3, 3, 6])
        assert torch.equal(files.frames(shuffled), whole.reshape(8, 5, 64, 96, 3)[shuffled])


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "mpeg4.avi", "palette.gif", "h264.mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".MP4", ".mkv"])
def test_a_file_is_what_it_holds_whatever_its_name(tmp_path: Path, name: str, suffix: str) -> None:
    encode(tmp_path / name, numbered(6), STRANGE[name])
    renamed = (tmp_path / name).rename(tmp_path / f"renamed{suffix}")
    assert torch.equal(read_video(renamed), each_by_itself(renamed))
    assert verify(renamed).num_frames == 6


@pytest.mark.parametrize("size", [(33, 47), (64, 95), (65, 64), (2, 2)])
@pytest.mark.parametrize(
    "how",
    [Encoding("libvpx-vp9"), Encoding("libx264", "yuv444p"), Encoding("libx264rgb", "rgb24")],
    ids=lambda how: how.codec + how.pixels,
)
def test_odd_sizes(tmp_path: Path, size: tuple[int, int], how: Encoding) -> None:
    source = numbered(4, *size)
    encode(tmp_path / "a.mkv", source, how)
    clip = read_video(tmp_path / "a.mkv")
    assert clip.shape == source.shape
    if size != (2, 2):
        assert numbers_shown(clip, source) == [0, 1, 2, 3]
    files = ClipFiles(tmp_path, ["a.mkv"], Reading(num_frames=2, windows="all"))
    assert torch.equal(files.frames(torch.arange(2)).flatten(0, 1), clip)


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=decord_only)])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_upright(tmp_path: Path, rotation: int, decoder: str) -> None:
    """Degrees against the clock, as `numpy.rot90` turns."""
    source = numbered(5, 64, 128)
    encode(tmp_path / "a.mp4", source, Encoding("libx264rgb", "rgb24", {"crf": "0"}))
    encode(
        tmp_path / "b.mp4",
        source,
        Encoding("libx264rgb", "rgb24", {"crf": "0"}, rotation=rotation),
    )
    turned = torch.rot90(source, rotation // 90, dims=(1, 2))
    assert torch.equal(read_video(tmp_path / "b.mp4", decoder=decoder), turned)
    info = verify(tmp_path / "b.mp4")
    assert (info.height, info.width) == tuple(turned.shape[1:3])


def test_a_photo_is_upright(tmp_path: Path) -> None:
    image = Image.fromarray(numbered(2, 64, 96)[1].numpy())
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees with the clock
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    clip = read_video(tmp_path / "a.jpg")
    turned = torch.rot90(numbered(2, 64, 96)[1], -1)
    assert clip.shape == (1, 96, 64, 3)
    assert (clip[0].float() - turned.float()).abs().mean() < 3


def test_a_file_that_is_turned_askew_is_named(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", numbered(2), Encoding(rotation=45))
    with pytest.raises(MediaError, match=r"a\.mp4: it is turned by 45 degrees"):
        read_video(tmp_path / "a.mp4")


def test_what_trimming_leaves_out_is_left_out(tmp_path: Path) -> None:
    """An edit list hides the first frames. decord shows them, so it is not used."""
    source = numbered(24)
    how = Encoding(shift=-5, mux={"use_editlist": "1", "avoid_negative_ts": "disabled"})
    encode(tmp_path / "a.mp4", source, how)
    assert numbers_shown(read_video(tmp_path / "a.mp4"), source) == list(range(5, 24))
    assert not verify(tmp_path / "a.mp4").decord_is_exact


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_in_one_line_and_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    broken_file(kind, path)
    began = time.perf_counter()
    with pytest.raises(MediaError, match=r"clip\.mp4") as error:
        index_files(tmp_path, ["clip.mp4"])
    assert "\n" not in str(error.value)
    if kind != "pipe":  # FFmpeg would wait for somebody to write
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            read_video(path)
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            verify(path)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "name, how",
    [
        ("a.mp4", Encoding()),
        ("a.mp4", Encoding(mux={"movflags": "faststart"})),
        ("a.mkv", Encoding()),
        ("a.webm", STRANGE["vp9.webm"]),
        ("a.webm", STRANGE["av1.webm"]),
        ("a.avi", STRANGE["mpeg4.avi"]),
        ("a.gif", STRANGE["palette.gif"]),
    ],
)
def test_a_cut_is_found_wherever_it_is(tmp_path: Path, name: str, how: Encoding) -> None:
    """Between two packets FFmpeg sees nothing wrong: then what the file says of itself tells."""
    path = tmp_path / name
    whole = encode(path, numbered(24), how)
    frames = read_video(whole)
    for size in range(len(whole) // 60, len(whole) - 1, len(whole) // 60):
        try:
            clip = read_video(whole[:size], name="cut")
        except MediaError as error:
            assert str(error).startswith("cut: ")
        else:
            assert torch.equal(clip, frames)  # only what comes after the frames is gone


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_cut_picture_is_named(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(numbered(8)[7].numpy())
    picture.save(tmp_path / f"a.{suffix}", **({"progressive": True} if suffix == "jpg" else {}))
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    for size in range(20, len(whole) - 12, 41):
        with pytest.raises(MediaError):
            read_video(whole[:size])


@decord_only
def test_open_gops_are_for_pyav(tmp_path: Path) -> None:
    """decord is wrong there. If this fails because it is right, that is news: look again."""
    source = numbered(60)
    encode(tmp_path / "a.mp4", source, Encoding(options=OPEN_GOPS))
    assert not verify(tmp_path / "a.mp4").decord_is_exact
    whole = read_video(tmp_path / "a.mp4")
    singles = [
        read_video(tmp_path / "a.mp4", frames=range(k, k + 1), decoder="decord") for k in range(60)
    ]
    assert not torch.equal(torch.cat(singles), whole)


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared files are not here")
def test_real_files() -> None:
    sizes = {path.name: verify(path) for path in sorted(MEDIA.glob("*.*"))}
    assert {name: (i.num_frames, i.height, i.width) for name, i in sizes.items()} == {
        **{f"clevr_{k}.png": (1, 240, 320) for k in range(1, 5)},
        "hiker_tiny.mp4": (49, 240, 368),
        "nasa_13013.mp4": (390, 270, 480),  # the larger of two streams
        "testsrc_odd_height_vp9.mp4": (25, 241, 320),
    }
