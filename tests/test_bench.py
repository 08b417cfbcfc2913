"""The bench: its FLOPs agree with torch's counter, and its figures are of what was asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from vidcomp.bench import BenchConfig, run_bench
from vidcomp.bench.caches import bench_caches
from vidcomp.bench.folder import bench_folder, many_files
from vidcomp.bench.measure import WARM_UP, Figure, Limit, Spread, in_turn
from vidcomp.bench.reading import bare_figure, stored, worker_figures
from vidcomp.bench.rendering import WORLDS, bench_worlds, dataset_of, step_share
from vidcomp.bench.runs import clip_size, factors_of, generator_run, random_latents
from vidcomp.bench.sampling import bench_sampling
from vidcomp.bench.steps import uncounted_flops
from vidcomp.bench.windows import bench_windows
from vidcomp.models.conditioning import Condition
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.runs import GeneratorRun, TokenizerRun, load_run
from vidcomp.seeding import Rng
from vidcomp.types import Grid

NETWORK = {"width": 16, "depth": 1, "strides": [2, 8, 8]}


@pytest.fixture
def generator_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A generator of two layers on a world that could be rendered."""
    monkeypatch.chdir(tmp_path)
    data = {
        "dataset": {"name": "folder", "path": "clips"},
        "split": tiny.SPLIT,
        "render": tiny.SPRITES | {"height": 32, "width": 32},  # decord reads no narrower RGB
    }
    tokenizer = {"name": "codes", "tokenizer": {"name": "fsq", **NETWORK}}
    generator = {
        "name": "masked",
        "tokenizer": "codes.yaml",
        "generator": {
            "objective": {"name": "maskgit"},
            "backbone": {"depth": 2, "width": 24, "heads": 2},
        },
    }
    for name, content in (("codes", tokenizer), ("masked", generator)):
        root = {"data": data, "train": tiny.TRAIN, **content}
        OmegaConf.save(OmegaConf.create(root), f"{name}.yaml")
    return "masked.yaml"


def counted_flops(run: GeneratorRun, backend: str) -> int:
    """Of one forward and backward pass, as torch counts them."""
    tokenizer, _ = load_run(run.tokenizer)
    assert isinstance(tokenizer, TokenizerRun)
    spec = tokenizer.tokenizer.build().spec
    size, factors = clip_size(run), factors_of(run)
    backbone = run.generator.backbone.model_copy(update={"attention_backend": backend})
    generator = run.generator.model_copy(update={"backbone": backbone}).build(spec, factors)
    batch = run.train.batch_size
    classes = torch.zeros(batch, len(factors), dtype=torch.int64)
    condition = Condition.of(classes, factors.prototypes(classes))
    latents = random_latents(spec, spec.grid(*size), batch)
    with FlopCounterMode(display=False) as counter:
        rng = Rng.make(0, "test", torch.arange(batch))
        generator(latents, condition, rng).total().mean().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("jepa", [None, {}])
def test_what_the_counter_misses_is_added(
    generator_yaml: str, attention: str, window: int | None, jepa: dict[str, object] | None
) -> None:
    overrides = [f"generator.backbone.attention={attention}"]
    overrides += [] if window is None else [f"generator.backbone.window={window}"]
    # All layers, so that JEPA's target runs through the whole trunk, as the formula has it.
    overrides += [] if jepa is None else ["generator.jepa.layers=[0,1]"]
    run, _ = load_run(generator_yaml, overrides)
    assert isinstance(run, GeneratorRun)
    size = clip_size(run)
    tokenizer, _ = load_run(run.tokenizer)
    assert isinstance(tokenizer, TokenizerRun)
    grid = tokenizer.tokenizer.build().spec.grid(*size)
    missed = counted_flops(run, "plain") - counted_flops(run, "sdpa")
    assert uncounted_flops(BenchConfig(device="cpu"), run, grid) == missed > 0


