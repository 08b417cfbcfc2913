"""Video files, written whole or not at all.

Data is stored as lossless RGB H.264 (``libx264rgb``, crf 0): exact through both decoders, while the
usual yuv420p would cost 30 to 38 dB before any model errs. People get yuv420p H.264, HTML pages VP9
in WebM.
"""

import contextlib
import io
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal

import av
import torch
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from vidcomp.config import UserError

Clip = UInt8[Tensor, "t h w 3"]
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
    with whole_file(path) as out:
        out.write(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """A file to write to, which is there under its name only when all of it is written."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")  # nobody else's
    try:
        with part.open("xb") as out:
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
