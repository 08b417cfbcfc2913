"""Batches out of kept latents: from the disk (``train.cache=latents``) beside from memory."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor

from vidcomp.bench.measure import BenchConfig, Figure, Job, Limit, Spread, in_turn
from vidcomp.bench.runs import clip_size, factors_of, random_latents, tokenizer_run
from vidcomp.datasets.base import Portion
from vidcomp.runs import TokenizerRun
from vidcomp.seeding import Rng
from vidcomp.training.latents import Kept, KeptClips, LatentCache, in_memory, on_disk, shard_plan

MEMORY = Limit("<=", 1.1)

NUM_CLIPS = 4000
NUM_BATCHES = 200


def bench_caches(config: BenchConfig) -> Iterator[Figure]:
    """Of the latents of every tokenizer."""
    for path in config.tokenizers:
        yield _figure(config, tokenizer_run(path))


def _figure(config: BenchConfig, run: TokenizerRun) -> Figure:
    tokenizer, factors, size = run.tokenizer.build(), factors_of(run), clip_size(run)
    plan = shard_plan([Portion(torch.arange(NUM_CLIPS), 1.0, size.t)])

    def encode(clips: Int64[Tensor, " b"]) -> KeptClips:
        latents = random_latents(tokenizer.spec, tokenizer.spec.grid(*size), len(clips))
        classes = factors.combinations()[clips % factors.num_combinations]
        return KeptClips(Kept.of(latents, tokenizer.spec), classes, factors.prototypes(classes))

    batch = run.train.batch_size
    drawn = Rng.make(0, "bench", torch.arange(NUM_BATCHES)).integers(NUM_CLIPS, batch)

    def batches(cache: LatentCache) -> Job:
        def draw() -> None:
            for clips in drawn:
                cache[clips].kept.latents(tokenizer)

        return draw

    with TemporaryDirectory() as folder:
        accelerator = Accelerator(cpu=config.device == "cpu")
        with contextlib.redirect_stdout(io.StringIO()):  # it says where they lie
            disk = on_disk(Path(folder), plan, encode, accelerator)
        memory = in_memory(plan, encode)
        from_disk, from_memory = in_turn(config, [batches(disk), batches(memory)])
    seconds = Spread.of(from_disk / NUM_BATCHES)
    return Figure(
        f"latents of {run.name} from the disk",
        seconds,
        rate=1 / seconds.median,
        unit="batches/s",
        ratio=Spread.of(from_disk / from_memory),
        reference="x the time from memory",
        limit=MEMORY,
        note=f"batch {batch}",
    )
