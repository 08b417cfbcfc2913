"""Adding a tokenizer, an objective or a probe is adding one file: here, while the tests run.

Each is written beside the shipped ones (the package's path gets a second folder), named in a YAML,
and trained, sampled and scored by the tools, which have never heard of it.
"""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import DATA, generator_run, run_tool, tokenizer_run, write_config

import vidcomp
from vidcomp.evaluation import probe_run
from vidcomp.runs import newest_checkpoint

TOKENIZER = '''
"""The signs of a block's mean colour: a byte's worth of codes, nothing to learn but a decoder."""

import torch
from torch import nn
from torch.nn import functional as F

from vidcomp.nn.conv import fold_video, unfold_video
from vidcomp.tokenizers import base
from vidcomp.types import Grid, LatentSpec

STRIDES = Grid(4, 8, 8)


class Config(base.Config):
    threshold: float = 0.0

    def build(self):
        return Signs(self.threshold)


class Mean(nn.Module):
    def forward(self, video):
        folded = fold_video(video, STRIDES)
        return folded.unflatten(-1, (3, STRIDES.size)).mean(-1)


class Spread(nn.Linear):
    def forward(self, latents):
        return unfold_video(super().forward(latents), STRIDES)


class Signs(base.Tokenizer):
    def __init__(self, threshold):
        spec = LatentSpec(STRIDES, 3, codebook_sizes=(8,))
        super().__init__(spec, Mean(), Spread(3, 3 * STRIDES.size))
        self.threshold = threshold

    def bottleneck(self, features, rng):
        bits = (features > self.threshold).long()
        codes = (bits * torch.tensor([1, 2, 4])).sum(-1, keepdim=True)
        return base.Bottleneck(self.dequantize(codes), codes)

    def dequantize(self, codes):
        return (codes // torch.tensor([1, 2, 4]) % 2).float() * 2 - 1
'''

OBJECTIVE = '''
"""Guess the whole clip from the condition alone, as a mean: the least that an objective can be."""

import torch
from torch import nn

from vidcomp.objectives import base
from vidcomp.schedules import RectifiedPath
from vidcomp.types import Corrupted, Latents, Losses, Prediction, State, mean_where


class Config(base.Config):
    sharpness: float = 1.0

    def build(self, spec, width):
        return Guess(spec.channels, width, self.sharpness)


class Guess(base.Objective):
    def __init__(self, channels, width, sharpness):
        super().__init__()
        self.schedule = RectifiedPath()
        self.sharpness = sharpness
        self.from_latents = nn.Linear(channels, width)
        self.to_latents = nn.Linear(width, channels)

    def corrupt(self, clean, given, rng):
        state = self.start(clean, given, rng)
        return Corrupted(state, target=clean.values, predict=~given)

    def start(self, known, given, rng):
        values = torch.where(given[..., None], known.values, 0.0)
        return State(Latents(values), given, values.new_zeros(len(values)))

    def embed(self, state):
        return self.from_latents(state.latents.values)

    def head(self, hidden):
        return self.to_latents(hidden)

    def loss(self, out, corrupted, rng):
        error = (out - corrupted.target).square().mean(-1) * self.sharpness
        return Losses.of({"guess": mean_where(error, corrupted.predict)})

    def read(self, outs, weights, state, *, temperature, rng):
        return Prediction(values=base.combine(outs, weights))

    def data_prediction(self, out, state):
        return out
'''

PROBE = '''
"""How bright clips are, from 0 to 1."""

from vidcomp.probes import base
from vidcomp.probes.base import Findings, mean_score, rows_by_level


class Config(base.Config):
    def build(self, factors):
        return Brightness()


class Brightness(base.Probe):
    def run(self, subject):
        findings = Findings()
        for source, clips in subject.sets.items():
            light = ((clips.video + 1) / 2).mean((1, 2, 3, 4))
            for level, rows in rows_by_level(subject.split, clips).items():
                findings.scores[f"{source}/{level}/brightness"] = mean_score(light[rows])
        return findings
'''

