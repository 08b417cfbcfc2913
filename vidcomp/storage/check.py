"""Whether a dataset on disk is still as it was rendered: every file against its checksum."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.storage.shards import (
    CLIPS,
    SUMS,
    listed,
    missing,
    num_shards,
    sha256,
    shard_path,
    unfinished,
)
from vidcomp.world.manifest import MANIFEST, Manifest
from vidcomp.world.table import TABLE


@dataclass(frozen=True)
class Verdict:
    """`faults` names each file that is missing, broken or extra."""

    folder: Path
    num_clips: int
    num_shards: int
    faults: tuple[str, ...]

    @property
    def summary(self) -> str:
        if not self.faults:
            return f"{self.num_clips} clips in {self.num_shards} shards: whole"
        return (
            f"{len(self.faults)} files of {self.folder} are not as they were rendered; to have "
            "them anew, remove those that are broken and run the command that rendered them again"
        )


def verify(folder: Path) -> Verdict:
    """Compare every file of a rendered dataset with its checksum. UserError if it has none."""
    manifest = Manifest.load(folder)
    if manifest is None:
        raise UserError(
            f"{folder} has no {MANIFEST}, so nothing was rendered there; name a folder that "
            "tools/render.py has filled"
        )
    n = manifest.num_clips
    again = f"python tools/render.py CONFIG out={folder}"
    if not (folder / TABLE).exists():
        done = n - len(missing(folder, range(n)))
        raise UserError(f"{folder} is interrupted at {done} of {n} clips; go on with: {again}")
    if not manifest.checksums and not unfinished(folder, n):
        raise UserError(
            f"{folder} has all clips, but was interrupted before its checksums; go on with: {again}"
        )
    if not manifest.checksums:
        raise UserError(
            f"{folder} has no checksums, an older version made it; it can be trained on, and to "
            f"get checksums remove it and render it again: {again}"
        )
    shards = [shard_path(shard) for shard in range(num_shards(n))]
    faults = [*_table_faults(folder, manifest.checksums), *_strangers(folder, shards)]
    for shard in tqdm(shards, desc=f"verify {folder}", unit="shard", disable=None):
        faults += _shard_faults(folder, shard, manifest.checksums.get(shard))
    return Verdict(folder, n, len(shards), tuple(faults))


def _table_faults(folder: Path, checksums: dict[str, str]) -> Iterator[str]:
    for name, checksum in checksums.items():
        if name.startswith(f"{CLIPS}/"):
            continue
        if not (folder / name).is_file():
            yield f"missing {name}"
        elif sha256(folder / name) != checksum:
            yield f"broken  {name}"


def _strangers(folder: Path, shards: list[str]) -> Iterator[str]:
    if not (folder / CLIPS).is_dir():
        return  # each shard is missing
    for path in sorted((folder / CLIPS).iterdir()):
        if f"{CLIPS}/{path.name}" not in shards:
            yield f"extra   {CLIPS}/{path.name}"


def _shard_faults(folder: Path, shard: str, checksum: str | None) -> Iterator[str]:
    place = folder / shard
    sums = place / SUMS
    if not sums.is_file():
        yield f"missing {shard}/{SUMS}"
        return
    if sha256(sums) != checksum:
        yield f"broken  {shard}/{SUMS}"
        return
    checksums = listed(place)
    there = {path.name: path for path in place.iterdir() if path.name != SUMS}
    for name in sorted({*checksums, *there}):
        if name not in there:
            yield f"missing {shard}/{name}"
        elif name not in checksums:
            yield f"extra   {shard}/{name}"
        elif not there[name].is_file() or sha256(there[name]) != checksums[name]:
            yield f"broken  {shard}/{name}"
