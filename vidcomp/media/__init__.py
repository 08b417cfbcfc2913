"""Video files and grids of clips: from uint8 tensors to what a disk or a person holds, and back."""

from vidcomp.media.decode import MediaError, Source, has_decord, read_video
from vidcomp.media.grid import Cell, grid
from vidcomp.media.index import READERS, index_files
from vidcomp.media.pictures import write_gif, write_png
from vidcomp.media.verify import VideoInfo, verify
from vidcomp.media.video import SUFFIXES, write_bytes, write_video

__all__ = [
    "READERS",
    "SUFFIXES",
    "Cell",
    "MediaError",
    "Source",
    "VideoInfo",
    "grid",
    "has_decord",
    "index_files",
    "read_video",
    "verify",
    "write_bytes",
    "write_gif",
    "write_png",
    "write_video",
]
