"""The files of a tree, through links too.

Unusual: the tree itself comes first and what is linked into it after that, each folder once by its
real path. So a link that leads back to where it lies ends, and nothing is found under two names.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> Iterator[str]:
    """Paths relative to `root`, in no useful order; what is hidden is left out."""
    visited: set[str] = set()
    starts = [str(root)]
    for start in starts:  # it grows by the links that are found
        for where, folders, names in os.walk(start):
            real = os.path.realpath(where)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = (os.path.join(where, name) for name in folders)
            starts += [path for path in inside if os.path.islink(path)]
            place = Path(where).relative_to(root).as_posix()
            prefix = "" if place == "." else f"{place}/"
            yield from (prefix + name for name in names if not name.startswith("."))
