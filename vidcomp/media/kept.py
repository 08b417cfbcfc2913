"""Files that can be made again: kept in the folder that they are about or, where that cannot be
written, in the user's cache. A folder of data is often somebody else's, or on a read-only disk.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def places(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the file `name` about `folder` may be, in the order of preference."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return folder / name, cache / "vidcomp" / key / name


def keep(folder: Path, name: str, write: Callable[[Path], None]) -> Path | None:
    """Have the file written in the first place where that works; None if there is none."""
    for place in places(folder, name):
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write(place)
            return place
    return None
