"""The order of the data depends on the seed and the position alone."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from tiny import TRAIN
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Portion
from vidcomp.runs import TrainConfig
from vidcomp.seeding import Rng, stream_indices
from vidcomp.training.order import clips_of, mean_over, micro_batches, portions_of, take_turns

NUM_CLIPS = 20


class Rank(Accelerator):
    """Process `rank` of `size` processes, without any."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    process_index = property(lambda self: self.rank)
    num_processes = property(lambda self: self.size)
    device = property(lambda self: torch.device("cpu"))


@dataclass(frozen=True)
class Asked:
    """What a source was asked for."""

    clips: Tensor
    crops: Tensor

    def to(self, device: torch.device) -> "Asked":
        return self


class Numbers:
    def __init__(self, *portions: Portion) -> None:
        self.portions = portions

    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> Asked:
        return Asked(clips, rng.uniform())


ONE = (Portion(torch.arange(NUM_CLIPS), 1.0, 9),)
"""What a dataset that is no mixture consists of."""

MIXED = (
    Portion(torch.arange(0, 30), 0.2, 1),
    Portion(torch.arange(30, 40), 0.4, 9),
    Portion(torch.arange(40, 45), 0.3, 1),
    Portion(torch.arange(45, 100), 0.1, 9),
)


def seen(
    rank: int,
    size: int,
    *,
    portions: tuple[Portion, ...] = ONE,
    first_step: int = 0,
    seed: int = 0,
    **train: Any,
):
    """By micro-batch: the clips, and a draw for each."""
    config = TrainConfig.model_validate(TRAIN | {"steps": 10, "batch_size": 12} | train)
    source, process = Numbers(*portions), Rank(rank, size)
    made = micro_batches(source, config, process, seed=seed, first_step=first_step)
    return [(asked.clips, rng.uniform() + asked.crops) for asked, rng in made]


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([clips for clips, _ in parts]), torch.cat([draws for _, draws in parts])


EITHER = pytest.mark.parametrize("portions", [ONE, MIXED], ids=["one", "mixed"])


@EITHER
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_processes_and_micro_batches_share_out_the_same_stream(
    size: int, accumulate: int, portions: tuple[Portion, ...]
) -> None:
    ranks = [seen(rank, size, portions=portions, accumulate=accumulate) for rank in range(size)]
    in_turn = [part for parts in zip(*ranks, strict=True) for part in parts]
    clips, draws = joined(in_turn)
    once_clips, once_draws = joined(seen(0, 1, portions=portions))
    assert torch.equal(clips, once_clips) and torch.equal(draws, once_draws)


