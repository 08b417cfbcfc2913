"""Speed, as ratios that carry over: to the machine's matrix products, and to bare decoders.

Each figure and what it is compared with are measured in turn within one process, so that a busy or
slow machine moves both. Nothing here is asserted by a test.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import av
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import store
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.media import has_decord
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.runs import GeneratorRun, Run, TokenizerRun, environment, load_run, write_json
from vidcomp.seeding import Rng
from vidcomp.training.memory import keep_freed_memory
from vidcomp.training.state import Ema
from vidcomp.training.trainer import parameter_groups
from vidcomp.types import Grid, Latents, LatentSpec, Losses, num_parameters, video_from_frames


class BenchConfig(RootSettings):
    """What to measure. `precision` is that of training steps and matrix products alike."""

    generators: tuple[str, ...] = (
        "configs/generators/maskgit.yaml",
        "configs/generators/maskgit_jepa.yaml",
        "configs/generators/flow.yaml",
    )
    tokenizers: tuple[str, ...] = ("configs/tokenizers/fsq.yaml", "configs/tokenizers/kl.yaml")
    precision: Literal["no", "bf16"] = "no"
    repeats: int = 10
    threads: int = 1
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = Path("runs/bench.json")


@dataclass(frozen=True)
class Figure:
    """A measured rate beside what it is compared with. `share` = rate / reference."""

    name: str
    ms: float
    rate: float
    unit: str
    reference: float
    share: float
    note: str = ""

    def line(self) -> str:
        return (
            f"{self.name:44s} {self.ms:9.1f} ms  {self.rate:10.4g} {self.unit:9s} "
            f"of {self.reference:10.4g}  = {self.share:5.2f}   {self.note}"
        )


def run_bench(config: BenchConfig, kinds: tuple[str, ...]) -> Path:
    """Measure the `kinds` (generator, tokenizer, data), and write the figures to ``config.out``."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    figures: list[Figure] = []
    measures: dict[str, Callable[[BenchConfig], list[Figure]]] = {
        "generator": bench_generators,
        "tokenizer": bench_tokenizers,
        "data": bench_data,
    }
    for kind in kinds:
        for figure in measures[kind](config):
            print(figure.line(), flush=True)
            figures.append(figure)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"config": config.model_dump(mode="json"), "figures": [asdict(f) for f in figures]}
    write_json(config.out, {**record, **environment()})
    return config.out


def bench_generators(config: BenchConfig) -> list[Figure]:
    """Whole training steps on random latents: corrupt, forward, backward, clip, AdamW, averages."""
    figures: list[Figure] = []
    for path in config.generators:
        run, _ = load_run(path)
        if not isinstance(run, GeneratorRun):
            raise UserError(f"generators: {path} is a tokenizer's config")
        tokenizer_run, _ = load_run(run.tokenizer)
        assert isinstance(tokenizer_run, TokenizerRun)
        spec = tokenizer_run.tokenizer.build().spec
        size, factors = clip_size(run)
        grid = spec.grid(*size)
        generator = run.generator.build(spec, factors).to(config.device)
        batch = run.train.batch_size
        latents = random_latents(spec, grid, batch).to(config.device)
        classes = torch.randint(0, 2, (batch, len(factors)))
        condition = Condition.of(classes, factors.prototypes(classes)).to(config.device)

        def losses(
            rng: Rng,
            generator: Generator = generator,
            latents: Latents = latents,
            condition: Condition = condition,
        ) -> Losses:
            return generator(latents, condition, rng)

        uncounted = uncounted_flops(config, run, grid)
        figures.append(training_step(config, run, generator, losses, batch, uncounted))
    return figures


def uncounted_flops(config: BenchConfig, run: GeneratorRun, grid: Grid) -> int:
    """Of attention through SDPA on a CPU, which torch's counter takes for 0; it runs in fp32 only.

    4 c for each pair of positions and layer forward, twice that backward; JEPA's target is one
    forward more.
    """
    if config.device != "cpu" or config.precision != "no":
        return 0
    depth, width, _ = run.generator.backbone.dimensions
    pairs = grid.size**2
    if run.generator.backbone.attention == "factorised":
        space = grid.h * grid.w
        pairs = grid.t * space**2 + space * grid.t**2
    passes = 4 if run.generator.jepa else 3
    return passes * 4 * width * pairs * depth * run.train.batch_size


def bench_tokenizers(config: BenchConfig) -> list[Figure]:
    """Whole training steps of tokenizers on rendered clips."""
    figures: list[Figure] = []
    for path in config.tokenizers:
        run, _ = load_run(path)
        assert isinstance(run, TokenizerRun) and run.data.render is not None
        tokenizer = run.tokenizer.build().to(config.device)
        clips = run.data.render.build().clips(torch.arange(run.train.batch_size))
        video = video_from_frames(clips.frames).to(config.device)

        def losses(rng: Rng, tokenizer=tokenizer, video: Tensor = video) -> Losses:  # pyright: ignore
            return tokenizer.loss(video, rng)

        figures.append(training_step(config, run, tokenizer, losses, run.train.batch_size, 0))
    return figures


