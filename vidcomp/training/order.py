"""The order of the data: which clips make up a step, and with which random streams.

Step s sees items s * B to (s + 1) * B of the endless stream of shuffled clips, B being the global
batch; micro-batches and processes share those out in order. Item i draws from the stream of (seed,
i) alone. So neither a resume, nor the number of processes, nor the accumulation changes what is
seen or drawn.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidcomp.config import UserError
from vidcomp.runs import TrainConfig
from vidcomp.seeding import Rng, stream_indices

_AHEAD = 4
"""Batches that are made before they are needed."""


@runtime_checkable
class Source(Protocol):
    """What batches are taken from."""

    num_clips: int

    def batch(self, clips: Int64[Tensor, " b"]) -> Any: ...


def micro_batches(
    source: Source,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    seed: int,
    first_step: int,
) -> Iterator[tuple[Any, Rng]]:
    """Batches and their random streams from step `first_step` on, on this process's device."""
    order = _Order(source, config, accelerator, seed)
    todo = range(first_step * config.accumulate, config.steps * config.accumulate)
    if config.num_workers:
        loader = DataLoader(order, batch_size=None, sampler=todo, num_workers=config.num_workers)
    else:
        loader = _made_ahead(order, todo)
    for made in loader:
        if isinstance(made, UserError):
            raise made
        batch, items = made
        rng = Rng.make(seed, "train", items.to(accelerator.device))
        yield batch.to(accelerator.device), rng


def _made_ahead(order: "_Order", todo: range) -> Iterator[Any]:
    """The items of `order`, the next ones made in a thread while the step runs.

    Decoders let go of the interpreter's lock, and nothing is copied between processes: for clips
    that stay in memory after their first decoding this waits less than a loader's worker does.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = deque(thread.submit(order.__getitem__, i) for i in todo[:_AHEAD])
        for i in range(todo.start + _AHEAD, todo.stop + _AHEAD):
            made = coming.popleft().result()
            if i < todo.stop:
                coming.append(thread.submit(order.__getitem__, i))
            yield made


class _Order(Dataset[Any]):
    """Micro-batch `i` of this process, a pure function of `i`: any loader worker can make it."""

    def __init__(
        self, source: Source, config: TrainConfig, accelerator: Accelerator, seed: int
    ) -> None:
        self.source = source
        self.seed = seed
        self.size = config.batch_size // (accelerator.num_processes * config.accumulate)
        self.rank, self.num_processes = accelerator.process_index, accelerator.num_processes

    def __getitem__(self, i: int) -> "tuple[Any, Tensor] | UserError":
        # A mistake is handed over: raised in a worker, it would arrive wrapped in a traceback.
        start = (i * self.num_processes + self.rank) * self.size
        clips = stream_indices(self.seed, self.source.num_clips, start, self.size)
        try:
            return self.source.batch(clips), torch.arange(start, start + self.size)
        except UserError as error:
            return error
