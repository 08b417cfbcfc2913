"""The same seed is the same clip, in any company; training twice is training once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import generator_run, metrics, tokenizer_run
from torch import Tensor

from vidcomp.datasets.base import build
from vidcomp.pipeline import Pipeline, sample_clips
from vidcomp.runs import newest_checkpoint
from vidcomp.seeding import Rng
from vidcomp.training.generator_task import GeneratorTask
from vidcomp.training.tasks import train, training_rows
from vidcomp.types import frames_from_video

NUM_CLIPS = 12


def sample(
    pipeline: Pipeline, *, seed: int = 0, batch_size: int = NUM_CLIPS, rows: slice = slice(None)
) -> Tensor:
    """`NUM_CLIPS` clips of various combinations, or the clips `rows` of them."""
    assert pipeline.generator is not None
    index = torch.arange(NUM_CLIPS)[rows]
    combinations = pipeline.format.factors.combinations()
    return sample_clips(
        pipeline.generator,
        pipeline.tokenizer,
        pipeline.condition(combinations[index % len(combinations)]),
        pipeline.format.size,
        pipeline.run.sampling.model_copy(update={"batch_size": batch_size}),
        Rng.make(seed, "sample", index),
    )


def same_share(one: Tensor, other: Tensor) -> float:
    """The share of clips that look the same on an 8-bit screen, up to one step of rounding."""
    gap = (frames_from_video(one).int() - frames_from_video(other).int()).abs().amax((1, 2, 3, 4))
    return float((gap <= 1).float().mean())


@pytest.fixture(params=["maskgit", "flow"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline.load(request.getfixturevalue(request.param), device="cpu")


def test_the_same_seed_gives_the_same_bits(pipeline: Pipeline) -> None:
    first = sample(pipeline)
    torch.rand(7)  # nobody's business
    assert torch.equal(first, sample(pipeline))
    assert not torch.equal(first, sample(pipeline, seed=1))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_clip_does_not_depend_on_its_batch(pipeline: Pipeline, batch_size: int) -> None:
    """Nor on how many are asked for: only matrix products round differently at other shapes."""
    whole = sample(pipeline)
    assert same_share(whole, sample(pipeline, batch_size=batch_size)) >= 0.99
    assert same_share(whole[3:6], sample(pipeline, rows=slice(3, 6))) >= 0.99


def test_equal_batches_give_equal_bits_wherever_they_stand(pipeline: Pipeline) -> None:
    """Two processes of batch 6 draw what one process of batch 6 draws."""
    whole = sample(pipeline, batch_size=6)
    assert torch.equal(whole[6:], sample(pipeline, batch_size=6, rows=slice(6, None)))


def test_training_losses_of_a_clip_do_not_depend_on_its_batch(fsq: Path) -> None:
    for objective in ("maskgit", "flow"):
        run = generator_run(fsq, objective, jepa=True)
        dataset, split = build(run.data)
        task = GeneratorTask(run, dataset, split, training_rows(run, dataset, split), fsq)
        rng = Rng.make(0, "train", torch.arange(8))
        whole = task(task.batch(torch.arange(8), rng), rng).total()
        half = task(task.batch(torch.arange(2, 6), rng[2:6]), rng[2:6]).total()
        torch.testing.assert_close(whole[2:6], half)


def test_training_twice_is_training_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(tokenizer_run("vq", steps=3), tmp_path / name)
        torch.rand(3)
    ours, theirs = (
        load_file(newest_checkpoint(tmp_path / name) / "ema.safetensors") for name in ("one", "two")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")
    train(tokenizer_run("vq", steps=3, seed=1), tmp_path / "other")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "other")
