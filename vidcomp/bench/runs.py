"""What is measured of a config: its generator, tokenizer and clips, untrained and on random input.

How fast they are depends on neither.
"""

from collections.abc import Iterator

import torch

from vidcomp.bench.measure import BenchConfig
from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.runs import GeneratorRun, Run, TokenizerRun, load_run
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Grid, Latents, LatentSpec
from vidcomp.world.factors import Factors


def generator_run(config: BenchConfig, path: str) -> GeneratorRun:
    """The run of a YAML, its trunk of the size that is asked for."""
    size = [] if config.size is None else [f"generator.backbone.size={config.size}"]
    run, _ = load_run(path, size)
    if not isinstance(run, GeneratorRun):
        raise UserError(f"generators: {path} is a tokenizer's config")
    return run


def tokenizer_run(path: str) -> TokenizerRun:
    run, _ = load_run(path)
    if not isinstance(run, TokenizerRun):
        raise UserError(f"tokenizers: {path} is a generator's config")
    return run


def tokenizer_of(run: GeneratorRun) -> Tokenizer:
    return tokenizer_run(run.tokenizer).tokenizer.build()


def objective_runs(config: BenchConfig) -> Iterator[GeneratorRun]:
    """The generators, then a variant of one of them for each objective that none has."""
    runs = [generator_run(config, path) for path in config.generators]
    yield from runs
    covered = {run.generator.objective.name for run in runs}
    # The first that is plain: JEPA is no part of an objective.
    plain = [run for run in runs if run.generator.jepa is None] or runs
    for name in OBJECTIVES.names():
        if name not in covered:
            yield _with_objective(plain, name)


def _with_objective(runs: list[GeneratorRun], name: str) -> GeneratorRun:
    """`name` in the place of another objective: of a continuous one, if there is any."""
    objective = OBJECTIVES.config(name)
    by_kind = sorted(runs, key=lambda run: tokenizer_of(run).spec.codebook_sizes is not None)
    for run in by_kind:
        try:
            objective.build(tokenizer_of(run).spec, run.generator.backbone.dimensions[1])
        except UserError:
            continue  # it needs the codes of another
        generator = run.generator.model_copy(update={"objective": objective, "jepa": None})
        return run.model_copy(update={"name": name, "generator": generator})
    raise UserError(f"generators: {name} takes the latents of none of {[run.name for run in runs]}")


def clip_size(run: Run) -> Grid:
    """The size of a run's clips, from what it would render."""
    dataset = rendered(run).build()
    return Grid(dataset.num_frames, dataset.height, dataset.width)


def factors_of(run: Run) -> Factors:
    return rendered(run).build().factors


def rendered(run: Run):
    """The dataset that a run would render."""
    if run.data.render is None:
        raise UserError(f"bench needs a config with data.render; {run.name} has none")
    return run.data.render


def legal_size(spec: LatentSpec, size: Grid) -> Grid:
    """The longest clips, no longer than `size`, that a tokenizer takes."""
    return size._replace(t=1 + (size.t - 1) // spec.strides.t * spec.strides.t)


def random_condition(factors: Factors, num_clips: int) -> Condition:
    classes = factors.combinations()[torch.arange(num_clips) % factors.num_combinations]
    return Condition.of(classes, factors.prototypes(classes))


def random_latents(spec: LatentSpec, grid: Grid, num_clips: int) -> Latents:
    """Latents of the right shapes and no meaning."""
    codes = None
    if spec.codebook_sizes is not None:
        columns = [torch.randint(0, size, (num_clips, *grid)) for size in spec.codebook_sizes]
        codes = torch.stack(columns, dim=-1)
    return Latents(torch.randn(num_clips, *grid, spec.channels), codes)
