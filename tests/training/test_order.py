"""The order of the data depends on the seed and the position alone."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from tiny import TRAIN
from torch import Tensor

from vidcomp.runs import TrainConfig
from vidcomp.training.order import micro_batches

NUM_CLIPS = 20


class Rank(Accelerator):
    """Process `rank` of `size` processes, without any."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    process_index = property(lambda self: self.rank)
    num_processes = property(lambda self: self.size)
    device = property(lambda self: torch.device("cpu"))


class Numbers:
    num_clips = NUM_CLIPS

    def batch(self, clips: Int64[Tensor, " b"]) -> Tensor:
        return clips


def seen(rank: int, size: int, *, first_step: int = 0, seed: int = 0, **train: Any):
    """By micro-batch: the clips, and a draw for each."""
    config = TrainConfig.model_validate(TRAIN | {"steps": 10, "batch_size": 12} | train)
    made = micro_batches(Numbers(), config, Rank(rank, size), seed=seed, first_step=first_step)
    return [(clips, rng.uniform()) for clips, rng in made]


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([clips for clips, _ in parts]), torch.cat([draws for _, draws in parts])


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_processes_and_micro_batches_share_out_the_same_stream(size: int, accumulate: int) -> None:
    ranks = [seen(rank, size, accumulate=accumulate) for rank in range(size)]
    in_turn = [part for parts in zip(*ranks, strict=True) for part in parts]
    clips, draws = joined(in_turn)
    once_clips, once_draws = joined(seen(0, 1))
    assert torch.equal(clips, once_clips) and torch.equal(draws, once_draws)


def test_any_step_can_come_first() -> None:
    later = joined(seen(0, 1, first_step=4))
    whole = joined(seen(0, 1))
    assert all(torch.equal(a, b[48:]) for a, b in zip(later, whole, strict=True))


def test_every_clip_comes_once_an_epoch_each_time_with_other_draws() -> None:
    clips, draws = joined(seen(0, 1))
    epochs = clips.split(NUM_CLIPS)
    assert all(sorted(epoch.tolist()) == list(range(NUM_CLIPS)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert draws.unique().numel() == draws.numel()


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(joined(seen(0, 1))[0], joined(seen(0, 1, seed=1))[0])
