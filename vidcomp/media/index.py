"""The index of a folder's clips: what each file holds, found by decoding it once, and kept on disk.

``.index.json`` lies in the folder and is forgotten file by file, when a size or a date changes. It
is written even if a file turns out to be broken: what was checked need not be checked again.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from vidcomp.media.video import VideoInfo, verify, write_bytes

INDEX = ".index.json"

READERS = 4
"""Threads that decode files: a decoder mostly waits, four finish small clips four times as fast."""


@dataclass(frozen=True)
class Entry:
    """A file that was checked, as it was then."""

    num_bytes: int
    mtime_ns: int
    info: VideoInfo


def index_files(folder: Path, paths: Sequence[str]) -> dict[str, Entry]:
    """An entry for each of `paths`; new and changed files are decoded and checked now."""
    known = _read(folder / INDEX)
    index: dict[str, Entry] = {}
    stale: dict[str, tuple[int, int]] = {}
    for path in paths:
        stat = (folder / path).stat()
        now = (stat.st_size, stat.st_mtime_ns)
        entry = known.get(path)
        if entry is not None and (entry.num_bytes, entry.mtime_ns) == now:
            index[path] = entry
        else:
            stale[path] = now
    if stale:
        try:
            for path, info in _verify_all(folder, list(stale)):
                index[path] = Entry(*stale[path], info)
        finally:
            _write(folder / INDEX, index)
    return index


def _verify_all(folder: Path, paths: list[str]) -> Iterator[tuple[str, VideoInfo]]:
    with ThreadPoolExecutor(READERS) as pool:
        infos = pool.map(verify, [folder / path for path in paths])
        progress = tqdm(
            infos, total=len(paths), desc=f"check {folder}", unit="clip", delay=1, disable=None
        )
        try:
            yield from zip(paths, progress, strict=True)
        finally:  # after a broken file or an interruption the others need not be read
            progress.close()
            pool.shutdown(cancel_futures=True)


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
