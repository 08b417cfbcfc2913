"""Sampling clips, to pixels, beside the trunk's bare forward passes.

What comes on top of those is the objective's and the sampler's own: MAR's head walks through its
diffusion at every step, GIVT draws and weighs candidates where there is guidance.
"""

from collections.abc import Iterator

import torch

from vidcomp.bench.measure import BenchConfig, Figure, Spread, in_turn
from vidcomp.bench.runs import (
    clip_size,
    factors_of,
    objective_runs,
    random_condition,
    tokenizer_of,
)
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import repeated
from vidcomp.models.guidance import Guidance
from vidcomp.pipeline import blank, sample_clips
from vidcomp.pipeline.sampling import default_sampler
from vidcomp.runs import GeneratorRun
from vidcomp.seeding import Rng


def bench_sampling(config: BenchConfig, *, num_clips: int = 64) -> Iterator[Figure]:
    """Of every objective, guided as its config says, with its default sampler. JEPA is no part of
    sampling."""
    for run in objective_runs(config):
        if run.generator.jepa is None:
            yield _figure(config, run, num_clips)


def _figure(config: BenchConfig, run: GeneratorRun, num_clips: int) -> Figure:
    tokenizer, factors, size = tokenizer_of(run), factors_of(run), clip_size(run)
    generator = run.generator.build(tokenizer.spec, factors).eval()
    generator.objective.learn_codes(tokenizer.lookup)
    generator.to(config.device)
    tokenizer.to(config.device)
    sampler = default_sampler(generator.objective.schedule)
    sampling = run.sampling.model_copy(update={"sampler": sampler, "batch_size": num_clips})
    condition = random_condition(factors, num_clips).to(config.device)
    rng = Rng.make(0, "bench", torch.arange(num_clips))

    # What the trunk is asked at each step.
    unknown = blank(
        tokenizer.spec, tokenizer.spec.grid(*size), num_clips, torch.device(config.device)
    )
    nothing_given = condition.given_positions(unknown.grid)
    start = generator.objective.start(unknown, nothing_given, Rng(rng.keys.to(config.device)))
    terms = [asked for asked, _ in Guidance.of(sampling, condition, factors).terms]
    state, asked = repeated(start, len(terms)), Condition.cat(terms)

    def passes() -> None:
        with torch.no_grad():
            for _ in range(sampler.num_steps):
                generator.network.trunk(state, asked)

    def sample() -> None:
        sample_clips(generator, tokenizer, condition, size, sampling, rng)

    times, bare = in_turn(config, [sample, passes], are_long=True)
    seconds = Spread.of(times)
    return Figure(
        f"sample {num_clips} clips, {run.name}",
        seconds,
        rate=num_clips / seconds.median,
        unit="clips/s",
        ratio=Spread.of(times / bare),
        reference="x the trunk's passes alone",
        note=f"{sampler.num_steps} steps of {sampler.name}, "
        f"guidance {run.sampling.guidance_scale:g}, fp32 on {config.device}",
    )
