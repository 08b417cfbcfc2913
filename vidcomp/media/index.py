"""The index of a folder's clips: what each file holds, found by decoding it once, and kept on disk.

``.index.json`` lies in the folder and is forgotten file by file, when a size or a date changes. It is
written even if a file turns out to be broken: what was checked need not be checked again.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from vidcomp.media.video import VideoInfo, verify, write_bytes

INDEX = ".index.json"


@dataclass(frozen=True)
class Entry:
    """A file that was checked, as it was then."""

    num_bytes: int
    mtime_ns: int
    info: VideoInfo


def index_files(folder: Path, paths: Sequence[str]) -> dict[str, Entry]:
    """An entry for each of `paths` in `folder`; new and changed files are decoded and checked now."""
    known = _read(folder / INDEX)
    index: dict[str, Entry] = {}
    stale: dict[str, tuple[int, int]] = {}
    for path in paths:
        stat = (folder / path).stat()
        entry = known.get(path)
        if entry is not None and (entry.num_bytes, entry.mtime_ns) == (
            stat.st_size,
            stat.st_mtime_ns,
        ):
            index[path] = entry
        else:
            stale[path] = (stat.st_size, stat.st_mtime_ns)
    if stale:
        progress = tqdm(stale.items(), desc=f"check {folder}", unit="clip", delay=1, disable=None)
        try:
            for path, (num_bytes, mtime_ns) in progress:
                index[path] = Entry(num_bytes, mtime_ns, verify(folder / path))
        finally:
            progress.close()
            _write(folder / INDEX, index)
    return index


def _read(path: Path) -> dict[str, Entry]:
    try:
        plain = json.loads(path.read_text())
        return {key: Entry(b, m, VideoInfo(**info)) for key, (b, m, info) in plain.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # absent, or of another version: it is made again


def _write(path: Path, index: dict[str, Entry]) -> None:
    plain = {key: (e.num_bytes, e.mtime_ns, asdict(e.info)) for key, e in index.items()}
    with contextlib.suppress(PermissionError):  # a folder that is not ours: checked again next time
        write_bytes(path, json.dumps(plain).encode())
