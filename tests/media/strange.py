"""Video files as cameras, sites and accidents make them, for the tests of what reads them.

Frames are pictures of their own number, so that a lossy file still tells which frame is which.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.codec import Codec
from av.video.stream import VideoStream
from torch import Tensor


def numbered(t: int, h: int = 64, w: int = 96) -> Tensor:
    """Clips whose frame k shows the bits of k as large squares on a coloured slope."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    slope = torch.stack([x * 80 // w + 40, y * 80 // h + 40, torch.full_like(x, 70)], -1)
    clip = slope.to(torch.uint8).repeat(t, 1, 1, 1)
    for k in range(t):
        for bit in range(6):
            if k >> bit & 1:
                top, left = h // 2 * (bit // 3), w // 3 * (bit % 3)
                clip[k, top : top + h // 2, left : left + w // 3] += 90
    return clip


def numbers_shown(clip: Tensor, source: Tensor) -> list[int]:
    """Which frame of `source` each frame of `clip` is nearest to."""
    small = [x[:, ::4, ::4].float().flatten(1) for x in (clip, source)]
    return torch.cdist(*small).argmin(1).tolist()


@dataclass(frozen=True)
class Encoding:
    """How a file is written. `times`: when each frame is shown, in frames."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    mux: dict[str, str] = field(default_factory=dict)
    times: Sequence[int] | None = None
    shift: int = 0
    rotation: int = 0


def encode(path: Path, clip: Tensor, how: Encoding | None = None, *, rate: int = 25) -> bytes:
    """Write `clip`; returns the file's bytes. Skips the test if this build lacks the encoder."""
    how = how or Encoding()
    try:
        Codec(how.codec, "w")
    except av.error.FFmpegError:  # as it is called for an unknown codec
        pytest.skip(f"no encoder {how.codec} in this build")
    with av.open(str(path), "w", options=how.mux) as out:
        stream = out.add_stream(how.codec, rate=rate, options=how.options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], how.pixels
        stream.codec_context.thread_count = 1
        if how.rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(how.rotation)
        frames = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in clip.numpy()]
        for k, frame in enumerate(frames):
            frame.pts = how.times[k] if how.times else k
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                assert packet.pts is not None and packet.dts is not None
                packet.pts += how.shift
                packet.dts += how.shift
                out.mux(packet)
    return path.read_bytes()


CLOSED_GOPS = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2:b-adapt=0:open-gop=0"}
OPEN_GOPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}
_QUIET = {"x265-params": "log-level=none"}
_FAST_VP9 = {"cpu-used": "8", "deadline": "realtime"}

STRANGE = {
    "h264.mp4": Encoding(),
    "h264.mkv": Encoding(),
    "several key frames.mp4": Encoding(options=CLOSED_GOPS),
    "open gop.mp4": Encoding(options=OPEN_GOPS),
    "fragmented.mp4": Encoding(mux={"movflags": "frag_keyframe+empty_moov"}, options={"g": "6"}),
    "variable rate.mp4": Encoding(times=[k * k // 3 + k for k in range(40)]),
    "starts late.mp4": Encoding(shift=5000),
    "starts late.mkv": Encoding(shift=70),
    "ten bits.mp4": Encoding("libx265", "yuv420p10le", _QUIET),
    "hevc.mp4": Encoding("libx265", "yuv420p", _QUIET),
    "vp9.webm": Encoding("libvpx-vp9", "yuv420p", _FAST_VP9),
    "av1.mp4": Encoding("libsvtav1", "yuv420p", {"preset": "12"}),
    "av1.webm": Encoding("libsvtav1", "yuv420p", {"preset": "12"}),
    "mpeg4.avi": Encoding("mpeg4", options={"bf": "2", "q": "2"}),
    "prores.mov": Encoding("prores_ks", "yuv422p10le"),
    "mjpeg.avi": Encoding("mjpeg", "yuvj420p"),
    "ffv1.mkv": Encoding("ffv1", "bgr0"),
    "palette.gif": Encoding("gif", "rgb8"),
}


def broken_file(kind: str, path: Path) -> None:
    """Anything but a video at `path`."""
    clip = numbered(24)
    match kind:
        case "missing":
            pass
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("this is not a video\n" * 50)
        case "random":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "cut, index at the end":
            whole = encode(path, clip)
            path.write_bytes(whole[: len(whole) // 2])
        case "cut, index at the start":
            whole = encode(path, clip, Encoding(mux={"movflags": "faststart"}))
            path.write_bytes(whole[: len(whole) // 2])
        case "audio":
            path.write_bytes(_audio_only())
        case "no frames":
            path.write_bytes(_no_frames())
        case "flipped bits":
            whole = bytearray(encode(path, clip))
            for k in range(whole.find(b"mdat") + 200, whole.find(b"moov") - 8, 97):
                whole[k] ^= 0x5A
            path.write_bytes(whole)
        case _:
            raise AssertionError(kind)


BROKEN = (
    "missing",
    "directory",
    "pipe",
    "empty",
    "text",
    "random",
    "cut, index at the end",
    "cut, index at the start",
    "audio",
    "no frames",
    "flipped bits",
)


def _audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def _no_frames() -> bytes:
    """A video stream that was opened and closed, beside sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        sound = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return buffer.getvalue()