def training_step(
    config: BenchConfig,
    run: Run,
    model: nn.Module,
    losses: Callable[[Rng], Losses],
    batch: int,
    uncounted: int,
) -> Figure:
    """The median step beside the median matrix product, taken in turn."""
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.03), lr=1e-4, fused=True)
    ema = Ema(model, 0.99)

    def step(i: int) -> None:
        rng = Rng.make(0, "bench", torch.arange(batch, device=config.device), step=i)
        with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
            total = losses(rng).total().mean()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.after_step()  # pyright: ignore
        ema.update(model, i)
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step(0)
    flops = counter.get_total_flops() + uncounted
    times, products = in_turn(config, [lambda: step(1), matrix_product(config)])
    rate, reference = flops / times, 2 * 1024**3 / products
    precision = "bf16" if config.precision == "bf16" else "fp32"
    note = f"{num_parameters(model):,} parameters, batch {batch}, {precision} on {config.device}"
    return Figure(
        f"train {run.name}",
        times * 1e3,
        rate / 1e9,
        "GFLOP/s",
        reference / 1e9,
        rate / reference,
        note,
    )


def bench_data(config: BenchConfig) -> list[Figure]:
    """Reading stored clips beside a bare decoder, and rendering clips beside reading them."""
    run, _ = load_run(config.generators[0])
    assert run.data.render is not None
    dataset = run.data.render.model_copy(update={"num_clips": 64}).build()
    rows = torch.arange(64)
    bare = {"pyav": _bare_pyav} | ({"decord": _bare_decord} if has_decord() else {})
    with TemporaryDirectory() as folder:
        store(dataset, Path(folder))
        reader = FolderConfig(path=Path(folder), cache_gb=0).build()
        files = [Path(folder) / "clips" / f"{i:06d}.mp4" for i in range(64)]

        def loop(read: Callable[[Path], object]) -> Callable[[], object]:
            return lambda: [read(file) for file in files]

        jobs: list[Callable[[], object]] = [lambda: reader.clips(rows), lambda: dataset.clips(rows)]
        read_s, render_s, *bare_s = in_turn(config, jobs + [loop(read) for read in bare.values()])
    best_s = min(bare_s)
    note = f"beside the faster of a bare {' and '.join(bare)} loop"
    return [
        Figure(
            "read clips", read_s * 1e3, 64 / read_s, "clips/s", 64 / best_s, best_s / read_s, note
        ),
        Figure(
            "render clips",
            render_s * 1e3,
            64 / render_s,
            "clips/s",
            64 / read_s,
            read_s / render_s,
            "beside reading them",
        ),
    ]


def _bare_pyav(path: Path) -> object:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return np.stack([f.to_ndarray(format="rgb24", threads=1) for f in container.decode(stream)])


def _bare_decord(path: Path) -> object:
    import decord  # pyright: ignore[reportMissingImports]: no wheel on every platform

    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()


def in_turn(config: BenchConfig, jobs: list[Callable[[], object]]) -> list[float]:
    """Median seconds of each job, run one after the other `repeats` times, after a warm-up."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for repeat in range(config.repeats + 2):
        for job, taken in zip(jobs, seconds, strict=True):
            synchronize(config)
            began = time.perf_counter()
            job()
            synchronize(config)
            if repeat >= 2:
                taken.append(time.perf_counter() - began)
    return [sorted(taken)[len(taken) // 2] for taken in seconds]


def matrix_product(config: BenchConfig) -> Callable[[], object]:
    """A 1024 x 1024 x 1024 product in the precision of the steps: the machine's own limit."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    a, b = (torch.randn(1024, 1024, dtype=dtype, device=config.device) for _ in range(2))
    return lambda: a @ b


def synchronize(config: BenchConfig) -> None:
    if config.device == "cuda":
        torch.cuda.synchronize()


def random_latents(spec: LatentSpec, grid: Grid, num_clips: int) -> Latents:
    """Latents of the right shapes and no meaning."""
    codes = None
    if spec.codebook_sizes is not None:
        columns = [torch.randint(0, size, (num_clips, *grid)) for size in spec.codebook_sizes]
        codes = torch.stack(columns, dim=-1)
    return Latents(torch.randn(num_clips, *grid, spec.channels), codes)


def clip_size(run: Run):
    """The size and factors of a run's clips, from what it would render."""
    if run.data.render is None:
        raise UserError(f"bench needs a config with data.render; {run.name} has none")
    dataset = run.data.render.build()
    return Grid(dataset.num_frames, dataset.height, dataset.width), dataset.factors
