"""The bench: its FLOPs agree with torch's counter, and its figures are of what was asked for."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from vidcomp.bench import BenchConfig, clip_size, random_latents, run_bench, uncounted_flops
from vidcomp.models.conditioning import Condition
from vidcomp.runs import GeneratorRun, TokenizerRun, load_run
from vidcomp.seeding import Rng

NETWORK = {"width": 16, "depth": 1, "strides": [2, 4, 4]}


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
    size, factors = clip_size(run)
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
@pytest.mark.parametrize("jepa", [None, {}])
def test_what_the_counter_misses_is_added(
    generator_yaml: str, attention: str, jepa: dict[str, object] | None
) -> None:
    overrides = [f"generator.backbone.attention={attention}"]
    # All layers, so that JEPA's target runs through the whole trunk, as the formula has it.
    overrides += [] if jepa is None else ["generator.jepa.layers=[0,1]"]
    run, _ = load_run(generator_yaml, overrides)
    assert isinstance(run, GeneratorRun)
    size, _ = clip_size(run)
    tokenizer, _ = load_run(run.tokenizer)
    assert isinstance(tokenizer, TokenizerRun)
    grid = tokenizer.tokenizer.build().spec.grid(*size)
    missed = counted_flops(run, "plain") - counted_flops(run, "sdpa")
    assert uncounted_flops(BenchConfig(device="cpu"), run, grid) == missed > 0


def test_every_figure_has_its_reference(generator_yaml: str, tmp_path: Path) -> None:
    config = BenchConfig(
        generators=(generator_yaml,), tokenizers=("codes.yaml",), repeats=1, out=Path("bench.json")
    )
    record = json.loads(run_bench(config, ("generator", "tokenizer", "data")).read_text())
    names = [figure["name"] for figure in record["figures"]]
    assert names == ["train masked", "train codes", "read clips", "render clips"]
    for figure in record["figures"]:
        assert figure["share"] == pytest.approx(figure["rate"] / figure["reference"])
        assert figure["rate"] > 0
    assert record["commit"] and record["versions"]["torch"]
