"""What a finished dataset has lost since, as far as its sizes tell, and how it gets that again.

A look at the sizes costs a listing of each shard, so it is taken whenever a dataset is prepared. A
bit that was flipped has no size: that is what `vidcomp.storage.check` reads every file for.

Clips can be drawn again at any time, being a pure function of the seed and their number. So of a
shard that is not as large as it was, whatever its checksums do not vouch for is removed, and
rendering goes on as after an interruption.
"""

import os
import sys
from pathlib import Path

from vidcomp.config import UserError
from vidcomp.storage.shards import (
    CLIPS,
    SUMS,
    clip_path,
    listed,
    sha256,
    shard_clips,
    shard_path,
    unfinished,
)
from vidcomp.world.manifest import Manifest
from vidcomp.world.truth import truth_path


def damaged(folder: Path) -> list[str]:
    """The shards and tables of a finished dataset of which something is missing or of another
    size."""
    manifest = Manifest.load(folder)
    if manifest is None or not manifest.checksums:
        return []
    if not manifest.sizes:  # of an older version
        return [shard_path(shard) for shard in unfinished(folder, manifest.num_clips)]
    return [name for name, size in manifest.sizes.items() if num_bytes(folder, name) != size]


def num_bytes(folder: Path, name: str) -> int:
    """The size of a table, or of a shard's list of checksums and the files on it; what is missing
    counts nothing."""
    place = folder / name
    if not _is_shard(name):
        return place.stat().st_size if place.is_file() else 0
    if not place.is_dir():
        return 0
    with os.scandir(place) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    return sum(sizes.get(file, 0) for file in (SUMS, *listed(place)))


def discard_damage(folder: Path) -> bool:
    """Remove the clips that are not as they were, from the shards where something is not, and say
    so. Returns whether anything is to be made again."""
    names, manifest = damaged(folder), Manifest.load(folder)
    if not names or manifest is None:
        return False
    lost = [name for name in names if not _is_shard(name)]
    try:
        for name in filter(_is_shard, names):
            shard = int(Path(name).name)
            lost += _discard_clips(folder, shard, manifest.num_clips) or [f"{name}/{SUMS}"]
            (folder / name / SUMS).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} has lost some of {names[0]}, and nothing can be removed there to make it "
            f"again: {error.strerror}; choose another place with out=DIR"
        ) from None
    what = f"{lost[0]} and {len(lost) - 1} more files are" if lost[1:] else f"{lost[0]} is"
    print(f"{folder}: {what} missing or of another size, and made again", file=sys.stderr)
    return True


def _is_shard(name: str) -> bool:
    return name.startswith(f"{CLIPS}/")


def _discard_clips(folder: Path, shard: int, num_clips: int) -> list[str]:
    """The clips that their checksums do not vouch for; those are removed with their truth."""
    checksums = listed(folder / shard_path(shard))
    lost: list[str] = []
    for i in shard_clips(shard, num_clips):
        clip = folder / clip_path(i)
        files = (clip, truth_path(clip))
        expected = [file for file in files if file is clip or file.name in checksums]
        if any(not file.is_file() or sha256(file) != checksums.get(file.name) for file in expected):
            lost.append(clip_path(i))
            for file in files:
                file.unlink(missing_ok=True)
    return lost