def test_loader_workers_draw_what_the_process_itself_draws() -> None:
    ours, theirs = (joined(seen(0, 1, portions=MIXED, num_workers=n)) for n in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@EITHER
def test_any_step_can_come_first(portions: tuple[Portion, ...]) -> None:
    later = joined(seen(0, 1, portions=portions, first_step=4))
    whole = joined(seen(0, 1, portions=portions))
    assert all(torch.equal(a, b[48:]) for a, b in zip(later, whole, strict=True))


def test_every_clip_comes_once_an_epoch_each_time_with_other_draws() -> None:
    clips, draws = joined(seen(0, 1))
    epochs = clips.split(NUM_CLIPS)
    assert all(sorted(epoch.tolist()) == list(range(NUM_CLIPS)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert draws.unique().numel() == draws.numel()


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(joined(seen(0, 1))[0], joined(seen(0, 1, seed=1))[0])


def test_one_portion_is_the_plain_stream() -> None:
    """As it was before there were portions: old runs go on as they began."""
    clips, _ = joined(seen(0, 1, seed=5))
    assert torch.equal(clips, stream_indices(5, NUM_CLIPS, 0, len(clips)))


def test_a_step_has_one_length_and_each_portion_its_weight() -> None:
    """Exactly: no stretch of steps differs from the weights by more than a step for each choice."""
    num_steps, batch_size = 1000, 8
    items = torch.arange(num_steps * batch_size).split(batch_size)
    steps = torch.stack([clips_of(MIXED, i, seed=1, batch_size=batch_size) for i in items])
    portion = torch.searchsorted(torch.tensor([30, 40, 45, 100]), steps, right=True)
    length = torch.tensor([portion.num_frames for portion in MIXED])[portion]
    assert (length == length[:, :1]).all()
    is_image = (length[:, 0] == 1).double()
    for stretch in (is_image, is_image[:100], is_image[417:477]):
        assert abs(float(stretch.sum()) - 0.5 * len(stretch)) <= 1
    for frames, share in ((1, {0: 0.4, 2: 0.6}), (9, {1: 0.8, 3: 0.2})):
        of_length = portion[length[:, 0] == frames].flatten()
        for k, weight in share.items():
            assert abs(int((of_length == k).sum()) - weight * len(of_length)) <= 1


def test_each_portion_is_seen_whole_before_any_clip_comes_again() -> None:
    items = torch.arange(8 * 400).split(8)
    clips = torch.cat([clips_of(MIXED, i, seed=2, batch_size=8) for i in items])
    for portion in MIXED:
        mine = clips[torch.isin(clips, portion.rows)]
        size = len(portion.rows)
        epochs = mine[: len(mine) // size * size].reshape(-1, size)
        assert len(epochs) > 1
        assert (epochs.sort().values == portion.rows).all()
        assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("weights", [(1.0,), (0.3, 0.7), (5.0, 1e-3, 2.0), (1.0, 1.0, 1.0, 4.0)])
def test_turns_are_counted_right(weights: tuple[float, ...]) -> None:
    """`before` is what counting from the start would give, at any place; and far out too."""
    turns = take_turns(weights, torch.arange(3000), seed=0, name="x")
    for k in range(len(weights)):
        assert torch.equal(turns.before[turns.taker == k], torch.arange((turns.taker == k).sum()))
    part = take_turns(weights, torch.arange(1000, 1003), seed=0, name="x")
    assert torch.equal(part.taker, turns.taker[1000:1003])
    far = take_turns(weights, 2**38 + torch.arange(2000), seed=0, name="x")
    share = max(weights) / sum(weights)
    assert abs(int((far.taker == weights.index(max(weights))).sum()) - share * 2000) <= 3


def test_over_seeds_each_place_is_drawn_by_weight() -> None:
    takers = torch.stack(
        [take_turns((0.2, 0.5, 0.3), torch.arange(4), seed=s, name="x").taker for s in range(2000)]
    )
    expected = torch.tensor([0.2, 0.5, 0.3]) * 2000
    for place in takers.T:
        counts = place.bincount(minlength=3)
        assert ((counts - expected).square() / expected).sum() < 16  # chi-square, 2 degrees: 3e-4


def test_portions_in_the_numbers_of_a_run() -> None:
    dataset = build_mixture()
    rows = torch.tensor([1, 4, 5, 9])
    images, clips = portions_of(dataset, rows)
    assert images.rows.tolist() == [0, 1] and clips.rows.tolist() == [2, 3]
    assert (images.num_frames, clips.num_frames) == (1, 3)
    assert mean_over((images, clips), float) == pytest.approx(0.25 * 1 + 0.75 * 3)
    with pytest.raises(UserError, match="of 5 clips of 3 frames, has none left to train on"):
        portions_of(dataset, torch.tensor([1, 4]))


def build_mixture():
    sprites = {"name": "sprites", "num_clips": 5, "factors": {"shape": ["circle"]}}
    parts = [
        {"dataset": sprites | {"num_frames": 1}, "weight": 1},
        {"dataset": sprites | {"num_frames": 3}, "weight": 3},
    ]
    return DATASETS.config({"name": "mixture", "parts": parts}).build()
