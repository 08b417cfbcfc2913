"""Frames out of video files: the right ones, upright, or one error that names the file.

PyAV, read from the first frame to the last, is the reference. decord is used only where its wheel
exists and only on files for which `vidcomp.media.verify` has seen that its random access is right:
on open-GOP H.264 it gives other frames than asked for, in silence. An image file is, to FFmpeg and
so to us, a video of one frame.

Frames are counted in the order in which they are shown, whatever their time stamps: a variable
frame rate changes nothing. Frames are turned as the file says, here as in decord. Of several video
streams both decoders take the one that FFmpeg thinks best.

Unusual: FFmpeg conceals damage and says nothing of a file that was cut between two frames, so it is
told to stop at errors, and what came out is compared with what the file says of itself.
"""

import contextlib
import functools
import importlib.util
import io
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from vidcomp.config import UserError

Clip = UInt8[Tensor, "t h w 3"]
Decoder = Literal["decord", "pyav"]
Source = Path | bytes
"""A file, or the content of one."""

_MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_GIF_TRAILER = b";"
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class MediaError(UserError):
    """A file that cannot be read as a clip. The message names the file."""


def has_decord() -> bool:
    """Whether decord can be used here; there are no wheels for macOS and none for ARM."""
    return importlib.util.find_spec("decord") is not None


def read_video(
    source: Source,
    *,
    frames: range | None = None,
    decoder: Decoder = "pyav",
    name: str | None = None,
) -> Clip:
    """These frames of a file (default: all), as uint8. Raises MediaError, which calls it `name`."""
    name = name or name_of(source)
    if decoder == "decord":
        return read_decord(source, frames, name=name)
    images: list[np.ndarray] = []
    converter = VideoReformatter()
    with contextlib.closing(decoded(source, name=name)) as stream:
        for k, frame in enumerate(stream):
            if frames is None or k in frames:
                images.append(upright(frame, converter, name=name))
            if frames is not None and k + 1 >= frames.stop:
                break
    _refuse_fewer(frames, images, name=name)
    if len({image.shape for image in images}) > 1:
        raise MediaError(f"{name}: its frames change size")
    return torch.from_numpy(np.stack(images))


def read_decord(source: Source, frames: Sequence[int] | None, *, name: str) -> Clip:
    """`frames` in the order given (default: all), by decord's random access."""
    decord = _decord()
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        reader = decord.VideoReader(file, num_threads=1)
        asked = range(len(reader)) if frames is None else frames
        wanted = [i for i in asked if i < len(reader)]
        _refuse_fewer(frames, wanted, name=name)
        images = reader.get_batch(wanted).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:  # DECORDError is not a RuntimeError
        raise MediaError(f"{name}: decord cannot read it: {_reason(error)}") from None
    return torch.from_numpy(images)


def decoded(source: Source, *, name: str) -> Generator[VideoFrame, None, None]:
    """Every frame in the order of display, by PyAV. Raises MediaError where one is damaged or, at
    the end, if some are missing."""
    count = 0
    with open_video(source, name=name) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise MediaError(f"{name}: frame {count} is damaged; copy or render the file again")
            count += 1
            yield frame
        stated = _num_stated(container, stream)
    if not count and not stated:
        raise MediaError(f"{name}: there are no frames in it")
    if count < stated:
        raise MediaError(f"{name}: only {count} of its {stated} frames can be read; it is cut off")
    if _is_cut(source):
        raise MediaError(f"{name}: it is cut off after {count} frames; copy or render it again")


@contextlib.contextmanager
def open_video(
    source: Source, *, name: str
) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    """A file and the video in it, decoded by one thread. What goes wrong inside is a MediaError."""
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with _container(file) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise MediaError(f"{name}: there is no video in it")
            if not hasattr(stream.codec_context, "thread_count"):  # no context without a decoder
                raise MediaError(f"{name}: this FFmpeg has no decoder for it")
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode+crccheck"}
            yield container, stream
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise MediaError(f"{name}: PyAV cannot read it: {_reason(error)}") from None


def _container(file: str | io.BytesIO) -> InputContainer:
    """What is called mp4 is taken for one before FFmpeg tries every format that it knows, which is
    a tenth of what a short clip costs."""
    if isinstance(file, str) and file.lower().endswith(".mp4"):
        with contextlib.suppress(FFmpegError):
            return av.open(file, "r", format="mp4")
    return av.open(file, "r")


def upright(
    frame: VideoFrame, converter: VideoReformatter, *, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a frame, turned as its file says. Frames of a file share a `converter`: to make
    one for each, as PyAV does by itself, takes as long as the conversion of a small frame."""
    # Its default of all cores for the scaling of one frame costs twice as much.
    image = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise MediaError(f"{name}: it is turned by {frame.rotation} degrees, not by right angles")
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def name_of(source: Source) -> str:
    """What errors call it."""
    return f"a file of {len(source)} bytes" if isinstance(source, bytes) else str(source)


@functools.cache
def _decord():
    """decord, imported when first needed: it is heavy, and absent on some machines."""
    if not has_decord():
        raise UserError("decord is not installed here; set decoder: auto or pyav")
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    return decord


def _num_stated(container: InputContainer, stream: VideoStream) -> int:
    """The frames that a file says it shows, 0 if it does not say. An mp4 also counts those that its
    edit list leaves out, as trimming does."""
    if "mp4" in container.format.name and len(stream.index_entries):
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _is_cut(source: Source) -> bool:
    """Whether a file ends before it says that it does, where FFmpeg does not look: Matroska and
    WebM, GIF, JPEG."""
    head = source[:64] if isinstance(source, bytes) else _read(source, 64)
    if head.startswith(_MATROSKA) and (at := head.find(_SEGMENT)) >= 0:
        size = head[at + 4 : at + 12]
        length = 9 - size[0].bit_length()  # as many bytes as zeros before the first one, and it
        value = int.from_bytes(size[:length]) & ~(1 << 7 * length)
        is_known = value != (1 << 7 * length) - 1  # unknown in a live stream
        held = len(source) if isinstance(source, bytes) else source.stat().st_size
        return is_known and held < at + 4 + length + value
    if head.startswith((b"GIF8", _JPEG)):
        whole = source if isinstance(source, bytes) else _read(source)
        if head.startswith(_JPEG):
            return whole.rfind(_JPEG_END) < whole.rfind(_JPEG_SCAN)
        return not whole.rstrip(b"\0").endswith(_GIF_TRAILER)
    return False


def _read(path: Path, size: int = -1) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _refuse_fewer(asked: Sequence[int] | None, got: Sequence[object], *, name: str) -> None:
    if asked is not None and len(got) < len(asked):
        raise MediaError(f"{name}: {len(asked)} frames were asked for, {len(got)} are there")


def _reason(error: Exception) -> str:
    """The first line of a decoder's complaint, without its error number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return getattr(error, "strerror", None) or text
