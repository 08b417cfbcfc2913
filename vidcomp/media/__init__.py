"""Video files and grids of clips: everything between uint8 tensors and what a disk or a person holds."""

from vidcomp.media.grid import Cell, grid
from vidcomp.media.video import (
    SUFFIXES,
    MediaError,
    VideoInfo,
    has_decord,
    read_video,
    verify,
    write_bytes,
    write_video,
)

__all__ = [
    "SUFFIXES",
    "Cell",
    "MediaError",
    "VideoInfo",
    "grid",
    "has_decord",
    "read_video",
    "verify",
    "write_bytes",
    "write_video",
]
