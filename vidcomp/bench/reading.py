"""Reading stored clips beside bare decoders, and two processes that read beside one.

A bare loop makes the same batch and checks nothing, so 1.1 times its time is what right frames may
cost. What two cores of this machine are worth at that moment is measured in turn with the workers,
on a loop that reads nothing: else nobody could tell a bad reader from a busy machine.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils import data

from vidcomp.bench.measure import BenchConfig, Figure, Job, Limit, Spread, in_turn
from vidcomp.bench.rendering import LARGE
from vidcomp.bench.runs import clip_size, generator_run, rendered
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.datasets.folder import Dataset as Folder
from vidcomp.media import has_decord
from vidcomp.storage import store
from vidcomp.types import Grid

BARE = Limit("<=", 1.1)
SCALING = Limit(">=", 1.7)

NUM_CLIPS = 64
CLIPS_FOR_WORKERS = 384
"""Some tenths of a second for one process, so that handing out the work is little beside it."""

_BATCH = 16
_SPINS = 4_000_000


def bench_reading(config: BenchConfig) -> Iterator[Figure]:
    """At the size of the demo and at 16 x 64 x 64."""
    small = clip_size(generator_run(config, config.generators[0]))
    for size in (small, LARGE):
        with stored(config, size, NUM_CLIPS) as folder:
            yield bare_figure(config, folder)
    with stored(config, LARGE, CLIPS_FOR_WORKERS) as folder:
        yield from worker_figures(config, folder)


@contextmanager
def stored(config: BenchConfig, size: Grid, num_clips: int) -> Generator[Folder]:
    """A folder of clips, of which none stays in memory."""
    sides = {"num_frames": size.t, "height": size.h, "width": size.w, "num_clips": num_clips}
    render = rendered(generator_run(config, config.generators[0])).model_copy(update=sides)
    with TemporaryDirectory() as place:
        store(render, Path(place), workers=1)
        yield FolderConfig(path=Path(place), cache_gb=0).build()


def bare_figure(config: BenchConfig, folder: Folder) -> Figure:
    """Whole clips, beside the fastest bare decoder."""
    rows = torch.arange(len(folder))
    paths = [folder.files.root / path for path in folder.table.paths]

    def loop(read: Callable[[Path], UInt8[np.ndarray, "t h w 3"]]) -> Job:
        return lambda: torch.from_numpy(np.stack([read(path) for path in paths]))

    bare = {"pyav": _bare_pyav} | ({"decord": _bare_decord} if has_decord() else {})
    jobs = [lambda: folder.clips(rows), *(loop(read) for read in bare.values())]
    reading, *others = in_turn(config, jobs)
    by_name = dict(zip(bare, others, strict=True))
    fastest = min(by_name, key=lambda name: float(np.median(by_name[name])))
    seconds = Spread.of(reading)
    return Figure(
        f"read {folder.num_frames}x{folder.height}x{folder.width} clips",
        seconds,
        rate=len(rows) / seconds.median,
        unit="clips/s",
        ratio=Spread.of(reading / by_name[fastest]),
        reference=f"x a bare {fastest} loop",
        limit=BARE,
        note=", ".join(
            f"bare {name} {len(rows) / np.median(times):.0f} clips/s"
            for name, times in by_name.items()
        ),
    )


def worker_figures(config: BenchConfig, folder: Folder) -> Iterator[Figure]:
    """Two workers of a DataLoader beside one, and two plain processes beside one."""
    rows = torch.arange(len(folder))
    # A pool of two might give both halves to one of them.
    with _process() as first, _process() as second:
        pools = (first, second)

        def cpu_s(parts: int) -> float:
            """Of the busiest process."""
            shares = zip(pools, rows.chunk(parts), strict=False)
            asked = [pool.submit(_read, folder, share) for pool, share in shares]
            return max(reading.result() for reading in asked)

        def spin(parts: int) -> None:
            for spinning in [pool.submit(_spin, _SPINS // parts) for pool in pools[:parts]]:
                spinning.result()

        loaders = [_epoch(folder, rows, workers) for workers in (1, 2)]
        plain = [lambda: cpu_s(1), lambda: cpu_s(2)]
        times = in_turn(config, [*loaders, *plain, lambda: spin(1), lambda: spin(2)])
        by_cpu = cpu_s(1) / cpu_s(2)
    ratios = [Spread.of(one / two) for one, two in zip(times[::2], times[1::2], strict=True)]
    around = f"two loops that read nothing: {ratios[2]}; load average {os.getloadavg()[0]:.2f}"
    for name, seconds, ratio, note in (
        ("two DataLoader workers", times[1], ratios[0], around),
        ("two plain processes", times[3], ratios[1], f"by CPU time {by_cpu:.2f}; {around}"),
    ):
        yield Figure(
            f"read {folder.num_frames}x{folder.height}x{folder.width}, {name}",
            Spread.of(seconds),
            rate=len(rows) / Spread.of(seconds).median,
            unit="clips/s",
            ratio=ratio,
            reference="x as fast as one",
            limit=SCALING,
            note=note,
        )


def _process() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,))


class _Batches(data.Dataset[Tensor]):
    """Batch `i` of the clips `rows`, as training asks for them."""

    def __init__(self, folder: Folder, rows: Int64[Tensor, " n"]) -> None:
        self.folder = folder
        self.batches = rows.split(_BATCH)

    def __getitem__(self, i: int) -> Tensor:
        return self.folder.clips(self.batches[i]).frames


def _epoch(folder: Folder, rows: Int64[Tensor, " n"], workers: int) -> Job:
    batches = _Batches(folder, rows)
    loader = data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(len(batches.batches)),
        num_workers=workers,
        persistent_workers=True,
    )
    return lambda: sum(len(frames) for frames in loader)


def _read(folder: Folder, rows: Int64[Tensor, " n"]) -> float:
    """In a process of its own, where the frames stay. Returns its CPU seconds."""
    began = time.process_time()
    for part in rows.split(_BATCH):
        folder.clips(part)
    return time.process_time() - began


def _spin(turns: int) -> int:
    return sum(range(turns))


def _bare_pyav(path: Path) -> UInt8[np.ndarray, "t h w 3"]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return np.stack([f.to_ndarray(format="rgb24", threads=1) for f in container.decode(stream)])


def _bare_decord(path: Path) -> UInt8[np.ndarray, "t h w 3"]:
    import decord  # pyright: ignore[reportMissingImports]: no wheel on every platform

    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()