Add = Callable[[str, str, str], None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Put one file into a family, until the test ends."""

    def add_file(family: str, name: str, source: str) -> None:
        package = importlib.import_module(f"vidcomp.{family}")
        folder = tmp_path / family
        folder.mkdir()
        (folder / f"{name}.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.setitem(sys.modules, f"vidcomp.{family}.{name}", None)
        monkeypatch.delitem(sys.modules, f"vidcomp.{family}.{name}")
        importlib.invalidate_caches()

    return add_file


def test_a_new_tokenizer_and_a_new_objective(add: Add, tmp_path: Path) -> None:
    """The toy tokenizer feeds a shipped objective, and the toy objective."""
    add("tokenizers", "toy_signs", TOKENIZER)
    add("objectives", "toy_guess", OBJECTIVE)

    raw = tokenizer_run().model_dump(mode="json") | {"name": "toy"}
    raw["tokenizer"] = {"name": "toy_signs", "threshold": -0.2}
    config = write_config(raw, tmp_path / "tokenizer.yaml")
    tokenizer = tmp_path / "tokenizer"
    assert run_tool("train", config, f"out={tokenizer}") == 0

    for objective in ("maskgit", "toy_guess"):
        raw = generator_run(tokenizer, "maskgit").model_dump(mode="json")
        raw["generator"]["objective"] = objective
        if objective == "toy_guess":
            raw["sampling"]["sampler"] = "euler"
        config = write_config(raw, tmp_path / f"{objective}.yaml")
        out = tmp_path / objective
        assert run_tool("train", config, f"out={out}") == 0
        assert newest_checkpoint(out).name == "checkpoint-6"
        assert run_tool("sample", out) == 0
        clip = vidcomp.load(str(out)).generate(
            {"shape": "circle", "colour": "blue", "motion": "up"}
        )
        assert clip.shape == (1, 3, 5, 16, 16)


def test_a_mistyped_setting_of_a_new_variant_is_explained(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add("tokenizers", "toy_signs", TOKENIZER)
    raw = tokenizer_run().model_dump(mode="json")
    raw["tokenizer"] = {"name": "toy_signs", "treshold": 0.5}
    assert run_tool("train", write_config(raw, tmp_path / "tokenizer.yaml")) == 2
    assert "did you mean 'threshold'?" in capsys.readouterr().err


def test_a_new_probe_is_asked_about_every_run(
    add: Add, maskgit: Path, judge: Path, tmp_path: Path
) -> None:
    add("probes", "toy_brightness", PROBE)
    run = tmp_path / "maskgit"
    shutil.copytree(maskgit, run)
    scores = json.loads(probe_run(run, judge).read_text())["scores"]
    for source in ("real", "reconstruction", "samples"):
        assert 0 <= scores["toy_brightness"][f"{source}/level-2/brightness"]["value"] <= 1


def test_a_new_trained_judge_scores(
    add: Add, maskgit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge in one file, fitted and used by name: it remembers the commonest class."""
    add("probes", "toy_habit", JUDGE)
    raw = {"name": "habit", "data": DATA, "probe": {"name": "toy_habit"}}
    folder = tmp_path / "habit"
    config = write_config(raw, tmp_path / "judge.yaml")
    assert run_tool("probe", "fit", config, f"out={folder}") == 0
    run = tmp_path / "maskgit"
    shutil.copytree(maskgit, run)
    assert run_tool("probe", run, f"probe={folder}") == 0
    assert json.loads((run / "scores.json").read_text())["judge"] == "toy_habit"
    assert "samples/seen" in capsys.readouterr().out


JUDGE = '''
"""Always answers with the commonest class of each factor."""

import json

import torch

from vidcomp.probes import base
from vidcomp.probes.base import proportion
from vidcomp.world.factors import Factors


class Config(base.Config):
    def build(self, factors):
        return Habit(factors)


class Habit(base.TrainedJudge):
    def __init__(self, factors, classes=()):
        self.factors, self.classes = factors, tuple(classes)

    def read(self, video):
        return torch.tensor(self.classes).expand(len(video), video.shape[2], -1)

    def fit(self, sets, *, seed, combinations="all", progress=None):
        self.classes = tuple(sets["real"].classes.mode(0).values.tolist())

    def check(self, sets):
        first = self.factors.names[0]
        return {
            source: {first: proportion(clips.classes[:, 0] == self.classes[0])}
            for source, clips in sets.items()
        }

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        record = {"factors": self.factors.to_json(), "classes": self.classes}
        (folder / "probe.json").write_text(json.dumps(record))

    @classmethod
    def load(cls, folder):
        record = json.loads((folder / "probe.json").read_text())
        return cls(Factors.from_json(record["factors"]), record["classes"])
'''
