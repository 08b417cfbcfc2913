"""What every probe of a network's inside promises, checked on each there is."""

import math

import pytest
import torch
from toy_network import FACTORS, SPLIT, Toy, balanced, clips_of, noise, signs

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import PROBES, Subject
from vidcomp.probes.base_network import NetworkProbe, spread_out

CLASSES = balanced(8)
INSIDE = {"heads": (3, 2, 5), "influence": (3, 50), "hidden": (3, 5)}
QUESTION = {
    "heads": "heads",
    "circuits": "influence",
    "directions": "hidden",
    "layers": "hidden",
}
SIGNED = ("gap", "minimum")
"""Ends of the keys of differences and cosines; all other scores are shares."""


def probes() -> list[str]:
    named = {name: PROBES.config(name) for name in PROBES.names()}
    inside = {name: c for name, c in named.items() if isinstance(c, base_network.Config)}
    return [name for name, c in inside.items() if isinstance(c.build(FACTORS), NetworkProbe)]


def subject(name: str) -> Subject:
    shape = INSIDE[QUESTION[name]]
    told = signs(CLASSES) @ noise(3, math.prod(shape), seed=2)
    knowing = told.unflatten(1, shape) + noise(len(CLASSES), *shape)
    toy = Toy(knowing, random=noise(len(CLASSES), *shape, seed=1))
    return Subject({"real": clips_of(CLASSES)}, SPLIT, model=toy)


def test_these_are_all() -> None:
    assert probes() == sorted(QUESTION)


@pytest.mark.parametrize("name", probes())
def test_answers_are_of_the_network_and_of_an_untrained_one(name: str) -> None:
    probe = PROBES.config(name).build(FACTORS)
    scores = probe.run(subject(name)).scores
    of = {
        source: {k.removeprefix(f"{source}/"): s for k, s in scores.items() if k.startswith(source)}
        for source in ("network", "untrained")
    }
    assert of["network"].keys() == of["untrained"].keys()
    assert len(scores) == 2 * len(of["network"]) and of["network"] != of["untrained"]
    for key, score in scores.items():
        assert score.low <= score.value <= score.high and math.isfinite(score.value)
        assert (-1 if key.endswith(SIGNED) else 0) <= score.value <= 1 and score.n > 0
        assert score.chance is not None and 0 <= score.chance <= 1
    assert probe.run(subject(name)).scores == scores, "asked twice it answers the same"


@pytest.mark.parametrize("name", probes())
def test_without_a_network_or_real_clips_they_say_so(name: str) -> None:
    probe, full = PROBES.config(name).build(FACTORS), subject(name)
    with pytest.raises(UserError, match=f"{name} looks inside a network, and none was given"):
        probe.run(Subject(full.sets, SPLIT))
    with pytest.raises(UserError, match="real clips; there are none"):
        probe.run(Subject({}, SPLIT, model=full.model))


def test_few_clips_are_taken_evenly() -> None:
    clips = clips_of(torch.arange(10)[:, None])
    assert spread_out(clips, 4).classes[:, 0].tolist() == [0, 3, 6, 9]
    assert spread_out(clips, 99).classes[:, 0].tolist() == list(range(10))
    assert spread_out(clips, 1).classes[:, 0].tolist() == [0]
