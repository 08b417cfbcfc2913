"""The index of a folder: what each of its files holds, found by decoding it once, kept on disk.

A file is forgotten when its size or date changes; if only the date did, as in a copy, the hash of
its content says so and nothing is decoded again. Broken files stay in the index with what is wrong
with them, so that a folder with a few of them is not tried again and again. What was checked is
kept if the check is interrupted.

The whole content is hashed: that is little beside decoding it, and a hash of parts would miss what
changed between them. The index is one array of records (``.index.npz`` in the folder or, where that
cannot be written, in the user's cache), so 100 000 files are looked up in half a second. It holds
for one pair of decoder versions: others may read the same files otherwise.
"""

import contextlib
import hashlib
import io
import json
import os
import stat
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vidcomp.media.decode import MediaError, has_decord
from vidcomp.media.kept import keep, places
from vidcomp.media.verify import verify
from vidcomp.media.video import write_bytes

INDEX = ".index.npz"

READERS = 4
"""Threads that check files: decoders run outside Python's lock."""

SAVE_EVERY_S = 60.0

RECORD = np.dtype(
    [
        ("num_bytes", "i8"),
        ("mtime_ns", "i8"),
        ("digest", "S32"),
        # The rest is `VideoInfo`, field by field.
        ("num_frames", "i8"),
        ("height", "i8"),
        ("width", "i8"),
        ("fps", "f8"),
        ("num_key_frames", "i8"),
        ("decord_is_exact", "?"),
    ]
)


_Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds: what tells that a file was changed."""

_NO_FILE: _Stamp = (-1, 0)

_UNKNOWN = -2
"""The size in bytes of a file that was never seen."""


@dataclass(frozen=True)
class Index:
    """What is known of `paths`: a `RECORD` each, and what is wrong with the file, "" if nothing
    is. `is_new`: whether some were never seen before."""

    paths: tuple[str, ...]
    records: NDArray[Any]
    problems: list[str]
    is_new: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, rows: Sequence[int]) -> "Index":
        """The part about some of the paths."""
        paths, problems = (self.paths[i] for i in rows), [self.problems[i] for i in rows]
        return Index(tuple(paths), self.records[rows], problems)


def index_files(root: Path, paths: Sequence[str], *, raise_problems: bool = True) -> Index:
    """What is known of `paths`; new and changed files are decoded and checked now. Raises
    MediaError for the first that is broken."""
    index = _known(root, paths)
    is_new = bool((index.records["num_bytes"][: len(paths)] == _UNKNOWN).any())
    now = [_stamp(f"{root}/{path}") for path in paths]
    then = index.records[: len(paths)][["num_bytes", "mtime_ns"]].tolist()
    fresh = [a == b and a != _NO_FILE for a, b in zip(now, then, strict=True)]
    if raise_problems:
        _raise_first([index.problems[i] for i, known in enumerate(fresh) if known], root)
    if not all(fresh):
        stale = [i for i, known in enumerate(fresh) if not known]
        index.records["num_bytes"][stale] = _UNKNOWN
        try:
            _check_all(root, index, stale, now, raise_problems)
        finally:
            _write(root, index)
    asked = index if len(index) == len(paths) else index.rows(range(len(paths)))
    return replace(asked, is_new=is_new)


def _known(root: Path, paths: Sequence[str]) -> Index:
    """What the index on disk says of `paths` and, after those, of other files."""
    stored = _read(root)
    if stored.paths == tuple(paths):
        return stored
    asked = set(paths)
    row_of = {path: row for row, path in enumerate(stored.paths)}
    everything = (*paths, *(path for path in stored.paths if path not in asked))
    rows = np.array([row_of.get(path, -1) for path in everything], np.int64)
    records = np.zeros(len(everything), RECORD)
    records["num_bytes"] = _UNKNOWN
    records[rows >= 0] = stored.records[rows[rows >= 0]]
    problems = [stored.problems[row] if row >= 0 else "" for row in rows.tolist()]
    return Index(everything, records, problems)


def _check_all(
    root: Path, index: Index, stale: list[int], now: list[_Stamp], raise_problems: bool
) -> None:
    """Fill in the rows `stale` of `index`, with a progress bar."""
    saved = time.monotonic()
    jobs = [
        (root, index.paths[i], now[i], index.records[i].copy(), index.problems[i]) for i in stale
    ]
    with ThreadPoolExecutor(READERS) as pool:
        checked = pool.map(_check, *zip(*jobs, strict=True))
        progress = tqdm(
            checked, total=len(stale), desc=f"check {root}", unit="clip", delay=1, disable=None
        )
        try:
            for i, (record, problem) in zip(stale, progress, strict=True):
                index.records[i], index.problems[i] = record, problem
                if raise_problems:
                    _raise_first([problem], root)
                if time.monotonic() > saved + SAVE_EVERY_S:
                    _write(root, index)
                    saved = time.monotonic()
        finally:  # after a broken file or an interruption the others need not be read
            progress.close()
            pool.shutdown(cancel_futures=True)


def _check(
    root: Path, path: str, now: _Stamp, before: np.void, problem: str
) -> tuple[np.void, str]:
    """The record of a file that was changed or never seen, and what is wrong with it."""
    record = before.copy()
    record["num_bytes"], record["mtime_ns"] = now
    if now == _NO_FILE:
        kind = "it is not a file" if (root / path).exists() else "there is no such file"
        return record, f"{path}: {kind}"
    try:
        with (root / path).open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32].encode()
    except OSError as error:  # not the file's fault: it is tried again next time
        record["num_bytes"] = _UNKNOWN
        return record, f"{path}: {error.strerror}"
    if digest == before["digest"] and not problem:
        return record, ""
    record["digest"] = digest
    try:
        for field, value in asdict(verify(root / path, name=path)).items():
            record[field] = value
    except MediaError as error:
        return record, str(error)
    return record, ""


def _raise_first(problems: Sequence[str], root: Path) -> None:
    for problem in problems:
        if problem:
            raise MediaError(f"{root}/{problem}; on_error=skip goes on without broken files")


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return _NO_FILE
    # A directory cannot be read, and a pipe would be waited for.
    regular = stat.S_ISREG(found.st_mode)
    return (found.st_size, found.st_mtime_ns) if regular else _NO_FILE


def _read(root: Path) -> Index:
    for place in places(root, INDEX):
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            content = np.load(io.BytesIO(place.read_bytes()), allow_pickle=False)
            texts = json.loads(content["texts"].tobytes())
            if texts["versions"] == _versions():
                return Index(tuple(texts["paths"]), content["records"], texts["problems"])
    return Index((), np.zeros(0, RECORD), [])


def _write(root: Path, index: Index) -> None:
    known = index.rows(np.flatnonzero(index.records["num_bytes"] >= 0).tolist())
    texts = {"versions": _versions(), "paths": known.paths, "problems": known.problems}
    buffer = io.BytesIO()
    packed = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    np.savez(buffer, records=known.records, texts=packed)
    # If nowhere, all is checked again next time.
    keep(root, INDEX, lambda place: write_bytes(place, buffer.getvalue()))


def _versions() -> list[str]:
    """What an index depends on beside the files: this module's format, and the decoders."""
    decord = metadata.version("decord") if has_decord() else "none"
    return ["1", metadata.version("av"), decord]
