"""Where objects are, as a network is told: near objects matter and no others, and neither padding
nor order nor what is not given does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition, ConditioningConfig
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.models.locations import LocationEmbedding, LocationsConfig
from vidcomp.pipeline import sampling
from vidcomp.runs import SamplingConfig
from vidcomp.seeding import Rng, initial_weights
from vidcomp.tokenizers.base import TOKENIZERS
from vidcomp.types import Grid, Latents, LatentSpec, State, Video
from vidcomp.world.concepts import choose
from vidcomp.world.locations import Locations

GRID = Grid(1, 6, 8)
WIDTH = 16
KINDS = ("multi_hot", "offset", "gaussian")
LOCAL: dict[str, dict[str, Any]] = {
    **{kind: {"encode": "map", "map": kind} for kind in KINDS},
    "tokens": {"encode": "tokens"},
    "near": {"encode": "tokens", "reach": 1.5},
}
ENCODERS = LOCAL | {"vector": {"encode": "vector"}}
TOLD = {"tell": ["velocity", "attributes"]}


def embedding(**settings: Any) -> LocationEmbedding:
    with initial_weights(0):
        return LocationEmbedding(LocationsConfig.model_validate(settings), WIDTH)


def random_locations(b: int = 5, t: int = 1, n: int = 4, *, seed: int = 0) -> Locations:
    """Of which some are given, in every clip at least the first."""
    rng = Rng.make(seed, "locations", torch.arange(b))
    given = rng.fold("given").bernoulli(0.6, n) | (torch.arange(n) == 0)
    return Locations(
        points=rng.fold("points").uniform(t, n, 2),
        velocities=rng.fold("velocities").normal(t, n, 2) / 10,
        attributes=rng.fold("attributes").uniform(n, 3),
        present=torch.ones(b, n, dtype=torch.bool),
        given=given,
    )


def told(
    embed: LocationEmbedding, locations: Locations, grid: Grid = GRID, *, located: bool = True
) -> Tensor:
    return embed(locations, torch.full((len(locations),), located), grid)


def at_cells(*cells: tuple[float, float], grid: Grid = GRID) -> Locations:
    """One still with objects so many cells from the middle of the first one."""
    return Locations.at([[((x + 0.5) / grid.w, (y + 0.5) / grid.h) for x, y in cells]])


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", LOCAL)
def test_an_object_that_moves_by_a_cell_moves_what_is_told_by_a_cell(name: str) -> None:
    embed = embedding(**LOCAL[name])
    here, right, below = (
        told(embed, at_cells((2.3 + x, 1.8 + y), (4.0 + x, 3.1 + y)))
        for x, y in ((0, 0), (1, 0), (0, 1))
    )
    assert close(right[:, :, :, 1:], here[:, :, :, :-1])
    assert close(below[:, :, 1:], here[:, :, :-1])
    assert not close(right, here) and not close(below, here)


@pytest.mark.parametrize(
    "settings, reach",
    [
        (LOCAL["multi_hot"], 0.5),
        (LOCAL["offset"], 0.5),
        (LOCAL["gaussian"] | {"reach": 2.0}, 2.0),
        (LOCAL["near"], 1.5),
        (LOCAL["near"] | {"reach": 0.5}, 0.5),
    ],
)
@pytest.mark.parametrize("more", [{}, TOLD])
def test_an_object_is_told_of_within_reach_and_nowhere_else(
    settings: dict[str, Any], reach: float, more: dict[str, Any]
) -> None:
    embed, where = embedding(**settings, **more), (3.3, 1.9)
    one = replace(at_cells(where), attributes=torch.ones(1, 1, 3))
    none = replace(one, given=torch.zeros_like(one.given))
    differs = (told(embed, one) != told(embed, none)).any(-1)[0, 0]  # H W
    x, y = torch.meshgrid(torch.arange(GRID.w), torch.arange(GRID.h), indexing="xy")
    near = ((x - where[0]).abs() <= reach) & ((y - where[1]).abs() <= reach)
    assert torch.equal(differs, near)


def test_no_gradient_comes_from_beyond_reach() -> None:
    embed, at = embedding(**LOCAL["near"], **TOLD), (4, 2)
    objects = at_cells((4.6, 2.2), (4.0, 3.6), (5.4, 3.4), (4.0, 0.4), (0.0, 5.0))
    objects = replace(objects, attributes=torch.rand(1, 5, 3))
    for x in (objects.points, objects.velocities, objects.attributes):
        x.requires_grad_()
    here = told(embed, objects)[0, 0, at[1], at[0]]
    gradients = torch.autograd.grad(
        here.square().sum(), [objects.points, objects.velocities, objects.attributes]
    )
    for gradient in gradients:
        moved = gradient.reshape(5, -1).abs().sum(1)
        assert (moved[[0, 2]] > 0).all() and not moved[[1, 3, 4]].any()


def test_where_no_object_is_in_reach_a_constant_is_told() -> None:
    embed = embedding(**LOCAL["near"])
    nowhere = told(embed, Locations.at([[]]))
    assert close(nowhere, nowhere[:, :1, :1, :1].expand_as(nowhere))
    far = told(embed, at_cells((0.0, 0.0)))[0, 0, 3:, 3:]
    assert torch.equal(far, nowhere[0, 0, 3:, 3:])


@pytest.mark.parametrize("more", [{}, TOLD])
@pytest.mark.parametrize("name", ENCODERS)
def test_neither_padding_nor_order_nor_what_is_not_given_matters(
    name: str, more: dict[str, Any]
) -> None:
    embed, some = embedding(**ENCODERS[name], **more), random_locations()
    one = told(embed, some)
    assert close(one, told(embed, some.padded(9)))
    order = torch.tensor([2, 0, 3, 1])
    swapped = Locations(
        some.points[:, :, order],
        some.velocities[:, :, order],
        some.attributes[:, order],
        some.present[:, order],
        some.given[:, order],
    )
    assert close(one, told(embed, swapped))
    out = (~some.given)[:, None, :, None]
    hidden = replace(
        some,
        points=some.points.masked_fill(out, torch.nan),
        velocities=some.velocities.masked_fill(out, torch.nan),
        attributes=some.attributes.masked_fill(out[:, 0], torch.nan),
    )
    assert torch.equal(one, told(embed, hidden))
    for other in (replace(some, given=~some.given), random_locations(seed=1)):
        assert (one - told(embed, other)).flatten(1).abs().amax(1).gt(1e-4).all()


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_told_beside_the_place(name: str) -> None:
    some = random_locations()
    faster = replace(some, velocities=some.velocities + 0.1)
    redder = replace(some, attributes=some.attributes + 0.2)
    for tell, matters in (([], (0, 0)), (["velocity"], (1, 0)), (["attributes"], (0, 1))):
        embed = embedding(**ENCODERS[name], tell=tell)
        one = told(embed, some)
        for other, is_told in zip((faster, redder), matters, strict=True):
            assert torch.equal(one, told(embed, other)) != bool(is_told)
    with pytest.raises(UserError, match="these objects have 0; legal: 1 to 16; or drop"):
        told(embed, at_cells((1.0, 1.0)))


@pytest.mark.parametrize("more", [{}, TOLD])
@pytest.mark.parametrize("name", LOCAL)
def test_a_latent_frame_is_told_of_its_own_places(name: str, more: dict[str, Any]) -> None:
    grid, moving = Grid(3, 6, 8), random_locations(t=9)
    shown = told(embedding(**LOCAL[name], **more), moving, grid)
    assert shown.shape == (5, *grid, WIDTH)
    for latent, frame in enumerate((0, 4, 8)):
        still = told(embedding(**LOCAL[name], **more), moving.frames(frame, 1))
        assert close(shown[:, latent], still[:, 0])
    first = told(embedding(**LOCAL[name], **more, per="clip"), moving, grid)
    assert close(first, shown[:, :1].expand_as(first))


def test_a_vector_is_of_all_frames_in_their_order_or_of_the_first() -> None:
    grid, moving = Grid(3, 6, 8), random_locations(t=9)
    turned = replace(moving, points=moving.points.flip(1))
    unseen = replace(moving, points=moving.points.clone())
    unseen.points[:, 1] = 0.5
    for per, sees in (("frame", True), ("clip", False)):
        embed = embedding(encode="vector", per=per)
        one = told(embed, moving, grid)
        assert one.shape == (5, WIDTH) and torch.equal(one, told(embed, unseen, grid))
        later = replace(moving, points=moving.points.clone())
        later.points[:, 8] = 0.5
        assert close(one, told(embed, later, grid)) != sees
        assert not close(one, told(embed, turned, grid))


@pytest.mark.parametrize("name", ENCODERS)
def test_not_to_be_told_is_the_same_whatever_there_is_and_not_the_same_as_nothing(
    name: str,
) -> None:
    embed, some = embedding(**ENCODERS[name]), random_locations()
    untold = told(embed, some, located=False)
    assert torch.equal(untold, told(embed, random_locations(seed=1), located=False))
    assert torch.equal(untold, embed.null.expand_as(untold)), "the same at every position"
    nothing = told(embed, replace(some, given=torch.zeros_like(some.given)))
    assert (untold - nothing).abs().amax(-1).gt(1e-4).all()
    half = embed(some, torch.arange(5) < 2, GRID)
    assert torch.equal(half, torch.cat([told(embed, some)[:2], untold[2:]]))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("point", [(float("nan"), 0.5), (0.5, 1.2)])
def test_places_outside_the_frame_are_refused(name: str, point: tuple[float, float]) -> None:
    some = random_locations()
    some.points[3, 0, 0] = torch.tensor(point)
    with pytest.raises(UserError, match=r"object 0 of clip 3 is asked for at .* outside the frame"):
        told(embedding(**ENCODERS[name]), some)


@pytest.mark.parametrize("name", ["multi_hot", "offset", "vector"])
def test_a_reach_that_nothing_has_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no reach; drop it, or set encode=tokens"):
        LocationsConfig.model_validate(ENCODERS[name] | {"reach": 2.0})


# Conditions with places.


FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up", "down"]})


def condition(locations: Locations) -> Condition:
    classes = FACTORS.combinations()[torch.arange(len(locations)) % FACTORS.num_combinations]
    return Condition.of(classes, FACTORS.prototypes(classes), locations)


def test_null_nowhere_and_alone() -> None:
    asked = condition(random_locations())
    assert asked.located is not None and asked.located.all() and asked.locations is not None
    null, nowhere = asked.null(), asked.nowhere()
    assert not null.located.any() and not null.locations.given.any() and not null.given.any()
    assert nowhere.located.all() and not nowhere.locations.given.any() and nowhere.given.all()
    alone = torch.stack([asked.alone(k).locations.given for k in range(4)])
    assert torch.equal(alone.any(0), asked.locations.given) and alone.sum(0).amax() == 1
    for k in range(4):
        assert not alone[k][:, torch.arange(4) != k].any()
    assert asked.keep([0]).locations is asked.locations, "places are no factor"


def test_conditions_are_cut_joined_and_chosen_with_their_places() -> None:
    asked, here = condition(random_locations()), torch.tensor([True, False, True, True, False])
    again = Condition.cat([asked[:2], asked[2:].to("cpu")])
    mixed = asked.or_else(asked.null(), here)
    assert torch.equal(again.locations.points, asked.locations.points)
    assert torch.equal(mixed.located, here) and torch.equal(mixed.given.all(1), here)
    assert torch.equal(mixed.locations.given, asked.locations.given & here[:, None])
    with pytest.raises(UserError, match="5 clips are asked for, with the places of 4"):
        Condition.of(asked.classes, asked.values, asked.locations[:4])


def test_places_are_dropped_together_with_the_factors() -> None:
    asked, rng = condition(random_locations(400)), Rng.make(0, "drop", torch.arange(400))
    dropped = asked.dropped(ConditioningConfig(drop_joint=0.3), rng)
    assert (
        torch.equal(dropped.located, dropped.given.any(1)) and 60 < (~dropped.located).sum() < 180
    )
    kept = asked.locations.given & dropped.located[:, None]
    assert torch.equal(dropped.locations.given, kept)
    factors = asked.dropped(ConditioningConfig(drop_joint=0, drop_factor=1.0), rng)
    assert factors.located.all() and not factors.given.any()


# Generators.


SPEC = LatentSpec(Grid(4, 8, 8), 3)
DEEP = {"depth": 3, "width": 24, "heads": 2}


def generator_of(
    locations: dict[str, Any] | None, backbone: dict[str, Any] | None = None, **told: Any
) -> Generator:
    """With open gates, as after training; told of no factor."""
    config = GeneratorConfig.model_validate(
        {
            "objective": "flow",
            "backbone": DEEP | (backbone or {}),
            "conditioning": {"tell": [], "locations": locations, **told},
        }
    )
    with initial_weights(0):
        generator = config.build(SPEC, FACTORS)
        for name, parameter in generator.named_parameters():
            if any(part in name for part in ("modulation", "to_answer")):
                torch.nn.init.normal_(parameter, std=0.2)
    return generator.eval()


def state_of(grid: Grid, b: int = 1) -> State:
    values = Rng.make(0, "state", torch.arange(b)).normal(*grid, 3)
    return State(Latents(values), torch.zeros(b, *grid, dtype=torch.bool), torch.full((b,), 0.4))


WINDOW = {"window": 3}


@pytest.mark.parametrize(
    "locations, backbone, way",
    [
        (LOCAL["offset"], WINDOW, ""),
        (LOCAL["gaussian"] | {"reach": 1.0}, WINDOW, ""),
        (LOCAL["near"], WINDOW | {"window_at_noise": 5}, ""),
        (LOCAL["offset"], {}, "backbone.window=null"),
        (ENCODERS["vector"], WINDOW, "locations.encode=vector"),
        (LOCAL["tokens"], WINDOW, "locations.reach=null for tokens"),
        (LOCAL["gaussian"] | {"sigma": 3.0}, WINDOW, "locations.reach=null for map=gaussian"),
    ],
)
def test_a_far_object_matters_just_where_a_global_path_is_named(
    locations: dict[str, Any], backbone: dict[str, Any], way: str
) -> None:
    generator, grid = generator_of(locations, backbone), Grid(1, 8, 8)
    paths = generator.global_paths()
    assert len(paths) == bool(way) and all(way in path for path in paths)
    (one, moved) = (
        generator.predict(state_of(grid), condition(at_cells((1.0, 1.0), there, grid=grid)))[0, 0]
        for there in ((7.0, 7.0), (6.6, 6.2))
    )
    assert torch.equal(one[:3, :3], moved[:3, :3]) == (not way)
    assert not torch.equal(one[5:, 5:], moved[5:, 5:])


def test_every_other_global_path_is_named() -> None:
    whole = generator_of(LOCAL["offset"], WINDOW | {"global_blocks": 1}, tell=None)
    assert [path.partition(" ")[0] for path in whole.global_paths()] == [
        "backbone.global_blocks=1",
        "conditioning.tell:",
    ]
    assert "told of shape, motion (set [])" in whole.global_paths()[1]
    clips = generator_of(LOCAL["offset"] | {"per": "clip"}, WINDOW)
    assert clips.global_paths() == []
    assert [path.partition(" ")[0] for path in clips.global_paths(in_time=True)] == [
        "backbone.window_frames=null",
        "conditioning.locations.per=clip",
    ]
    with pytest.raises(ValueError, match=r"a path around every window; set .*path=adaln"):
        generator_of(None, WINDOW, path="tokens")


@pytest.mark.parametrize("name", ENCODERS)
def test_a_generator_trains_on_places_and_samples_them(name: str) -> None:
    generator, grid = generator_of(ENCODERS[name]), Grid(3, 4, 4)
    asked = condition(random_locations(6, t=9))
    latents, rng = Latents(state_of(grid, 6).latents.values), Rng.make(0, "step", torch.arange(6))
    generator(latents, asked, rng).total().mean().backward()
    places = generator.network.embedding.of_places
    assert isinstance(places, LocationEmbedding)
    for part, parameter in places.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, part
    without = Condition.of(asked.classes, asked.values)
    with pytest.raises(UserError, match=r"told where objects are .*ask with Condition.of") as error:
        generator.predict(state_of(grid, 6), without)
    assert "\n" not in str(error.value)


def test_a_generator_that_is_not_told_of_places_does_not_look_at_them() -> None:
    generator, grid = generator_of(None), Grid(1, 4, 4)
    some, state = condition(random_locations()), state_of(grid, 5)
    plain = Condition.of(some.classes, some.values)
    assert torch.equal(generator.predict(state, some), generator.predict(state, plain))


def test_each_chunk_of_a_longer_clip_is_told_of_its_own_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = TOKENIZERS.config({"name": "kl", "width": 16, "strides": [2, 4, 4]}).build()
    generator, size = generator_of(LOCAL["offset"], prefix=0.5), Grid(5, 16, 16)
    asked, seen = condition(random_locations(2, t=9)), []

    def stub(*parts: Any, **named: Any) -> Video:
        seen.append(parts[2])
        return torch.zeros(2, 3, *size)

    monkeypatch.setattr(sampling, "sample_clips", stub)
    how = SamplingConfig(num_frames=9, overlap_frames=3)
    rng = Rng.make(0, "sample", torch.arange(2))
    video = sampling.roll_out(generator, tokenizer, asked, size, how, rng)
    assert video.shape[2] == 9 and len(seen) == 3
    for chunk, start in zip(seen, (0, 2, 4), strict=True):
        shown = chunk.locations.points
        assert torch.equal(shown, asked.locations.points[:, start : start + 5])
    short = condition(random_locations(2, t=7))
    with pytest.raises(UserError, match="places of objects are known in 7 frames; give them in 9"):
        sampling.roll_out(generator, tokenizer, short, size, how, rng)
