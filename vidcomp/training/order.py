"""The order of the data: which clips make up a step, and with which random streams.

Step s sees items s * B to (s + 1) * B, B being the global batch; micro-batches and processes share
those out in order. Item i draws from the stream of (seed, i) alone. So neither a resume, nor the
number of processes, nor the accumulation changes what is seen or drawn.

Of one portion, those items are the endless stream of its shuffled clips. Of several (see
`Dataset.portions`), each step belongs to one length and each item of it to one portion of that
length, by weight; each portion has its own endless stream.

Unusual: turns are not drawn but taken evenly, each with its share of every stretch of the queue,
from a phase that is drawn once. So a short run keeps the weights as well as a long one, and how
often a portion had its turn before any step is a formula: nothing is counted, nothing is stored.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base import Portion
from vidcomp.runs import TrainConfig
from vidcomp.seeding import Rng, stream_indices

_WHOLE = 1 << 24
"""Shares are integers of this: a place in the queue may be up to 2^39."""


@runtime_checkable
class Source(Protocol):
    """What batches are taken from. The rows of `portions` are the numbers that `batch` takes."""

    portions: tuple[Portion, ...]

    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> Any: ...


def portions_of(dataset: base.Dataset, rows: Int64[Tensor, " n"]) -> tuple[Portion, ...]:
    """The portions of the clips `rows`, in numbers of `rows`. Raises UserError if one is empty."""
    number = torch.full((len(dataset),), -1)
    number[rows] = torch.arange(len(rows))
    portions: list[Portion] = []
    for portion in dataset.portions():
        numbers = number[portion.rows]
        portions.append(portion._replace(rows=numbers[numbers >= 0]))
        if not len(portions[-1].rows):
            raise UserError(
                f"a part of the mixture, of {len(portion.rows)} clips of {portion.num_frames} "
                "frames, has none left to train on: they are held out or kept for scoring; drop "
                "that part, or give it more clips"
            )
    return tuple(portions)


def mean_over(portions: Sequence[Portion], of_length: Callable[[int], float]) -> float:
    """The mean over what training draws of something that a clip's length decides."""
    whole = sum(portion.weight for portion in portions)
    return sum(p.weight / whole * of_length(p.num_frames) for p in portions)


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
        items = items.to(accelerator.device)
        shared = Rng.make(seed, "train batch", items // config.batch_size)
        rng = Rng.make(seed, "train", items).sharing(shared)
        yield batch.to(accelerator.device), rng


class _Order(Dataset[Any]):
    """Micro-batch `i` of this process, a pure function of `i`: any loader worker can make it."""

    def __init__(
        self, source: Source, config: TrainConfig, accelerator: Accelerator, seed: int
    ) -> None:
        self.source = source
        self.seed = seed
        self.batch_size = config.batch_size
        self.size = config.batch_size // (accelerator.num_processes * config.accumulate)
        self.rank, self.num_processes = accelerator.process_index, accelerator.num_processes

    def __getitem__(self, i: int) -> "tuple[Any, Tensor] | UserError":
        # A mistake is handed over: raised in a worker, it would arrive wrapped in a traceback.
        start = (i * self.num_processes + self.rank) * self.size
        items = torch.arange(start, start + self.size)
        clips = clips_of(self.source.portions, items, seed=self.seed, batch_size=self.batch_size)
        try:
            return self.source.batch(clips, Rng.make(self.seed, "draw", items)), items
        except UserError as error:
            return error


def clips_of(
    portions: Sequence[Portion], items: Int64[Tensor, " b"], *, seed: int, batch_size: int
) -> Int64[Tensor, " b"]:
    """The clips that some neighbouring items of one step are: all of one length."""
    step, first = divmod(int(items[0]), batch_size)
    buckets = by_length(portions)
    weights = [sum(portions[k].weight for k in bucket) for bucket in buckets]
    step_turn = take_turns(weights, torch.tensor([step]), seed=seed, name="length")

    bucket = buckets[int(step_turn.taker)]
    places = int(step_turn.before) * batch_size + first + torch.arange(len(items))
    turns = take_turns([portions[k].weight for k in bucket], places, seed=seed, name="portion")
    clips = torch.empty_like(items)
    for j, k in enumerate(bucket):
        mine, rows = turns.taker == j, portions[k].rows
        if mine.any():
            start, count = int(turns.before[mine][0]), int(mine.sum())
            # Another seed for each: portions of one size would be shuffled alike.
            clips[mine] = rows[stream_indices(seed + k, len(rows), start, count)]
    return clips


def by_length(portions: Sequence[Portion]) -> list[list[int]]:
    """The numbers of the portions of each length, the shortest first."""
    lengths = sorted({portion.num_frames for portion in portions})
    return [[k for k, p in enumerate(portions) if p.num_frames == length] for length in lengths]


class Turns(NamedTuple):
    """Who takes each place of a queue, and how many places before it were taken by the same."""

    taker: Int64[Tensor, " n"]
    before: Int64[Tensor, " n"]


def take_turns(
    weights: Sequence[float], places: Int64[Tensor, " n"], *, seed: int, name: str
) -> Turns:
    """The first one takes floor(n * share + phase) of the first n places, evenly spread; of the
    places that it leaves, the second one takes its share, and so on.

    Over seeds, each place goes to each taker with the probability of its share.
    """
    phases = (Rng.make(seed, name, torch.arange(len(weights))).uniform() * _WHOLE).long()
    taker, before = torch.zeros_like(places), places
    waiting = torch.ones_like(places, dtype=torch.bool)
    for k, weight in enumerate(weights):
        share = round(_WHOLE * weight / sum(weights[k:]))
        taken = (before * share + phases[k]) >> 24
        takes = waiting & ((((before + 1) * share + phases[k]) >> 24) > taken)
        taker[takes] = k
        before = torch.where(takes, taken, torch.where(waiting, before - taken, before))
        waiting &= ~takes
    return Turns(taker, before)
