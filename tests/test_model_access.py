"""The inside of generators: what hooks catch is what the network computes; probes of it by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATA, run_tool
from torch import Tensor

from vidcomp.datasets.base import DataConfig, build
from vidcomp.evaluation.clips import clip_set
from vidcomp.evaluation.model_access import ModelAccess, look_inside, state_at
from vidcomp.models.generator import GeneratorConfig
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.pipeline import Pipeline
from vidcomp.probes import base_network
from vidcomp.probes.base import PROBES, ClipSet, Model, Subject
from vidcomp.probes.base_network import NetworkProbe
from vidcomp.runs import load_tokenizer
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Latents
from vidcomp.world.splits import Split

OBJECTIVE_NAMES = OBJECTIVES.names()
DEPTH, WIDTH, HEADS = 2, 24, 2
LEVEL = 0.4


@pytest.fixture(scope="module")
def world() -> tuple[ClipSet, Split]:
    dataset, split = build(DataConfig.model_validate(DATA))
    return clip_set(dataset, "training", 40), split


@pytest.fixture(scope="module")
def clips(world: tuple[ClipSet, Split]) -> ClipSet:
    return world[0]


def access(fsq: Path, objective: str = "maskgit", **more: Any) -> ModelAccess:
    """Frozen, with open gates, as after training."""
    tokenizer = load_tokenizer(fsq)
    dataset, _ = build(DataConfig.model_validate(DATA))
    backbone = {"depth": DEPTH, "width": WIDTH, "heads": HEADS, **more.pop("backbone", {})}
    config = GeneratorConfig.model_validate({"objective": objective, "backbone": backbone, **more})
    with initial_weights(0):
        generator = config.build(tokenizer.spec, dataset.factors)
        for name, parameter in generator.named_parameters():
            if "modulation" in name or "to_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    generator.objective.learn_codes(tokenizer.lookup)
    return ModelAccess(generator.requires_grad_(False).eval(), tokenizer)


def rows_of(clips: ClipSet, count: int) -> ClipSet:
    return ClipSet(clips.video[:count], clips.classes[:count], clips.values[:count])


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_every_objective_can_be_looked_into(objective: str, fsq: Path, clips: ClipSet) -> None:
    model = access(fsq, objective)
    assert isinstance(model, Model)
    few = rows_of(clips, 3)
    for told in (True, False):
        asked = {"level": LEVEL, "told": told}
        assert model.hidden(few, **asked).shape == (3, DEPTH, WIDTH)
        assert model.heads(few, **asked).shape == (3, DEPTH, HEADS, WIDTH // HEADS)
        influence = model.influence(few, **asked)
        assert influence.shape == (3, DEPTH, 4 * WIDTH)
        assert influence.isfinite().all() and (influence.abs().sum((0, 2)) > 0).all()
    assert not torch.allclose(
        model.hidden(few, LEVEL, told=True), model.hidden(few, LEVEL, told=False)
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"conditioning": {"path": "tokens"}},
        {"backbone": {"attention": "factorised"}},
    ],
)
def test_what_the_heads_write_is_what_is_mixed(
    more: dict[str, Any], fsq: Path, clips: ClipSet
) -> None:
    """Mixed by the layer's matrix, the means are those of what attention gives to the clip."""
    model, few = access(fsq, **more), rows_of(clips, 3)
    blocks = model.generator.network.backbone.blocks
    mixers = [a for b in blocks for a in (b.attention, b.temporal) if a is not None]
    size = model.tokenizer.spec.grid(*few.video.shape[2:]).size
    seen: list[Tensor] = []
    hooks = [
        a.register_forward_hook(
            lambda _module, _given, out: seen.append(out.reshape(3, -1, WIDTH)[:, -size:].mean(1))
        )
        for a in mixers
    ]
    heads = model.heads(few, LEVEL, told=True).flatten(1, 2).unflatten(1, (len(mixers), HEADS))
    for hook in hooks:
        hook.remove()
    for written, mixer, mixed in zip(heads.unbind(1), mixers, seen, strict=True):
        torch.testing.assert_close(mixer.out(written.flatten(1)), mixed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_influence_is_what_turning_a_neuron_down_costs(
    objective: str, fsq: Path, clips: ClipSet
) -> None:
    """Against finite differences: a neuron's column of the next matrix, a little longer or
    shorter."""
    from vidcomp.evaluation.model_access import quality_of

    model, few = access(fsq, objective), rows_of(clips, 3)
    influence = model.influence(few, LEVEL, told=True)
    (shown,) = model._batches(few, LEVEL, told=True)

    def quality() -> Tensor:
        belief = model.generator.predict(shown.state, shown.condition)
        return quality_of(model.generator.objective, belief, shown)

    epsilon = 0.02
    for layer, block in enumerate(model.generator.network.backbone.blocks):
        columns = block.mlp[-1].weight
        strongest = influence[:, layer].abs().sum(0).topk(3).indices
        for neurons in (strongest, torch.arange(4 * WIDTH)):
            before = columns.clone()
            found: list[Tensor] = []
            for factor in (1 + epsilon, 1 - epsilon):
                columns[:, neurons] = factor * before[:, neurons]
                found.append(quality())
                columns.copy_(before)
            slope = (found[0] - found[1]) / (2 * epsilon)
            expected = influence[:, layer, neurons].sum(1)
            torch.testing.assert_close(slope, expected, rtol=0.03, atol=2e-3)


def test_hidden_states_are_the_means_of_the_generators(fsq: Path, clips: ClipSet) -> None:
    model, few = access(fsq), rows_of(clips, 3)
    (shown,) = model._batches(few, LEVEL, told=False)
    assert not shown.condition.given.any()
    found = model.generator.hidden(shown.state, shown.condition, range(DEPTH))
    expected = torch.stack([h.mean(1) for h in found], dim=1)
    assert torch.equal(model.hidden(few, LEVEL, told=False), expected)


def test_a_network_can_be_told_some_factors_and_asked_for_every_position(
    fsq: Path, clips: ClipSet
) -> None:
    model, few = access(fsq), rows_of(clips, 3)
    assert torch.equal(model.hidden_told(few, LEVEL, range(3)), model.hidden(few, LEVEL, told=True))
    nothing = model.hidden(few, LEVEL, told=False)
    assert torch.equal(model.hidden_told(few, LEVEL, ()), nothing)
    one = model.hidden_told(few, LEVEL, (1,))
    other = replace(few, classes=few.classes * torch.tensor([0, 1, 0]))
    assert torch.equal(model.hidden_told(other, LEVEL, (1,)), one) and not torch.equal(one, nothing)
    states = model.hidden_told(few, LEVEL, (1,), pooled=False).unflatten(-1, (-1, WIDTH))
    torch.testing.assert_close(states.mean(2), one)


def test_looking_leaves_nothing_behind_and_answers_alike_in_any_batch(
    fsq: Path, clips: ClipSet
) -> None:
    model = access(fsq)
    before = {name: p.clone() for name, p in model.generator.state_dict().items()}
    for question in (model.hidden, model.heads, model.influence):
        whole = question(clips, LEVEL, told=True)
        part = question(rows_of(clips, 3), LEVEL, told=True)
        torch.testing.assert_close(whole[:3], part, rtol=1e-4, atol=1e-5)
        assert torch.equal(question(clips, LEVEL, told=True), whole)
    assert all(torch.equal(p, before[name]) for name, p in model.generator.state_dict().items())
    assert all(p.grad is None for p in model.generator.parameters())
    assert not any(m._forward_pre_hooks for m in model.generator.modules())


def test_the_untrained_network_has_the_same_numbers_in_another_order(fsq: Path) -> None:
    model = access(fsq)
    other = model.untrained()
    shuffled = dict(other.generator.named_parameters())
    for name, weights in model.generator.named_parameters():
        ours, theirs = weights.flatten(), shuffled[name].flatten()
        assert torch.equal(ours.sort().values, theirs.sort().values)
        assert len(ours.unique()) < 4 or not torch.equal(ours, theirs), name
    again = dict(model.untrained().generator.named_parameters())
    assert all(torch.equal(again[name], weights) for name, weights in shuffled.items())


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_the_level_is_how_much_is_shown(objective: str, fsq: Path) -> None:
    generator = access(fsq, objective).generator
    rng = Rng.make(0, "state", torch.arange(64))
    grid, channels = (3, 4, 4), generator.spec.channels
    clean = Latents(rng.normal(*grid, channels), rng.integers(100, *grid, 1))
    shares: list[float] = []
    for level in (0.0, 0.5, 0.9):
        state = state_at(generator.objective, clean, level, rng)
        assert (state.level == level).all() and state.known.shape == (64, *grid)
        if hasattr(generator.objective, "masking"):
            shares.append(float(state.known.float().mean()))
            expected = 1 - generator.objective.masking.share(torch.tensor(level))
            assert shares[-1] == pytest.approx(float(expected), abs=0.03)
            assert torch.equal(state.latents.values, clean.values)
        else:
            point = generator.objective.path.at(torch.tensor(level))
            rest = state.latents.values - point.alpha * clean.values
            assert not state.known.any()
            assert float(rest.std()) == pytest.approx(float(point.sigma), rel=0.03)
            together = torch.stack([rest.flatten(), clean.values.flatten()])
            assert abs(float(torch.corrcoef(together)[0, 1])) < 0.03


def inside_probes() -> list[str]:
    factors = build(DataConfig.model_validate(DATA)).split.factors
    named = {name: PROBES.config(name) for name in PROBES.names()}
    inside = {name: c for name, c in named.items() if isinstance(c, base_network.Config)}
    return [name for name, c in inside.items() if isinstance(c.build(factors), NetworkProbe)]


@pytest.mark.parametrize("run", ["maskgit", "flow"])
def test_trained_networks_are_looked_into(
    run: str, world: tuple[ClipSet, Split], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(run)
    pipeline = Pipeline.load(folder, device="cpu")
    subject = Subject({"real": world[0]}, world[1])
    configs = [PROBES.config(name) for name in ("heads", "circuits", "layers")]
    found = look_inside(pipeline, folder, subject, configs)
    again = look_inside(pipeline, folder, subject, configs)
    assert found == again
    for source in ("network", "untrained"):
        assert {f"{source}/layer/0", f"{source}/layer/1"} <= found["heads"].scores.keys()
        assert found["heads"].scores[f"{source}/overall"].n == 4
        assert f"{source}/shared/3" in found["circuits"].scores
        for layer in (0, 1):
            scores = found["layers"].scores
            assert 0 <= scores[f"{source}/layer/{layer}/factor/colour"].value <= 1
            assert 0 <= scores[f"{source}/layer/{layer}/additivity/shape+motion"].value <= 1
    ceiling, stranger = (found["circuits"].scores[f"network/shared/{s}"] for s in (3, 0))
    assert ceiling.chance is not None and ceiling.value > max(stranger.value, ceiling.chance)


def copied(run: Path, to: Path) -> Path:
    (to / "fsq").symlink_to(run.parent / "fsq")
    return Path(shutil.copytree(run, to / run.name))


def test_they_are_asked_by_name_in_every_checkpoint_if_wanted(
    maskgit: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(maskgit, tmp_path)
    assert run_tool("probe", run, f"probe={judge}") == 0
    assert not json.loads((run / "scores.json").read_text())["scores"].keys() & set(inside_probes())

    asked = "also=[{name: heads, checkpoints: all},{name: layers, level: 0.2, checkpoints: all}]"
    words = [f"probe={judge}", asked]
    assert run_tool("probe", run, *words) == 0
    scores = json.loads((run / "scores.json").read_text())["scores"]
    assert "circuits" not in scores and "oracle" in scores
    last, before = (scores["layers"][f"{p}network/layer/1/factor/shape"] for p in ("", "step-18/"))
    assert last["n"] == before["n"] > 0
    added = [
        scores["layers"][f"{p}network/layer/1/additivity/shape+motion"] for p in ("", "step-18/")
    ]
    assert added[0] != added[1], "two different networks"
    assert last["chance"] is not None and "step-18/untrained/overall" in scores["heads"]

    capsys.readouterr()
    assert run_tool("probe", run, f"probe={judge}", "also=[oracle]") == 2
    said = capsys.readouterr().err
    assert "oracle is not asked by name; legal: circuits, " in said
    assert run_tool("probe", run, "also=[heads]") == 2
    assert "takes a judge" in capsys.readouterr().err


def test_a_probe_that_cannot_look_says_why_and_the_others_do(
    maskgit: Path, world: tuple[ClipSet, Split], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = Pipeline.load(maskgit, device="cpu")
    few = Subject({"real": rows_of(world[0], 5)}, world[1])
    configs = [PROBES.config(name) for name in ("circuits", "layers")]
    found = look_inside(pipeline, maskgit, few, configs)
    assert list(found) == ["layers"]
    assert "probe circuits was not asked: circuits compares" in capsys.readouterr().out
