"""Video files: written whole or not at all, read by two decoders, checked before they are believed.

Data is stored as lossless RGB H.264 (``libx264rgb``, crf 0): exact through both decoders, while the
usual yuv420p would cost 30 to 38 dB before any model errs. People get yuv420p H.264, HTML pages VP9
in WebM.

PyAV, read from the first frame to the last, is the reference. decord is used only where its wheel
exists and only on files for which `verify` has seen that its random access is right: on open-GOP
H.264 it gives other frames than asked for, in silence. An image file is, to FFmpeg and so to us, a
video of one frame.
"""

import functools
import importlib.util
import io
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from vidcomp.config import UserError

Clip = UInt8[Tensor, "t h w 3"]
Decoder = Literal["decord", "pyav"]
Codec = Literal["lossless", "h264", "vp9"]

SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".mov",
    ".avi",
    ".m4v",
    ".gif",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
)
"""What `vidcomp.datasets.folder` takes for a clip."""

MAX_PROBES = 64
"""Frames of a file that `verify` asks decord for, in random order."""


class MediaError(UserError):
    """A file that cannot be read as a clip. The message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds. `num_frames` were counted by decoding them, not read from the header."""

    num_frames: int
    height: int
    width: int
    fps: float
    decord_is_exact: bool


@dataclass(frozen=True)
class _Encoding:
    container: str
    codec: str
    pixels: str
    options: dict[str, str]


def _encoding(codec: Codec) -> _Encoding:
    match codec:
        case "lossless":
            return _Encoding("mp4", "libx264rgb", "rgb24", {"crf": "0", "preset": "veryfast"})
        case "h264":
            return _Encoding("mp4", "libx264", "yuv420p", {"crf": "16", "preset": "medium"})
        case "vp9":
            options = {"crf": "20", "b:v": "0", "deadline": "good", "cpu-used": "4"}
            return _Encoding("webm", "libvpx-vp9", "yuv420p", options)


def write_video(path: Path, clip: Clip, *, fps: float, codec: Codec = "lossless") -> None:
    """Encode `clip`; the file is complete or absent. `h264` and `vp9` need even sizes."""
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8 or not clip.numel():
        raise UserError(
            f"{path}: a clip is uint8 't h w 3', got {clip.dtype} of shape {tuple(clip.shape)}"
        )
    how = _encoding(codec)
    _, height, width, _ = clip.shape
    if how.pixels == "yuv420p" and (height % 2 or width % 2):
        raise UserError(
            f"{path}: {codec} needs an even height and width, got {height}x{width}; pad it by one"
        )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=how.container) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(how.codec, rate=rate, options=how.options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, how.pixels
        stream.codec_context.thread_count = 1  # small clips; callers that need more use processes
        for image in clip.cpu().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, whoever dies or writes it at the same time."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_video(path: Path, *, decoder: Decoder = "pyav", num_frames: int | None = None) -> Clip:
    """The first `num_frames` frames of a file (default: all), as uint8. Raises MediaError."""
    if decoder == "pyav":
        clip = _read_pyav(path, num_frames).clip
    else:
        clip = _read_decord(path, None if num_frames is None else range(num_frames))
    if num_frames is not None and len(clip) < num_frames:
        raise MediaError(f"{path}: asked for {num_frames} frames, but it has {len(clip)}")
    return clip


def has_decord() -> bool:
    """Whether decord can be used here; there are no wheels for macOS and none for ARM."""
    return importlib.util.find_spec("decord") is not None


def verify(path: Path) -> VideoInfo:
    """Decode every frame once; find out whether decord's random access gives the same frames."""
    read = _read_pyav(path, None)
    clip = read.clip
    num_frames, height, width, _ = clip.shape
    exact = False
    if has_decord():
        if read.num_key_frames <= 1:  # nowhere to seek to: two frames are enough
            asked = [num_frames // 2, num_frames - 1]
        else:
            count = min(num_frames, MAX_PROBES)
            asked = random.Random(num_frames).sample(range(num_frames), count)
        try:
            exact = torch.equal(_read_decord(path, asked), clip[asked])
        except MediaError:  # only PyAV can read it: an image, AV1, a width of 8, 16 or 24 pixels
            exact = False
    return VideoInfo(num_frames, height, width, read.fps, exact)


@dataclass(frozen=True)
class _Read:
    clip: Clip
    fps: float
    num_key_frames: int


def _read_pyav(path: Path, num_frames: int | None) -> _Read:
    images: list[np.ndarray] = []
    num_key_frames = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: there is no video in it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode+crccheck"}
            stated, fps = stream.frames, float(stream.average_rate or 0)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(
                        f"{path}: frame {len(images)} is damaged; copy or render the file again"
                    )
                num_key_frames += frame.key_frame
                # Its default of all cores for the scaling of one frame costs twice as much.
                images.append(frame.to_ndarray(format="rgb24", threads=1))
                if len(images) == num_frames:
                    break
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{path}: PyAV cannot read it: {_reason(error)}") from None
    if not images or (len(images) != num_frames and len(images) < stated):
        raise MediaError(
            f"{path}: only {len(images)} of its {stated} frames can be read; it is cut off"
        )
    if len({image.shape for image in images}) > 1:
        raise MediaError(f"{path}: its frames change size")
    return _Read(torch.from_numpy(np.stack(images)), fps, num_key_frames)


def _read_decord(path: Path, frames: Sequence[int] | None) -> Clip:
    """`frames` in the order given, those beyond the end left out; all of them by default."""
    decord = _decord()
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        wanted = range(len(reader)) if frames is None else [i for i in frames if i < len(reader)]
        images = reader.get_batch(list(wanted)).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:  # DECORDError is not a RuntimeError
        raise MediaError(f"{path}: decord cannot read it: {_reason(error)}") from None
    return torch.from_numpy(images)


@functools.cache
def _decord():
    """decord, imported when first needed: it is heavy, and absent on some machines."""
    if not has_decord():
        raise UserError("decord is not installed here; set decoder: auto or pyav")
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    return decord


def _reason(error: Exception) -> str:
    """The first line of a decoder's complaint, without its error number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return getattr(error, "strerror", None) or text
