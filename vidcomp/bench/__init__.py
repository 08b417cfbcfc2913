"""Speed, as ratios that carry over from machine to machine; nothing here is asserted by a test.

Each figure and what it is compared with are measured in turn within one process
(`vidcomp.bench.measure`); one file for each subject. Limits are those that the project promises:
a figure says whether it keeps to its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vidcomp.bench.caches import bench_caches
from vidcomp.bench.folder import bench_folder
from vidcomp.bench.measure import BenchConfig, Figure
from vidcomp.bench.reading import bench_reading
from vidcomp.bench.rendering import bench_rendering
from vidcomp.bench.sampling import bench_sampling
from vidcomp.bench.steps import bench_generators, bench_tokenizers
from vidcomp.bench.windows import bench_windows
from vidcomp.runs import environment, write_json
from vidcomp.training.memory import keep_freed_memory

__all__ = ["BenchConfig", "run_bench"]

Measure = Callable[[BenchConfig], Iterator[Figure]]

MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "generator": (bench_generators,),
    "sampling": (bench_sampling,),
    "tokenizer": (bench_tokenizers,),
    "data": (bench_rendering, bench_reading, bench_caches),
    "attention": (bench_windows,),
    "folder": (bench_folder,),
}


def run_bench(config: BenchConfig, kinds: Sequence[str]) -> Path:
    """Measure the `kinds`, keys of `MEASURES`, and write the figures to ``config.out``."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    figures: list[Figure] = []
    for kind in kinds:
        for measure in MEASURES[kind]:
            for figure in measure(config):
                print(figure.line(), flush=True)
                figures.append(figure)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [{**asdict(figure), "met": figure.met} for figure in figures]
    record = {"config": config.model_dump(mode="json"), "figures": lines}
    write_json(config.out, {**record, **environment()})
    return config.out
