"""The three experiments on locality: what their headers say for clips and for 3-D scenes builds,
and experiment 3 has no path around its windows."""

import itertools
import re
from pathlib import Path

import pytest
from tiny import ROOT

from vidcomp.models.generator import Generator
from vidcomp.runs import GeneratorRun, TokenizerRun, load_run

EXPERIMENTS = sorted((ROOT / "configs/generators").glob("local_exp?.yaml"))
MADE_OF = {"stills": [], "clips": ["clips"], "3-D": ["3-D"], "3-D clips": ["clips", "3-D"]}


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands in the headers are typed there."""
    monkeypatch.chdir(ROOT)


def overrides(path: Path, what: str) -> list[str]:
    """Of all lines of a header that end ``NAME: key=value ...``, those that are for `what`."""
    lines = re.findall(r"^# +(?:and of )?(clips|3-D)\b.*?: (\S+=.*)$", path.read_text(), re.M)
    assert {name for name, _ in lines} == {"clips", "3-D"}
    chosen = [text.split() for name, text in lines if name in MADE_OF[what]]
    return list(itertools.chain.from_iterable(chosen))


def built(run: GeneratorRun) -> Generator:
    tokenizer, _ = load_run(run.tokenizer)
    assert isinstance(tokenizer, TokenizerRun)
    spec, dataset = tokenizer.tokenizer.build().spec, run.data.dataset.build()
    assert spec.grid(dataset.num_frames, dataset.height, dataset.width).size > 1
    assert tokenizer.data.dataset.name == run.data.dataset.name
    return run.generator.build(spec, dataset.factors)


@pytest.mark.parametrize("what", MADE_OF)
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_header_tells_what_builds(path: Path, what: str) -> None:
    run = load_run(path, overrides(path, what))[0]
    assert isinstance(run, GeneratorRun)
    generator, data = built(run), run.data.dataset.model_dump()
    assert data["label"] == ("all" if path.stem == "local_exp1" else "one")
    assert data["name"] == ("counting3d" if "3-D" in what else "counting")
    in_time = "clips" in what
    assert (data["num_frames"] > 1) == in_time
    assert (not generator.global_paths(in_time=in_time)) == (path.stem == "local_exp3")


def test_each_experiment_changes_one_thing() -> None:
    one, two, three = (load_run(path)[0].model_dump() for path in EXPERIMENTS)
    two["data"]["dataset"]["label"] = "all"
    assert {key for key in one if one[key] != two[key]} == {"name"}
    two["generator"]["backbone"]["window"] = three["generator"]["backbone"]["window"]
    three["data"]["dataset"]["label"] = "all"
    assert {key for key in one if two[key] != three[key]} == {"name"}
