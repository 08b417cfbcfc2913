"""Locality of generators: what is measured is what the generator predicts, a window is found to be
one, and what is none is named."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.datasets.base import Data, DataConfig, build
from vidcomp.evaluation.clips import clip_set
from vidcomp.evaluation.locality_maps import draw_maps
from vidcomp.evaluation.model_access import ModelAccess
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import GeneratorConfig
from vidcomp.objectives.base import OBJECTIVES, Noised
from vidcomp.probes.base import ClipSet, Findings, Subject
from vidcomp.probes.locality import Config
from vidcomp.runs import SamplingConfig
from vidcomp.seeding import initial_weights
from vidcomp.tokenizers.base import TOKENIZERS
from vidcomp.types import State
from vidcomp.world.splits import Split

SIDE, CELL = 28, 4
WORLD = {"name": "counting", "height": SIDE, "width": SIDE, "radius_px": 2.0, "num_clips": 120}
SPLIT = {"rule": "range", "seen": {"count": [1, 3]}}
WINDOW: dict[str, Any] = {"window": 3}
TOLD: dict[str, dict[str, Any]] = {
    "map": {"encode": "map"},
    "tokens": {"encode": "tokens", "reach": 1.0},
    "vector": {"encode": "vector"},
}
QUICK = {"clips": 3, "probes": 6, "perturbed": 3, "also_at": []}
HEADS = {"mar": {"head_width": 8, "head_depth": 1}}
OBJECTIVE_NAMES = OBJECTIVES.names()
SAMPLING = SamplingConfig()


@cache
def split() -> Split:
    return data_of().split


def data_of(**more: Any) -> Data:
    world = WORLD | {"counts": [0, 1, 2, 3, 4], **more}
    return build(DataConfig.model_validate({"dataset": world, "split": SPLIT}))


@cache
def clips_of(num_frames: int = 1) -> ClipSet:
    moving = {"speed_px": [0.5, 1.0]} if num_frames > 1 else {}
    dataset = data_of(num_frames=num_frames, **moving).dataset
    return clip_set(dataset, "scoring", 60)


def access(objective: str, *, told: str = "map", frames: int = 1, **backbone: Any) -> ModelAccess:
    """Frozen, with open gates, as after training."""
    discrete = "maskgit" in objective
    strides = {"strides": [1 if frames == 1 else 2, CELL, CELL]}
    network = {"name": "fsq", "levels": [5, 5, 5], "width": 8, "depth": 1}
    trunk = {"depth": 2, "width": 24, "heads": 2, **backbone}
    config = GeneratorConfig.model_validate(
        {
            "objective": {"name": objective, **HEADS.get(objective, {})},
            "backbone": trunk,
            "conditioning": {"tell": [], "locations": TOLD[told]},
        }
    )
    with initial_weights(0):
        raw = (network if discrete else {"name": "patches"}) | strides
        tokenizer = TOKENIZERS.config(raw).build()
        generator = config.build(tokenizer.spec, split().factors)
        for name, parameter in generator.named_parameters():
            if "modulation" in name or "to_" in name or "of_places" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    generator.objective.learn_codes(tokenizer.lookup)
    return ModelAccess(
        generator.requires_grad_(False).eval(), tokenizer.requires_grad_(False), SAMPLING
    )


def found_in(model: ModelAccess, clips: ClipSet, **settings: Any) -> Findings:
    sets = {"real": clips, "samples": clips[len(clips.video) // 2 :]}
    subject = Subject(
        sets, split(), model=model, latents=lambda: model.tokenizer.encode(clips.video).values
    )
    return Config.model_validate(QUICK | settings).build(split().factors).run(subject)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_a_belief_is_the_generators(objective: str) -> None:
    model, clips = access(objective), clips_of()[:4]
    (seen,) = model.seen(clips, [0.5])
    belief = model.belief(clips, seen)
    scenes = belief.scenes
    assert clips.locations is not None
    places = clips.locations.all_given()
    told = Condition.of(clips.classes, clips.values, places)
    noised = isinstance(model.generator.objective, Noised)
    clean = model.tokenizer.encode(clips.video)
    level = torch.full((4,), 0.5)
    latents = replace(clean, values=scenes.x) if noised else clean
    nothing = torch.zeros_like(scenes.shown)
    state = State(latents, nothing if noised else scenes.shown, level)
    expected = model.generator.predict(state, told).flatten(1, 3).double()
    torch.testing.assert_close(belief.at(), expected)
    torch.testing.assert_close(
        belief.at(given=belief.none()),
        model.generator.predict(state, told.nowhere()).flatten(1, 3).double(),
    )
    if not noised:
        assert torch.equal(scenes.asked, ~scenes.shown) and scenes.shown.any()


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_windows_are_found_to_be_ones(objective: str) -> None:
    """Whatever the objective: nothing comes from outside, and nothing leaks."""
    told = "tokens" if objective in ("flow", "maskgit") else "map"
    model = access(objective, told=told, **WINDOW)
    window = 5 if told == "tokens" else 3  # an object may stand another cell away
    scores = found_in(model, clips_of(), window=window).scores
    assert scores["network/0.5/enforced"].value == 1
    for key in ("leakage", "leakage_gradient", "swap"):
        assert scores[f"network/0.5/{key}"].value == 0, key
    for key in ("pixels", "perturbed"):
        assert scores[f"network/0.5/{key}/inside"].value == pytest.approx(1)
    assert "untrained/0.5/enforced" not in scores
    assert "wiener/0.5/pixels/r50" in scores and "wiener/0.5/leakage" not in scores


def test_a_window_in_time_is_found_too() -> None:
    clips = clips_of(5)
    model = access("flow", frames=5, window=3, window_frames=3)
    scores = found_in(model, clips).scores
    assert scores["network/0.5/enforced"].value == 1
    assert scores["network/0.5/pixels/r90_frames"].value <= 1
    everywhen = found_in(access("flow", frames=5, **WINDOW), clips).scores
    assert everywhen["network/0.5/pixels/r90_frames"].value > 1


@pytest.mark.parametrize(
    ("told", "backbone", "said"),
    [
        ("map", {}, "backbone.window=null"),
        ("vector", WINDOW, "encode=vector"),
        ("map", WINDOW | {"global_blocks": 1}, "global_blocks=1"),
    ],
)
def test_a_global_path_is_named_and_measured(
    told: str, backbone: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = found_in(access("flow", told=told, **backbone), clips_of()).scores
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("locality is not enforced, so it is only measured: ") and said in line
    assert not any(key.endswith("enforced") for key in scores)
    if "global_blocks" in backbone:  # pixels see everything, conditions do not
        assert scores["network/0.5/leakage"].value == 0
        assert scores["network/0.5/pixels/inside"].value < 0.9
    else:
        assert scores["network/0.5/leakage"].value > 0.1
        assert scores["network/0.5/leakage_gradient"].value > 0.01


@pytest.mark.parametrize("objective", ["flow", "maskgit"])
def test_an_untrained_network_does_not_compose(objective: str) -> None:
    """It fails the tests of additivity and of swapping, and so does its null model."""
    scores = found_in(access(objective, told="vector"), clips_of()).scores
    for source in ("network", "untrained"):
        assert scores[f"{source}/0.5/additivity"].value > 0.05
        assert scores[f"{source}/0.5/swap"].value > 0.2
        assert scores[f"{source}/0.5/leakage"].value > 0.3
    assert scores["network/0.5/leakage"] != scores["untrained/0.5/leakage"]


def test_scenes_are_those_with_as_many_objects_as_wanted() -> None:
    model, clips = access("flow"), clips_of()
    again = [found_in(model, clips, objects=[2, 3]).scores for _ in range(2)]
    assert again[0] == again[1], "asked twice it answers the same"
    assert again[0] != found_in(model, clips, objects=[4, 4]).scores
    assert again[0] != found_in(model, clips, scenes="samples").scores
    assert again[0]["network/0.5/swap"].n == 3
    with pytest.raises(
        UserError, match=r"no scene has 5 to 9 objects, but some have 0, 1, 2, 3, 4"
    ):
        found_in(model, clips, objects=[5, 9])


def test_what_cannot_be_measured_is_refused() -> None:
    model, clips = access("flow"), clips_of()
    with pytest.raises(UserError, match="these clips come without; use a dataset that has them"):
        found_in(model, replace(clips, locations=None))
    assert clips.locations is not None
    outside = replace(clips.locations, points=clips.locations.points + 0.9)
    with pytest.raises(UserError, match=r"asked for at .*, outside the frame"):
        found_in(model, replace(clips, locations=outside))
    probe = Config().build(split().factors)
    with pytest.raises(UserError, match="locality looks inside a network, and none was given"):
        probe.run(Subject({"real": clips}, split()))
    with pytest.raises(UserError, match="locality looks at samples clips; there are none"):
        Config(scenes="samples").build(split().factors).run(
            Subject({"real": clips}, split(), model=model)
        )
    with pytest.raises(UserError, match="a linear denoiser of the clips that were trained on"):
        probe.run(Subject({"real": clips}, split(), model=model))


def test_maps_are_drawn(tmp_path: Path) -> None:
    tables = found_in(access("flow"), clips_of(), also_at=[0.2]).tables
    picture, film = draw_maps(tables, tmp_path, window=3)
    assert picture.stat().st_size > 1000 and film.stat().st_size > 1000
    middle = SIDE // CELL - 1
    for source in ("network", "untrained", "wiener"):
        shares = tables[f"{source}/0.5/maps/pixels"]
        assert shares.shape == (1, 2 * middle + 1, 2 * middle + 1)
        assert shares[0, middle, middle] == 0 and (shares >= 0).all()
    assert not tables["wiener/0.5/maps/objects"].any()
