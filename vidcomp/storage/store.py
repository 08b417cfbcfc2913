"""Storing a dataset: what `tools/render.py` does, and a training run if its dataset is not there.

``dataset.json`` comes first, then the shards, then ``factors.csv``, and ``dataset.json`` again with
the checksums. So a folder with the first and not the third is an interrupted render, and so is one
that lacks nothing but the checksums.
"""

import contextlib
import csv
import errno
import functools
import io
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.datasets.base import Config, DataConfig, Dataset
from vidcomp.media import write_bytes
from vidcomp.storage.mend import damaged, discard_damage, num_bytes
from vidcomp.storage.shards import (
    SUMS,
    clip_path,
    missing,
    num_shards,
    render_shards,
    sha256,
    shard_path,
    unfinished,
)
from vidcomp.workers import in_processes, num_cpus
from vidcomp.world.coverage import Coverage, coverage_of_clips
from vidcomp.world.manifest import Manifest
from vidcomp.world.splits import Split, level_name
from vidcomp.world.table import TABLE, Table, find_table

LEVELS = "levels.csv"

_WORTH_WORKERS_S = 5.0
"""Work that takes one process less than this is left to it: workers need some 2 s to start."""


def prepare(config: DataConfig) -> None:
    """Render what is missing. In a run of several processes, one calls this and the others wait."""
    if config.render is None or config.folder is None:
        return
    if not _is_finished(_manifest(config.render.build()), config.folder) or damaged(config.folder):
        render(config, config.folder)


def render(config: DataConfig, folder: Path, *, workers: int | None = None) -> Coverage:
    """Store what `config` draws in `folder`, with the levels of its split."""
    assert config.drawn is not None, "nothing to draw"
    split = config.split.build(config.drawn.build().factors)  # mistakes are found before work
    store(config.drawn, folder, workers=workers)
    return label(folder, split)


def store(config: Config, folder: Path, *, workers: int | None = None) -> None:
    """Write every clip losslessly, with its truth beside it, and the table.

    Clips that are there already are kept, since the same index is the same clip: after an
    interruption, the same call goes on. A finished dataset is left alone unless it has lost
    files since, and another dataset in that folder is an error. `workers`: processes; by default
    one for each CPU if that is worth it.
    """
    dataset = config.build()
    manifest = _manifest(dataset)
    is_finished = _is_finished(manifest, folder)
    if not discard_damage(folder) and is_finished:
        return
    if not is_finished:
        _open(manifest, folder)
    absent = len(missing(folder, range(len(dataset))))
    progress = tqdm(
        total=len(dataset),
        initial=len(dataset) - absent,
        desc=f"render {folder}",
        unit="clip",
        disable=None,
    )
    rendered = _rendered(config, folder, unfinished(folder, len(dataset)), absent, workers)
    with progress, contextlib.closing(rendered):
        for count in rendered:
            progress.update(count)
    paths = tuple(clip_path(i) for i in range(len(dataset)))
    Table(dataset.factors, paths, dataset.classes(), dataset.values()).save(folder)
    lists = {shard_path(k): f"{shard_path(k)}/{SUMS}" for k in range(num_shards(len(dataset)))}
    checksums = {name: sha256(folder / path) for name, path in {**lists, TABLE: TABLE}.items()}
    sizes = {name: num_bytes(folder, name) for name in checksums}
    replace(manifest, checksums=checksums, sizes=sizes).save(folder)


def label(folder: Path, split: Split) -> Coverage:
    """Write ``levels.csv``, of each clip its combination and its level in `split`, unless it is
    that already."""
    manifest = Manifest.load(folder)
    assert manifest is not None, f"nothing was rendered in {folder}"
    table = Table.load(folder, factors=manifest.factors)
    coverage = coverage_of_clips(split, table.classes, table.values)
    if not manifest.checksums:  # of an older version
        return coverage
    is_whole = manifest.sizes.get(LEVELS) in (None, num_bytes(folder, LEVELS))
    if manifest.split == split.digest and is_whole:
        return coverage
    combinations = split.factors.combination_ids(table.classes).tolist()
    levels = [level_name(level) for level in split.levels(table.classes, table.values).tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "combination", "level"])
    writer.writerows(zip(table.paths, combinations, levels, strict=True))
    write_bytes(folder / LEVELS, text.getvalue().encode())
    checksums = {**manifest.checksums, LEVELS: sha256(folder / LEVELS)}
    sizes = manifest.sizes and {**manifest.sizes, LEVELS: num_bytes(folder, LEVELS)}
    replace(manifest, split=split.digest, checksums=checksums, sizes=sizes).save(folder)
    return coverage


def _manifest(dataset: Dataset) -> Manifest:
    return Manifest(
        num_clips=len(dataset),
        num_frames=dataset.num_frames,
        height=dataset.height,
        width=dataset.width,
        fps=dataset.fps,
        fingerprint=dataset.fingerprint,
        factors=dataset.factors,
    )


def _is_finished(manifest: Manifest, folder: Path) -> bool:
    """Whether all of it is there. Raises UserError if something else is."""
    found = Manifest.load(folder)
    if found is None and find_table(folder) is not None:
        raise UserError(f"{folder} holds clips that were not rendered; choose another folder")
    if found is not None and found.fingerprint != manifest.fingerprint:
        raise UserError(
            f"{folder} holds another dataset: {found.num_clips} clips ({found.fingerprint}), not "
            f"{manifest.num_clips} ({manifest.fingerprint}); choose another folder, or remove that "
            "one"
        )
    if found is None or not (folder / TABLE).exists():
        return False
    # Without checksums, an older version made it, which had no lists either, or the end is missing.
    return bool(found.checksums or unfinished(folder, found.num_clips))


def _open(manifest: Manifest, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest.save(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; choose another place with out=DIR"
        ) from None


def _rendered(
    config: Config, folder: Path, shards: list[int], absent: int, workers: int | None
) -> Generator[int]:
    """Write `shards`, yielding how many clips are new: here, unless workers will be sooner."""
    work = functools.partial(render_shards, config, folder)
    most = workers or num_cpus()
    if workers is None or most == 1:
        began, done = time.perf_counter(), 0
        with contextlib.closing(work(shards)) as here:
            for count in here:
                yield count
                done += count
                seconds_left = (absent - done) * (time.perf_counter() - began) / max(done, 1)
                if most > 1 and seconds_left > _WORTH_WORKERS_S:
                    break  # a worker goes on with the shard that was begun here
            else:
                return
    yield from in_processes(work, shards, workers=most)
