"""What every probe promises, checked on each variant there is, and on one that is made here."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import vidcomp.probes
from vidcomp.config import UserError
from vidcomp.datasets import base as datasets
from vidcomp.datasets import counting, sprites
from vidcomp.probes import base_network
from vidcomp.probes.base import (
    PROBES,
    UNREADABLE,
    ClipSet,
    Judge,
    Points,
    Probe,
    Subject,
    TrainedJudge,
    rows_by_level,
)
from vidcomp.types import video_from_frames
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors
from vidcomp.world.splits import SplitConfig

VARIANTS = PROBES.names()


@dataclass(frozen=True, eq=False)
class World:
    """What a variant is asked about. `other` are factors that it must refuse beside these."""

    data: datasets.Config
    split: SplitConfig
    other: Factors

    @property
    def factors(self) -> Factors:
        return self.data.build().factors

    def clips(self, num_clips: int, *, seed: int) -> ClipSet:
        drawn = self.data.model_copy(update={"num_clips": num_clips, "seed": seed}).build()
        clips = drawn.clips(torch.arange(num_clips))
        return ClipSet(
            video_from_frames(clips.frames), clips.classes, clips.values, clips.locations
        )


CHOSEN = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
NOVEL = {"shape": ("triangle",), "colour": ("blue",), "motion": ("up",)}
SPRITES = World(
    sprites.Config(factors=CHOSEN, num_frames=5),
    SplitConfig(novel=NOVEL),
    choose({**CHOSEN, "motion": ("right", "down")}),
)
COUNTS = World(
    counting.Config(counts=(1, 2, 3, 4), num_frames=5, speed_px=(0.5, 1.0)),
    SplitConfig(rule="range", seen={"count": (1, 2)}),
    counting.Config(counts=(1, 2, 3)).build().factors,
)
EXAMPLES = {"counting": COUNTS}
"""Where variants are at home; the others are so among the sprites."""

QUICK = {"factors": {"width": 8, "steps": 70, "batch_size": 48}}
"""Settings that make a variant quick enough to fit here."""

TOY = '''
"""The smallest probe: how bright the clips are."""
from vidcomp.probes import base

class Config(base.Config):
    def build(self, factors):
        return Toy()

class Toy(base.Probe):
    def run(self, subject):
        findings = base.Findings()
        for source, clips in subject.sets.items():
            for level, rows in base.rows_by_level(subject.split, clips).items():
                bright = clips.video[rows].mean((1, 2, 3, 4))
                findings.scores[f"{source}/{level}/brightness"] = base.mean_score(bright)
        return findings
'''


def world(name: str) -> World:
    return EXAMPLES.get(name, SPRITES)


class Thumbnails:
    """A feature space: clips at a few pixels and frames."""

    def __init__(self, sets: Mapping[str, ClipSet], training: ClipSet) -> None:
        self.sets, self.clips = sets, training

    def points(self, source: str) -> torch.Tensor:
        return F.adaptive_avg_pool3d(self.sets[source].video, (2, 3, 3)).flatten(1)

    def training(self) -> Points:
        features = F.adaptive_avg_pool3d(self.clips.video, (2, 3, 3)).flatten(1)
        return Points(features, self.clips.classes, torch.ones(len(features), dtype=torch.bool))


@cache
def probe(name: str) -> Probe:
    config = PROBES.config({"name": name, **QUICK.get(name, {})})
    if isinstance(config, base_network.Config):
        pytest.skip(f"{name} looks inside a network: tests/probes/test_network_probes.py")
    made = config.build(world(name).factors)
    if isinstance(made, TrainedJudge):
        made.fit({"real": world(name).clips(160, seed=1)}, seed=0)
    return made


def judge(name: str) -> Judge:
    made = probe(name)
    if not isinstance(made, Judge):
        pytest.skip(f"{name} is no judge")
    return made


@cache
def subject(of: World) -> Subject:
    real = of.clips(64, seed=2)
    soft = real.video.lerp(real.video.mean(2, keepdim=True), 0.05)
    mixed = torch.cat([real.video[:48], real.video[48:].flip(0)])
    samples = replace(real, video=mixed)
    sets = {"real": real, "reconstruction": replace(real, video=soft), "samples": samples}
    split = of.split.build(of.factors)
    return Subject(sets, split, space=Thumbnails(sets, of.clips(160, seed=1)))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_answer_has_a_source_a_place_an_interval_and_a_count(name: str) -> None:
    """The place is a level or, of what is measured for each number of objects, `n`."""
    asker, asked = probe(name), subject(world(name))
    findings, split = asker.run(asked), asked.split
    assert findings.scores
    for key, score in findings.scores.items():
        source, place, *_ = key.split("/")
        assert source in asked.sets and place in (*split.level_names, "n")
        assert score.low <= score.value <= score.high and math.isfinite(score.value)
        clips = asked.sets[source]
        rows = rows_by_level(split, clips).get(place, torch.ones(len(clips.classes)))
        if "combination/" in key or name == "counting":  # not all show what it asks about
            assert 0 < score.n <= int(rows.sum())
        else:
            assert score.n == int(rows.sum())
        if name != "counting":  # its chance may be a length, a count, or none found at all
            assert score.chance is None or 0 < score.chance < 1
    for key, array in findings.arrays.items():
        source = key.split("/")[0]
        assert len(array) == len(asked.sets[source].classes)


@pytest.mark.parametrize("name", VARIANTS)
def test_asked_twice_it_answers_the_same(name: str) -> None:
    asker, asked = probe(name), subject(world(name))
    assert asker.run(asked).scores == asker.run(asked).scores


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_reads_legal_classes_clip_by_clip(name: str) -> None:
    reader, factors = judge(name), world(name).factors
    video = world(name).clips(48, seed=2).video
    verdicts = reader.read(video)
    assert verdicts.shape == (48, 5, len(factors))
    assert (verdicts >= UNREADABLE).all() and (verdicts < torch.tensor(factors.sizes)).all()
    for f, factor in enumerate(factors.items):
        assert not factor.temporal or torch.equal(verdicts[:, 0, f], verdicts[:, 1, f])
    assert torch.equal(reader.read(video[7:9]), verdicts[7:9])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_can_be_believed(name: str) -> None:
    """Right on real clips, chance on labels that have nothing to do with them."""
    reader, factors = judge(name), world(name).factors
    split = world(name).split.build(factors)
    clips = world(name).clips(160, seed=3)
    scores = reader.run(Subject({"real": clips}, split)).scores
    assert all(scores[f"real/{level}/frames"].value > 0.9 for level in split.level_names)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    verdicts = reader.read(clips.video)
    shuffled = (verdicts == clips.classes[order][:, None]).float().mean((0, 1))
    chance = [1 / size for size in factors.sizes]
    assert shuffled.tolist() == pytest.approx(chance, abs=0.16)  # 4 standard errors


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_refuses_one_frame_and_other_factors(name: str) -> None:
    reader, of = judge(name), world(name)
    clips = of.clips(8, seed=2)
    if any(factor.temporal for factor in of.factors.items):
        with pytest.raises(UserError, match=r"motion.*one frame"):
            reader.read(clips.video[:, :, :1])
    other = SplitConfig().build(of.other)
    names = [", ".join(f.items[-1].class_names) for f in (of.factors, of.other)]
    with pytest.raises(UserError, match=rf": {names[0]}.*: {names[1]}"):
        reader.run(Subject({"real": clips}, other))


def test_a_new_probe_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(vidcomp.probes, "__path__", [*vidcomp.probes.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vidcomp.probes.toy", raising=False)
    assert "toy" in PROBES.names()
    config = PROBES.config("toy")
    asked = subject(SPRITES)
    findings = config.build(SPRITES.factors).run(asked)
    assert config.model_dump() == {"name": "toy"}
    assert len(findings.scores) == 3 * len(asked.split.level_names)
    monkeypatch.delitem(sys.modules, "vidcomp.probes.toy")


def test_an_unknown_probe_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'oracle'.*factors, fidelity, .*oracle"):
        PROBES.config("oracel")
