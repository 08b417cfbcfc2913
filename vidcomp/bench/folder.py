"""Opening a folder of many files again, when its index is there: by folders' names and by a table.

The files are hard links to a few images, since making 100 000 of them is not the subject.
"""

import csv
import io
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from vidcomp.bench.measure import BenchConfig, Figure, Limit, Spread, Times, in_turn
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.world.table import TABLE

OPEN = Limit("<=", 2.0, of="s")

_IMAGES = 16
"""File systems allow some 65 000 links to one file."""

_FILES_PER_FOLDER = 1000
_SIDE = 32


def bench_folder(config: BenchConfig) -> Iterator[Figure]:
    """The first time in words, every other time as a figure, beside asking for all the files'
    dates."""
    with many_files(config.num_files) as folder:
        began = time.perf_counter()
        by_folders = FolderConfig(path=folder, labels="folders")
        by_folders.build()
        note = f"the first time {time.perf_counter() - began:.1f} s"

        def walk() -> None:
            for where, _, names in os.walk(folder):
                for name in names:
                    os.stat(f"{where}/{name}")

        opening, walking = in_turn(config, [by_folders.build, walk])
        yield _figure(config, "labels=folders", opening, walking, note)
        _write_table(folder)
        by_table = FolderConfig(path=folder)
        opening, walking = in_turn(config, [by_table.build, walk])
        yield _figure(config, "labels=table", opening, walking, f"{TABLE} of one factor")


@contextmanager
def many_files(num_files: int) -> Generator[Path]:
    """A tree of images that are hard links to a few."""
    with TemporaryDirectory() as place:
        images = [Path(place, f"image{k}.png") for k in range(min(_IMAGES, num_files))]
        for k, image in enumerate(images):
            Image.fromarray(np.full((_SIDE, _SIDE, 3), k, np.uint8)).save(image)
        root = Path(place, "files")
        for i in range(num_files):
            folder = root / f"label{i // _FILES_PER_FOLDER:03d}"
            if i % _FILES_PER_FOLDER == 0:
                folder.mkdir(parents=True)
            os.link(images[i % len(images)], folder / f"{i:06d}.png")
        yield root


def _write_table(folder: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    for path in sorted(folder.glob("*/*.png")):
        writer.writerow([path.relative_to(folder).as_posix(), path.parent.name])
    (folder / TABLE).write_text(text.getvalue())


def _figure(config: BenchConfig, how: str, opening: Times, walking: Times, note: str) -> Figure:
    seconds = Spread.of(opening)
    return Figure(
        f"open {config.num_files} files again, {how}",
        seconds,
        rate=config.num_files / seconds.median,
        unit="files/s",
        ratio=Spread.of(opening / walking),
        reference="x asking for all dates",
        limit=OPEN,
        note=note,
    )
