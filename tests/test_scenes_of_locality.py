"""What locality is measured on: the sampler's own states, objects that are not there, and what the
network learned from."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_locality_of_networks import WINDOW, access, clips_of, data_of, found_in, split

from vidcomp.config import UserError
from vidcomp.evaluation.beliefs import placed
from vidcomp.evaluation.clips import clip_rows, clips_at
from vidcomp.evaluation.model_access import ModelAccess
from vidcomp.evaluation.seen import training_latents
from vidcomp.models.conditioning import Condition
from vidcomp.pipeline import sample_clips
from vidcomp.probes.base import ClipSet, Subject
from vidcomp.probes.base_composition import insertions, leakage, newcomers
from vidcomp.probes.base_locality import Opened
from vidcomp.probes.base_nulls import Wiener
from vidcomp.probes.locality import Config
from vidcomp.runs import SamplingConfig
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Prediction, State


def sampled_in(objective: str, steps: int, **more: Any) -> ModelAccess:
    name = "euler" if objective == "flow" else "unmask"
    raw = {"sampler": {"name": name, "num_steps": steps}, "guidance_scale": 3.0, "seed": 5}
    return replace(access(objective, **more), sampling=SamplingConfig.model_validate(raw))


def told_of(clips: ClipSet) -> Condition:
    assert clips.locations is not None
    return Condition.of(clips.classes, clips.values, clips.locations.all_given())


@pytest.mark.parametrize("objective", ["flow", "maskgit"])
def test_the_path_of_a_sampler_of_one_step_is_its_start(objective: str) -> None:
    model, clips = sampled_in(objective, 1), clips_of()[:4]
    for seen in model.path(clips, [0.0, 0.5, 0.9]):
        assert not seen.state.level.any() and not seen.state.known.any()
        if objective == "flow":
            at_start = model.belief(clips, seen).at().reshape(seen.clean.values.shape)
            torch.testing.assert_close(seen.clean.values, at_start.float(), rtol=1e-4, atol=1e-4)
            assert float(seen.state.latents.values.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("objective", ["flow", "maskgit", "mar"])
def test_a_path_is_what_sampling_without_guidance_goes_through(objective: str) -> None:
    """With 4 steps it stops at quarters; levels between are those before them."""
    model, clips = sampled_in(objective, 4), clips_of()[:4]
    asked: list[State] = []

    def watch(state: State, made: Prediction) -> None:
        asked.append(state)

    sample_clips(
        model.generator,
        model.tokenizer,
        told_of(clips),
        Grid(*clips.video.shape[2:]),
        model.sampling.model_copy(update={"guidance_scale": 1.0}),
        Rng.make(5, "path", torch.arange(4)),
        watch=watch,
    )
    path = model.path(clips, [0.1, 0.25, 0.5, 0.6, 0.9])
    for seen, step in zip(path, (0, 1, 2, 2, 3), strict=True):
        there = asked[step]
        assert torch.equal(seen.state.level, torch.full((4,), step / 4))
        assert torch.equal(seen.state.known, there.known)
        assert torch.equal(seen.state.latents.values, there.latents.values)
        known = seen.state.known
        if objective == "maskgit":
            assert seen.clean.codes is not None and seen.state.latents.codes is not None
            assert torch.equal(seen.clean.codes[known], seen.state.latents.codes[known])
        assert torch.equal(known, seen.swapped.known)
        assert torch.equal(seen.swapped.level, seen.state.level)


@pytest.mark.parametrize("objective", ["flow", "maskgit"])
def test_windows_are_ones_on_the_path_too(objective: str) -> None:
    model = sampled_in(objective, 4, **WINDOW)
    scores = found_in(model, clips_of(), scenes="path", also_at=[0.3]).scores
    for level in ("0.3", "0.5"):
        assert scores[f"network/{level}/enforced"].value == 1
        for key in ("leakage", "swap"):
            assert scores[f"network/{level}/{key}"].value == 0, key
    real = found_in(model, clips_of()).scores
    assert scores["network/0.5/additivity"] != real["network/0.5/additivity"]
    of_objects = {key.partition("/")[2] for key in scores if key.startswith("network/0.5")}
    assert of_objects == {key.partition("/")[2] for key in real if key.startswith("network/0.5")}


def test_a_shrinking_window_is_as_wide_as_where_the_path_stands() -> None:
    """At level 0.9 a sampler of two steps stands at 0.5, where more is seen."""
    model = sampled_in("flow", 2, window=1, window_at_noise=7)
    scores = found_in(model, clips_of(), scenes="path", level=0.9).scores
    assert scores["network/0.9/enforced"].value == 1
    assert scores["network/0.9/pixels/inside"].value < 1 and model.reach(0.9).cells == 1


@pytest.mark.parametrize(("told", "leaks"), [("map", False), ("tokens", False), ("vector", True)])
def test_one_more_object_is_felt_as_far_as_the_network_reaches(told: str, leaks: bool) -> None:
    model, clips = access("flow", told=told, **WINDOW), clips_of()[:8]
    (seen,) = model.seen(clips, [0.5])
    belief = model.belief(clips, seen)
    new = newcomers(belief.scenes, 3, Rng.make(0, "test", torch.arange(8)))
    found = leakage(insertions(belief, new), new, 5)  # tokens reach another cell
    assert new.given.any() and found[new.given[:, 0]].isfinite().all()
    assert bool((found[new.given[:, 0]] > 0).all()) is leaks
    assert bool((found[new.given[:, 0]] == 0).all()) is not leaks


def test_one_more_object_looks_like_one_of_the_scene() -> None:
    clips = clips_of()
    assert clips.locations is not None
    rows = clips.locations.present.sum(1) >= 2
    locations = clips.locations[rows].all_given()
    rest = torch.arange(locations.present.shape[1]) > 0
    without_first = replace(locations, given=locations.given & rest)
    points = torch.cat([locations.points, torch.full_like(locations.points[:, :, :1], 0.5)], dim=2)
    given = torch.cat([locations.given, locations.given[:, :1]], dim=1)
    more = placed(without_first, points, given)
    assert torch.equal(more.attributes[:, -1], locations.attributes[:, 1])
    assert torch.equal(more.attributes[:, :-1], locations.attributes)
    assert not more.velocities[:, :, -1].any() and torch.equal(more.points, points)


def test_the_null_model_learns_from_training_clips() -> None:
    """Of seen counts; and it is what numpy makes of all of them."""
    dataset, tokenizer = data_of().dataset, access("flow").tokenizer
    latents = training_latents(tokenizer, dataset, split())
    rows = clip_rows(dataset, "training")
    counts = torch.tensor([int(n) for n in split().factors.items[0].class_names])
    counts = counts[dataset.classes()[rows, 0]]
    learned = clips_at(dataset, rows[(counts >= 1) & (counts <= 3)])
    assert torch.equal(latents, tokenizer.encode(learned.video).values) and len(latents) < 100

    scoring = tokenizer.encode(clips_of().video[:3]).values.flatten(1)
    flat = latents.flatten(1).double().numpy()
    seen, noise = scoring.double().numpy(), 0.5
    covariance = np.cov(flat.T)
    gain = np.linalg.solve(covariance + noise * np.eye(len(covariance)), covariance)
    expected = flat.mean(0) + (seen - flat.mean(0)) @ gain
    precision = torch.full((3, *latents.shape[1:4]), 1 / noise)
    x = scoring.reshape(3, *latents.shape[1:])
    found = Wiener.of(latents).denoiser(precision)(x).flatten(1).double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_they_are_made_only_for_who_asks_and_enough_of_them_need_no_flag() -> None:
    model, clips = access("flow"), clips_of()
    made: list[int] = []

    def latents(num: int) -> torch.Tensor:
        made.append(num)
        shape = model.tokenizer.encode(clips.video[:1]).values.shape[1:]
        return Rng.make(0, "many", torch.arange(num)).normal(*shape)

    quick = Config(clips=2, probes=2, perturbed=1, also_at=())
    for num, flag in ((60, "a covariance of 60 clips"), (1000, "")):
        subject = Subject({"real": clips}, split(), model=model, latents=partial(latents, num))
        assert num not in made
        scores = quick.build(split().factors).run(subject).scores
        assert {s.flag for key, s in scores.items() if key.startswith("wiener/")} == {flag}
        assert {s.flag for key, s in scores.items() if key.startswith("network/")} == {""}
    assert made == [60, 1000]
    with pytest.raises(UserError, match="takes two clips or more, got 1"):
        one = Subject({"real": clips}, split(), model=model, latents=partial(latents, 1))
        quick.build(split().factors).run(one)
    assert isinstance(model, Opened)
