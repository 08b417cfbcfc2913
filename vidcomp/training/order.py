"""The order of the data: which clips make up a step, and with which random streams.

Step s sees items s * B to (s + 1) * B of the endless stream of shuffled clips, B being the global
batch; micro-batches and processes share those out in order. Item i draws from the stream of (seed,
i) alone. So neither a resume, nor the number of processes, nor the accumulation changes what is
seen or drawn.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidcomp.config import UserError
from vidcomp.runs import TrainConfig
from vidcomp.seeding import Rng, stream_indices


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
    loader = DataLoader(
        _Order(source, config, accelerator, seed),
        batch_size=None,
        sampler=range(first_step * config.accumulate, config.steps * config.accumulate),
        num_workers=config.num_workers,
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        batch, items = made
        rng = Rng.make(seed, "train", items.to(accelerator.device))
        yield batch.to(accelerator.device), rng


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
