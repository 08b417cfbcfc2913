"""Whole training steps (corrupt, forward, backward, clip, AdamW, averages) beside matrix products.

A step's rate is its floating-point operations over its time; the product of two 1024 x 1024
matrices in the same precision is what the machine can do at that moment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidcomp.bench.measure import BenchConfig, Figure, Job, Spread, in_turn
from vidcomp.bench.runs import (
    clip_size,
    factors_of,
    objective_runs,
    random_condition,
    random_latents,
    tokenizer_of,
    tokenizer_run,
)
from vidcomp.models.generator import Generator
from vidcomp.nn.windows import num_products
from vidcomp.runs import GeneratorRun, TokenizerRun
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.training.state import Ema
from vidcomp.training.trainer import parameter_groups
from vidcomp.types import Grid, Losses, num_parameters

SIDE = 1024


@dataclass(frozen=True)
class Step:
    """A training step that can be taken again and again, on one batch.

    `uncounted_flops`: what torch's counter takes for 0.
    """

    name: str
    model: Generator | Tokenizer
    batch: int
    losses: Callable[[Rng], Losses]
    uncounted_flops: int = 0

    def job(self, config: BenchConfig) -> Job:
        """Take it, with an optimiser and averages of its own."""
        optimizer = torch.optim.AdamW(parameter_groups(self.model, 0.03), lr=1e-4, fused=True)
        ema = Ema(self.model, 0.99)
        rng = Rng.make(0, "bench", torch.arange(self.batch, device=config.device))

        def take() -> None:
            with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
                total = self.losses(rng).total().mean()
            total.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            if isinstance(self.model, Generator):
                self.model.after_step()
            ema.update(self.model, 1)
            optimizer.zero_grad()

        return take


def bench_generators(config: BenchConfig) -> Iterator[Figure]:
    """Steps on random latents, of every objective."""
    for run in objective_runs(config):
        yield _figure(config, generator_step(config, run, clip_size(run)))


def bench_tokenizers(config: BenchConfig) -> Iterator[Figure]:
    """Steps on random pixels."""
    for path in config.tokenizers:
        run = tokenizer_run(path)
        yield _figure(config, tokenizer_step(config, run, clip_size(run)))


def generator_step(config: BenchConfig, run: GeneratorRun, size: Grid) -> Step:
    """A step on clips of `size`."""
    tokenizer, factors, batch = tokenizer_of(run), factors_of(run), run.train.batch_size
    grid = tokenizer.spec.grid(*size)
    generator = run.generator.build(tokenizer.spec, factors)
    generator.objective.learn_codes(tokenizer.lookup)
    generator.to(config.device)
    latents = random_latents(tokenizer.spec, grid, batch).to(config.device)
    condition = random_condition(factors, batch).to(config.device)
    return Step(
        run.name,
        generator,
        batch,
        lambda rng: generator(latents, condition, rng),
        uncounted_flops(config, run, grid),
    )


def tokenizer_step(config: BenchConfig, run: TokenizerRun, size: Grid) -> Step:
    """A step on clips of `size`."""
    batch = run.train.batch_size
    tokenizer = run.tokenizer.build().to(config.device)
    video = torch.rand(batch, 3, *size, device=config.device) * 2 - 1
    return Step(run.name, tokenizer, batch, lambda rng: tokenizer.loss(video, rng))


def uncounted_flops(config: BenchConfig, run: GeneratorRun, grid: Grid) -> int:
    """Of attention through SDPA on a CPU, which torch's counter takes for 0; it runs in fp32 only.

    4 c for each product of a query with a key forward, twice that backward; JEPA's target is one
    forward more.
    """
    if config.device != "cpu" or config.precision != "fp32":
        return 0
    backbone = run.generator.backbone
    _, width, _ = backbone.dimensions
    parts = {grid: 1}
    if backbone.attention == "factorised":
        parts = {Grid(1, grid.h, grid.w): grid.t, Grid(grid.t, 1, 1): grid.h * grid.w}
    pairs = sum(
        times * num_products(part, window and window.on(part))
        for window in backbone.windows(grid, torch.zeros(1))
        for part, times in parts.items()
    )
    passes = 4 if run.generator.jepa else 3
    return passes * 4 * width * pairs * run.train.batch_size


def matrix_product(config: BenchConfig) -> Job:
    """In the precision of the steps."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    a, b = (torch.randn(SIDE, SIDE, dtype=dtype, device=config.device) for _ in range(2))
    return lambda: a @ b


def _figure(config: BenchConfig, step: Step) -> Figure:
    job = step.job(config)
    with FlopCounterMode(display=False) as counter:
        job()
    flops = counter.get_total_flops() + step.uncounted_flops
    times, products = in_turn(config, [job, matrix_product(config)])
    seconds = Spread.of(times)
    return Figure(
        f"train {step.name}",
        seconds,
        rate=flops / seconds.median / 1e9,
        unit="GFLOP/s",
        ratio=Spread.of(flops / times / (2 * SIDE**3 / products)),
        reference="of a matrix product's rate",
        note=f"{num_parameters(step.model):,} parameters, batch {step.batch}, "
        f"{config.precision} on {config.device}",
    )
