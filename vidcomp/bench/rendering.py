"""Rendering: sprites beside the training step that consumes them, other worlds beside sprites.

Rendering draws on `device`, as the step does. It may take 5 % of the time of a generator's step. A
tokenizer's, which is many times shorter, is shown beside it.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch

from vidcomp.bench.measure import BenchConfig, Figure, Job, Limit, Spread, in_turn
from vidcomp.bench.runs import clip_size, generator_run, legal_size, tokenizer_of, tokenizer_run
from vidcomp.bench.steps import generator_step, tokenizer_step
from vidcomp.datasets import base
from vidcomp.datasets.base import DataRoot
from vidcomp.runs import Run, TokenizerRun
from vidcomp.types import Grid

LARGE = Grid(16, 64, 64)

SHARE = Limit("<=", 0.05)

CLIPS_PER_WORLD = 4
"""A second of ray casting. Sprites draw about as many at a time, whatever the batch."""


class World(NamedTuple):
    """A shipped config, with what is changed of it beside the size."""

    name: str
    path: str
    overrides: tuple[str, ...] = ()


WORLDS = (
    World("sprites", "configs/data/motion.yaml"),
    World("events", "configs/data/events.yaml"),
    World("counting, 10 objects", "configs/data/counting_clips.yaml", ("counts=[10]",)),
    World("clevr, 1 object", "configs/data/clevr3d.yaml", ("num_objects=[1,1]",)),
    World("clevr, 5 objects", "configs/data/clevr3d.yaml", ("num_objects=[5,5]",)),
    World("room, 1 object", "configs/data/room3d.yaml"),
)


def bench_rendering(config: BenchConfig) -> Iterator[Figure]:
    """At the size of the demo and at `LARGE`, in the precision of the demo."""
    generator = generator_run(config, config.generators[0])
    tokenizer = tokenizer_run(config.tokenizers[0])
    for size in (clip_size(generator), LARGE):
        for run in (generator, tokenizer):
            yield step_share(config, run, size)
    yield from bench_worlds(config, LARGE)


def bench_worlds(config: BenchConfig, size: Grid) -> list[Figure]:
    """Clips of `size` of every world, beside sprites."""
    jobs = [rendering(config, dataset_of(world, size), CLIPS_PER_WORLD) for world in WORLDS]
    times = in_turn(config, jobs)
    return [
        Figure(
            f"render {world.name}, {_name_of(size)}",
            Spread.of(seconds),
            rate=CLIPS_PER_WORLD / Spread.of(seconds).median,
            unit="clips/s",
            ratio=Spread.of(seconds / times[0]),
            reference="x the time of sprites",
        )
        for world, seconds in zip(WORLDS, times, strict=True)
    ]


def dataset_of(world: World, size: Grid) -> base.Dataset:
    """A world at another size than its config's own."""
    raw = DataRoot.load(world.path).data
    part = "dataset" if raw.render is None else "render"
    changed = (*world.overrides, *(f"{k}={v}" for k, v in _sides(size).items()))
    data = DataRoot.load(world.path, [f"data.{part}.{change}" for change in changed]).data
    return (data.render or data.dataset).build()


def rendering(config: BenchConfig, dataset: base.Dataset, num_clips: int) -> Job:
    """Draw the first clips on the device of the step."""
    rows = torch.arange(num_clips, device=config.device)
    # Datasets draw where torch makes its tensors. On a CPU that goes without saying, and faster.
    where = contextlib.nullcontext() if config.device == "cpu" else torch.device(config.device)

    def draw() -> None:
        with where:
            dataset.clips(rows)

    return draw


def step_share(config: BenchConfig, run: Run, size: Grid) -> Figure:
    """Of a step's time, what its clips take to draw. The step gets clips of the nearest legal
    length below theirs."""
    precision = "bf16" if run.train.mixed_precision == "bf16" else "fp32"
    config = config.model_copy(update={"precision": precision})
    assert run.data.render is not None
    dataset = run.data.render.model_copy(update=_sides(size)).build()
    if isinstance(run, TokenizerRun):
        step_size = legal_size(run.tokenizer.build().spec, size)
        step = tokenizer_step(config, run, step_size)
    else:
        step_size = legal_size(tokenizer_of(run).spec, size)
        step = generator_step(config, run, step_size)
    draw = rendering(config, dataset, step.batch)
    drawing, stepping = in_turn(config, [draw, step.job(config)])
    seconds = Spread.of(drawing)
    return Figure(
        f"render {_name_of(size)} for a step of {run.name}",
        seconds,
        rate=step.batch / seconds.median,
        unit="clips/s",
        ratio=Spread.of(drawing / stepping),
        reference="of the step",
        limit=None if isinstance(run, TokenizerRun) else SHARE,
        note=f"batch {step.batch}, {precision} on {config.device}, the step takes "
        f"{1e3 * Spread.of(stepping).median:.0f} ms of {step_size.t} frames",
    )


def _sides(size: Grid) -> dict[str, int]:
    return {"num_frames": size.t, "height": size.h, "width": size.w}


def _name_of(size: Grid) -> str:
    return "x".join(map(str, size))
