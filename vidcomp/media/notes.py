"""Annotation files: found wherever they were unpacked, read once and remembered.

Published sets have a JSON file of up to megabytes beside every video, of which a dataset needs a
few numbers. Those are kept in ``.NAME.json`` in the folder or the user's cache, and forgotten file
by file when a size or a date changes. A file that is not as expected is one error that names it.
"""

import contextlib
import fnmatch
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.media import MediaError, write_bytes
from vidcomp.media.kept import keep, places
from vidcomp.media.walk import files_below

T = TypeVar("T")


def found(
    root: Path, pattern: str, *, expected: str, key: Callable[[Path], str] = lambda path: path.stem
) -> dict[str, str]:
    """The files of the folder whose names match, as paths relative to it, by their `key`."""
    if not root.is_dir():
        raise UserError(f"no folder {root}; expected {expected}")
    # Hidden are the shadows of files that were copied from a Mac: those are left out.
    paths = [path for path in map(Path, files_below(root)) if fnmatch.fnmatch(path.name, pattern)]
    by_key: dict[str, str] = {}
    for path in sorted(paths):
        if (other := by_key.setdefault(key(path), path.as_posix())) != path.as_posix():
            raise UserError(f"{root} holds {path.name} twice, as {other} and {path}; remove one")
    return dict(sorted(by_key.items()))


def remembered(
    root: Path, name: str, paths: Sequence[str], read: Callable[[Path], Any], *, expected: str
) -> dict[str, Any]:
    """What `read` finds in each file, as plain JSON. A changed `read` needs another `name`."""
    file = f".{name}.json"
    known = _load(places(root, file))
    notes: dict[str, tuple[list[int], Any]] = {}
    changed = False
    try:
        for path in tqdm(paths, desc=f"read {root}", unit="file", delay=1, disable=None):
            stat = (root / path).stat()
            now = [stat.st_size, stat.st_mtime_ns]
            if path in known and known[path][0] == now:
                notes[path] = known[path]
            else:
                notes[path] = (now, parsed(root / path, read, expected=expected))
                changed = True
    finally:  # after a bad file or an interruption the others need not be read again
        if changed:
            content = json.dumps({**known, **notes}).encode()
            keep(root, file, lambda place: write_bytes(place, content))
    return {path: note for path, (_, note) in notes.items()}


def parsed(path: Path, read: Callable[[Path], T], *, expected: str) -> T:
    """``read(path)``; the error of a file that is not as `expected` says so in one line."""
    try:
        return read(path)
    except UserError:
        raise
    except FileNotFoundError:
        raise MediaError(f"there is no {path}; expected {expected}") from None
    except KeyError as error:
        raise MediaError(f"{path} lacks {error}; expected {expected}") from None
    except (OSError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MediaError(f"{path} cannot be read ({reason}); expected {expected}") from None


def _load(places: Sequence[Path]) -> dict[str, Any]:
    for place in places:
        with contextlib.suppress(OSError, ValueError):  # absent or damaged: it is made again
            plain = json.loads(place.read_text())
            if isinstance(plain, dict):
                return plain
    return {}
