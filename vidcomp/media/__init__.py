"""Video files and grids of clips: from uint8 tensors to what a disk or a person holds, and back."""

from vidcomp.media.gif import write_gif
from vidcomp.media.grid import Cell, grid
from vidcomp.media.index import READERS, index_files
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
    "READERS",
    "SUFFIXES",
    "Cell",
    "MediaError",
    "VideoInfo",
    "grid",
    "has_decord",
    "index_files",
    "read_video",
    "verify",
    "write_bytes",
    "write_gif",
    "write_video",
]