def test_jobs_take_turns_and_warm_up_uncounted() -> None:
    calls: list[str] = []
    jobs = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = in_turn(BenchConfig(device="cpu", repeats=3), jobs)
    assert "".join(calls) == "abba" * ((WARM_UP + 3) // 2) + "ab" * ((WARM_UP + 3) % 2)
    assert [len(seconds) for seconds in times] == [3, 3]
    assert all((seconds > 0).all() for seconds in times)


@pytest.mark.parametrize(
    "limit, met",
    [
        (None, None),
        (Limit("<=", 1.1), True),
        (Limit("<=", 0.9), False),
        (Limit(">=", 0.9), True),
        (Limit(">=", 1.1), False),
        (Limit("<=", 2.0, of="s"), False),
    ],
)
def test_a_figure_says_whether_its_limit_is_met(limit: Limit | None, met: bool | None) -> None:
    ratio = Spread.of(np.array([0.5, 1.0, 9.0]))
    assert ratio == (1.0, 0.75, 5.0)
    figure = Figure("x", Spread(3.0, 3.0, 3.0), 1.0, "clips/s", ratio, "of y", limit)
    assert figure.met is met
    assert ("met" in figure.line(), "NOT MET" in figure.line()) == (met is True, met is False)


def test_every_objective_is_trained(generator_yaml: str) -> None:
    config = BenchConfig(
        generators=(generator_yaml,), tokenizers=("codes.yaml",), repeats=1, out=Path("bench.json")
    )
    record = json.loads(run_bench(config, ("generator", "tokenizer")).read_text())
    others = [name for name in OBJECTIVES.names() if name != "maskgit"]
    trained = [f"train {name}" for name in ("masked", *others, "codes")]
    assert [figure["name"] for figure in record["figures"]] == trained
    for figure in record["figures"]:
        low, high = figure["ratio"][1:]
        assert 0 < low <= figure["ratio"][0] <= high and figure["rate"] > 0
    assert record["commit"] and record["versions"]["torch"]


@pytest.mark.slow  # MAR's head alone takes 25 steps at each of 12
def test_every_objective_is_sampled(generator_yaml: str) -> None:
    config = BenchConfig(generators=(generator_yaml,), device="cpu", repeats=1)
    sampled = [figure.name for figure in bench_sampling(config, num_clips=2)]
    others = [name for name in OBJECTIVES.names() if name != "maskgit"]
    assert sampled == [f"sample 2 clips, {name}" for name in ("masked", *others)]


def test_size_is_of_every_trunk(generator_yaml: str) -> None:
    run = generator_run(BenchConfig(size="small"), generator_yaml)
    assert run.generator.backbone.size == "small"


def test_worlds_are_drawn_at_the_size_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.ROOT)
    size = Grid(8, 40, 40)
    for world in WORLDS:
        dataset = dataset_of(world, size)
        assert (dataset.num_frames, dataset.height, dataset.width) == size
    figures = list(bench_worlds(BenchConfig(device="cpu", repeats=1), size))
    assert figures[0].ratio == (1.0, 1.0, 1.0)
    assert len({figure.name for figure in figures}) == len(WORLDS)


def test_a_share_is_of_the_longest_legal_clips(generator_yaml: str) -> None:
    config = BenchConfig(device="cpu", repeats=1)
    share = step_share(config, generator_run(config, generator_yaml), Grid(6, 32, 32))
    assert share.limit == Limit("<=", 0.05) and "of 5 frames" in share.note  # the stride is 2


def test_reading_and_caches_are_beside_their_references(generator_yaml: str) -> None:
    config = BenchConfig(generators=(generator_yaml,), tokenizers=("codes.yaml",), repeats=1)
    with stored(config, Grid(5, 32, 32), 4) as folder:
        assert len(folder) == 4
        assert bare_figure(config, folder).name == "read 5x32x32 clips"
    assert [figure.name for figure in bench_caches(config)] == ["latents of codes from the disk"]


@pytest.mark.slow  # two processes start
def test_two_workers_are_beside_one(generator_yaml: str) -> None:
    config = BenchConfig(generators=(generator_yaml,), repeats=1)
    with stored(config, Grid(5, 32, 32), 32) as folder:
        figures = list(worker_figures(config, folder))
    assert [figure.limit for figure in figures] == [Limit(">=", 1.7)] * 2


def test_windows_are_beside_attention_of_all_to_all_at_every_size() -> None:
    figures = list(bench_windows(BenchConfig(device="cpu", repeats=1), sides=(4, 8)))
    for window in (3, 5):
        names = ["16 tokens", "64 tokens", "growth to 64 tokens"]
        assert [f.name for f in figures[:3]] == [f"attention, window {window}, {n}" for n in names]
        figures = figures[3:]
    assert not figures


def test_many_files_are_opened_by_labels_and_by_a_table() -> None:
    with many_files(40) as root:
        assert len(list(root.glob("*/*.png"))) == 40
    figures = list(bench_folder(BenchConfig(device="cpu", repeats=1, num_files=40)))
    assert len(figures) == 2 and all(figure.limit is not None for figure in figures)
