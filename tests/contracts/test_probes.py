"""What every probe promises, checked on each variant there is, and on one that is made here."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import vidcomp.probes
from vidcomp.config import UserError
from vidcomp.datasets import sprites
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
from vidcomp.probes.base_network import NetworkProbe
from vidcomp.types import video_from_frames
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

VARIANTS = PROBES.names()
CHOSEN = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
FACTORS = choose(CHOSEN)
NOVEL = {"shape": ("triangle",), "colour": ("blue",), "motion": ("up",)}
SPLIT = SplitConfig(novel=NOVEL).build(FACTORS)

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


@cache
def world(*, num_clips: int, seed: int, num_frames: int = 5) -> ClipSet:
    dataset = sprites.Config(factors=CHOSEN, num_clips=num_clips, seed=seed, num_frames=num_frames)
    drawn = dataset.build().clips(torch.arange(num_clips))
    return ClipSet(video_from_frames(drawn.frames), drawn.classes, drawn.values)


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
    made = PROBES.config({"name": name, **QUICK.get(name, {})}).build(FACTORS)
    if isinstance(made, NetworkProbe):
        pytest.skip(f"{name} looks inside a network: tests/probes/test_network_probes.py")
    if isinstance(made, TrainedJudge):
        made.fit({"real": world(num_clips=160, seed=1)}, seed=0)
    return made


def judge(name: str) -> Judge:
    made = probe(name)
    if not isinstance(made, Judge):
        pytest.skip(f"{name} is no judge")
    return made


@cache
def subject() -> Subject:
    real = world(num_clips=64, seed=2)
    soft = real.video.lerp(real.video.mean(2, keepdim=True), 0.05)
    samples = replace(real, video=real.video.flip(0))
    sets = {"real": real, "reconstruction": replace(real, video=soft), "samples": samples}
    return Subject(sets, SPLIT, space=Thumbnails(sets, world(num_clips=160, seed=1)))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_answer_has_a_source_a_level_an_interval_and_a_count(name: str) -> None:
    findings = probe(name).run(subject())
    assert findings.scores
    for key, score in findings.scores.items():
        source, level, *_ = key.split("/")
        assert source in subject().sets and level in SPLIT.level_names
        assert score.low <= score.value <= score.high and math.isfinite(score.value)
        rows = rows_by_level(SPLIT, subject().sets[source])[level]
        if "combination/" in key:
            assert 0 < score.n < int(rows.sum()) or level == "level-2"
        else:
            assert score.n == int(rows.sum())
        assert score.chance is None or 0 < score.chance < 1
    for key, array in findings.arrays.items():
        source = key.split("/")[0]
        assert len(array) == len(subject().sets[source].classes)


@pytest.mark.parametrize("name", VARIANTS)
def test_asked_twice_it_answers_the_same(name: str) -> None:
    assert probe(name).run(subject()).scores == probe(name).run(subject()).scores


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_reads_legal_classes_clip_by_clip(name: str) -> None:
    video = world(num_clips=48, seed=2).video
    verdicts = judge(name).read(video)
    assert verdicts.shape == (48, 5, 3)
    assert (verdicts >= UNREADABLE).all() and (verdicts < torch.tensor(FACTORS.sizes)).all()
    assert torch.equal(verdicts[:, 0, 2], verdicts[:, 1, 2])  # motion of frame 0
    assert torch.equal(judge(name).read(video[7:9]), verdicts[7:9])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_can_be_believed(name: str) -> None:
    """Right on real clips, chance on labels that have nothing to do with them."""
    clips = world(num_clips=160, seed=3)
    scores = judge(name).run(Subject({"real": clips}, SPLIT)).scores
    assert all(scores[f"real/{level}/frames"].value > 0.9 for level in SPLIT.level_names)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    verdicts = judge(name).read(clips.video)
    shuffled = (verdicts == clips.classes[order][:, None]).float().mean((0, 1))
    assert shuffled.tolist() == pytest.approx([0.5] * 3, abs=0.16)  # 4 standard errors


@pytest.mark.parametrize("name", VARIANTS)
def test_a_judge_refuses_one_frame_and_other_factors(name: str) -> None:
    clips = world(num_clips=8, seed=2)
    with pytest.raises(UserError, match=r"motion.*one frame"):
        judge(name).read(clips.video[:, :, :1])
    other = SplitConfig().build(choose({**CHOSEN, "motion": ("right", "down")}))
    with pytest.raises(UserError, match=r"motion: right, up.*motion: right, down"):
        judge(name).run(Subject({"real": clips}, other))


def test_a_new_probe_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(vidcomp.probes, "__path__", [*vidcomp.probes.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vidcomp.probes.toy", raising=False)
    assert "toy" in PROBES.names()
    config = PROBES.config("toy")
    findings = config.build(FACTORS).run(subject())
    assert config.model_dump() == {"name": "toy"}
    assert len(findings.scores) == 3 * len(SPLIT.level_names)
    monkeypatch.delitem(sys.modules, "vidcomp.probes.toy")


def test_an_unknown_probe_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'oracle'.*factors, fidelity, .*oracle"):
        PROBES.config("oracel")
