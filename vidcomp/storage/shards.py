"""Shards: runs of consecutive clips, each in a folder of its own, so that no folder grows large.

    clips/0000/   000000.mp4   000000.truth.safetensors   000001.mp4   ...   SHA256SUMS

A shard is one worker's task, and what is checked as a whole: ``SHA256SUMS``, written when its last
clip is there, lists its files as ``sha256sum -c`` reads them, and the manifest has that list's own
checksum.

Unusual: a batch of which some clips are there is drawn again as a whole, and on one thread. A clip
is the same in any batch to the eye, but a vectorised sine may round the last elements of a tensor
otherwise than the others, and files are to be the same to the last bit whoever drew them when.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Generator, Iterable
from pathlib import Path

import torch

from vidcomp.datasets.base import Config, Dataset
from vidcomp.media import write_bytes, write_video
from vidcomp.world.truth import truth_path, write_truth

CLIPS = "clips"

SHARD = 256
"""Clips of a shard: with their truth some 500 files in a folder."""

BATCH = 64
"""Clips that are drawn at a time."""

SUMS = "SHA256SUMS"


def shard_path(shard: int) -> str:
    return f"{CLIPS}/{shard:04d}"


def clip_path(index: int) -> str:
    """Where clip `index` lies in the dataset's folder."""
    return f"{shard_path(index // SHARD)}/{index:06d}.mp4"


def shard_clips(shard: int, num_clips: int) -> range:
    """The indices of a shard's clips."""
    return range(shard * SHARD, min((shard + 1) * SHARD, num_clips))


def num_shards(num_clips: int) -> int:
    return -(-num_clips // SHARD)


def missing(folder: Path, indices: Iterable[int]) -> list[int]:
    """Which of these clips are not there."""
    return [i for i in indices if not (folder / clip_path(i)).exists()]


def unfinished(folder: Path, num_clips: int) -> list[int]:
    """The shards of which a clip or the list of checksums is missing."""
    return [
        shard
        for shard in range(num_shards(num_clips))
        if not (folder / shard_path(shard) / SUMS).exists()
        or missing(folder, shard_clips(shard, num_clips))
    ]


def render_shards(config: Config, folder: Path, shards: Iterable[int]) -> Generator[int]:
    """Write what is missing of `shards`, yielding how many clips each batch has added."""
    dataset = config.build()
    with _one_thread():
        for shard in shards:
            began = time.time()
            place = folder / shard_path(shard)
            place.mkdir(parents=True, exist_ok=True)
            clips = shard_clips(shard, len(dataset))
            for start in range(clips.start, clips.stop, BATCH):
                yield _render_batch(dataset, folder, range(start, min(start + BATCH, clips.stop)))
            _remove_parts(place, before=began)
            files = [file for i in clips for file in _files_of(folder / clip_path(i))]
            lines = [f"{sha256(file)}  {file.name}\n" for file in files]
            write_bytes(place / SUMS, "".join(lines).encode())


def listed(place: Path) -> dict[str, str]:
    """The checksum of each file on a shard's list; none without a list."""
    sums = place / SUMS
    lines = sums.read_text().splitlines() if sums.is_file() else []
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _render_batch(dataset: Dataset, folder: Path, batch: range) -> int:
    absent = missing(folder, batch)
    if not absent:
        return 0
    indices = torch.tensor(batch)
    clips, truth = dataset.clips_and_truth(indices)
    for i in absent:
        row, path = i - batch.start, folder / clip_path(i)
        if truth is not None:  # first, so that a clip that is there has its truth
            write_truth(truth_path(path), truth, row)
        write_video(path, clips.frames[row], fps=dataset.fps)
    return len(absent)


def _files_of(clip: Path) -> list[Path]:
    return [file for file in (clip, truth_path(clip)) if file.exists()]


def _remove_parts(place: Path, *, before: float) -> None:
    """Remove what a killed process left half written. A file that somebody else writes just now is
    younger."""
    for part in place.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(part).st_mtime < before:
                part.unlink()


@contextlib.contextmanager
def _one_thread() -> Generator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
