"""HDF5 files, read through h5py, which is an extra: most people need none of it.

A handle must not be shared over a fork, so each process opens the file for itself when it first
reads, and a pickled reader holds no handle. Every mistake is one line that names the file, what is
expected in it and where it can be downloaded.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from vidcomp.config import UserError, first_line
from vidcomp.media.decode import MediaError
from vidcomp.media.kept import keep, places
from vidcomp.media.video import whole_file

MAX_ROWS_PER_CHUNK = 64
"""Where a chunk holds more rows than this, single rows cost too much."""


class Hdf5:
    """One file. `expected`: what it should hold, `source`: where it can be had; for the errors."""

    def __init__(self, path: Path, *, expected: str, source: str) -> None:
        self.path = path
        self._help = f"expected {expected}; download it from {source}"
        self._handle: tuple[int, Any] | None = None
        if not path.is_file():
            raise UserError(f"no file {path}; {self._help}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __getitem__(self, key: str) -> Any:
        """The data set or group at `key`."""
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), self._open())
        file = self._handle[1]
        try:
            return file[key]
        except KeyError:
            held = ", ".join(file) or "nothing"
            raise UserError(f"{self.path} has no {key!r}, it holds {held}; {self._help}") from None

    def rows(self, key: str, indices: Sequence[int] | np.ndarray | None = None) -> Any:
        """The rows with these indices in the order asked, by default all."""
        source = self[key]
        try:
            if indices is None:
                return source[()]
            # h5py wants them rising and once each.
            unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
            return source[unique][inverse]
        except (OSError, RuntimeError) as error:
            raise self.damaged(first_line(error)) from None

    def has_large_chunks(self, key: str) -> bool:
        """Whether each row of `key` costs the unpacking of many."""
        chunks = self[key].chunks
        return chunks is not None and chunks[0] > MAX_ROWS_PER_CHUNK

    def unpacked(self, key: str, rows: np.ndarray) -> Path:
        """An npy file of these rows of `key`, which rise: beside this one or in the user's cache,
        and written when it is first asked for, chunk by chunk, whole or not at all."""
        seen = hashlib.sha256(rows.tobytes())
        seen.update(str(self.path.stat().st_size).encode())
        folder, name = self.path.parent, f"{self.path.stem}.{key}-{seen.hexdigest()[:12]}.npy"
        for path in places(folder, name):
            if path.exists():
                return path

        def write(path: Path) -> None:
            with whole_file(path) as out:
                self._unpack(self[key], rows, out, said=f"unpack {path}")

        if (path := keep(folder, name, write)) is None:
            raise UserError(
                f"neither {folder} nor the cache can be written, where {key} of {self.path.name} "
                "are unpacked once; set XDG_CACHE_HOME to a folder of your own that has room"
            )
        return path

    def _unpack(self, source: Any, rows: np.ndarray, out: BinaryIO, *, said: str) -> None:
        shape = (len(rows), *source.shape[1:])
        descr = np.lib.format.dtype_to_descr(source.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        step = source.chunks[0]
        for start in tqdm(range(0, len(source), step), desc=said, unit="slab", disable=None):
            first, last = np.searchsorted(rows, [start, start + step])
            if first == last:
                continue
            try:
                slab = source[start : start + step]
            except (OSError, RuntimeError) as error:
                raise self.damaged(first_line(error)) from None
            out.write(slab[rows[first:last] - start].tobytes())

    def damaged(self, reason: str) -> MediaError:
        """That the file is not what it should be."""
        return MediaError(f"{self.path}: {reason}; {self._help}")

    def _open(self) -> Any:
        try:
            import h5py
        except ImportError:
            raise UserError(
                f"{self.path} is read with h5py, which is not installed here: "
                "pip install vidcomp[hdf5]"
            ) from None
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            reason = first_line(error)
            raise self.damaged(f"it is cut off or not HDF5 ({reason})") from None
