"""The world of one sprite: what is controlled is as asked, nothing else tells of it, and nothing
leaves the frame."""

import math

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.world.concepts import SINGLE, choose
from vidcomp.world.factors import Factors
from vidcomp.world.scenes import RADIUS, TRAVEL, combinations_of, draw_values
from vidcomp.world.shapes import EXTENT
from vidcomp.world.single import VARYING, check_single, draw_single
from vidcomp.world.sprites import Scene

LOOKS = {
    "motion": ("right", "left", "up", "down", "still"),
    "size": ("large", "small"),
    "colour": ("red", "blue", "green", "yellow", "magenta", "cyan"),
    "shape": ("star", "circle"),
}
MOTIONS = {
    "motion": ("right", "left", "up", "down"),
    "speed": ("slow", "fast"),
    "turn": ("straight", "clockwise", "counter"),
    "rotation": ("upright", "spin", "spin_back"),
    "presence": ("stay", "appear", "vanish"),
}
BOUNCES = {"bounce": ("free", "bounce"), "size": ("small", "large"), "speed": ("slow", "fast")}
CHOICES = [LOOKS, MOTIONS, BOUNCES, {"shape": ("circle",)}, {"turn": ("clockwise", "counter")}]


def any_classes(factors: Factors, count: int) -> Tensor:
    """At random: too many combinations to go through."""
    g = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(k, (count,), generator=g) for k in factors.sizes], dim=1)


def draw(
    chosen: dict[str, tuple[str, ...]],
    count: int = 600,
    *,
    seed: int = 0,
    classes: Tensor | None = None,
    varying: tuple[str, ...] = (),
    **size: int,
) -> tuple[Tensor, Scene]:
    factors, indices = choose(chosen), torch.arange(count)
    classes = combinations_of(factors, indices, seed=seed) if classes is None else classes
    shape = {"num_frames": 9, "height": 32, "width": 32, **size}
    values = draw_values(factors, classes, indices, seed=seed)
    scene = draw_single(factors, classes, values, indices, seed=seed, varying=varying, **shape)
    return classes, scene


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("height, width", [(32, 32), (20, 50)])
def test_the_sprite_stays_in_the_frame(
    chosen: dict[str, tuple[str, ...]], height: int, width: int
) -> None:
    _, scene = draw(chosen, height=height, width=width)
    reach = EXTENT * scene.radius[:, None, :, None]
    frame = torch.tensor([width, height]) / min(height, width)
    assert (scene.centres - reach >= -1e-6).all()
    assert (scene.centres + reach <= frame + 1e-6).all()


@pytest.mark.parametrize("chosen", CHOICES)
def test_positions_are_the_integral_of_velocities(chosen: dict[str, tuple[str, ...]]) -> None:
    """By the trapezoid rule, where nothing bounces in between."""
    _, scene = draw(chosen, num_frames=65)
    v = scene.velocities
    assert v is not None and scene.contacts is not None
    error = (scene.centres.diff(dim=1) - (v[:, 1:] + v[:, :-1]) / 2).norm(dim=-1)
    assert error[~scene.contacts[:, 1:, :, -1]].amax() < 1e-5


def test_motion_goes_the_way_it_is_called() -> None:
    for chosen in (LOOKS, MOTIONS):
        classes, scene = draw(chosen)
        travel = scene.centres[:, -1, 0] - scene.centres[:, 0, 0]
        signs = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
        for k, name in enumerate(chosen["motion"]):
            moved = travel[classes[:, 0] == k]
            ways = moved.sign().where(moved.abs() > 1e-6, 0)
            assert torch.equal(ways, torch.tensor(signs[name]).expand_as(moved).float())


def test_without_a_turn_the_motion_is_straight_and_steady() -> None:
    _, scene = draw(LOOKS)
    step = scene.centres.diff(dim=1)
    assert torch.allclose(step, step[:, :1].expand_as(step), atol=1e-6)


def test_turns_have_their_angle_and_speeds_their_length() -> None:
    """Read from the path, against the values."""
    chosen = {"motion": ("up", "left"), "turn": MOTIONS["turn"], "speed": ("slow", "fast")}
    classes, scene = draw(chosen, num_frames=129)
    values = draw_values(choose(chosen), classes, torch.arange(600), seed=0)
    step = scene.centres[:, :, 0].diff(dim=1)
    assert torch.allclose(step.norm(dim=-1).sum(1), values[:, 2, 0], rtol=1e-3)
    first, last = step[:, 0], step[:, -1]
    cross = first[:, 0] * last[:, 1] - first[:, 1] * last[:, 0]
    turned = torch.atan2(cross, (first * last).sum(1))  # clockwise, since y is down
    assert torch.allclose(turned, values[:, 1, 0] * 127 / 128, atol=1e-2)


def test_rotation_turns_the_sprite_by_its_value() -> None:
    chosen = {"rotation": MOTIONS["rotation"], "shape": ("heart",)}
    classes, scene = draw(chosen)
    values = draw_values(choose(chosen), classes, torch.arange(600), seed=0)
    turned = scene.angle_rad[:, -1, 0] - scene.angle_rad[:, 0, 0]
    assert torch.allclose(turned, values[:, 0, 0], atol=1e-5)
    assert scene.angle_rad[:, 0].abs().amax() <= 0.15


def test_presence_is_one_switch_in_the_middle() -> None:
    classes, scene = draw(MOTIONS, num_frames=33)
    assert scene.opacity is not None
    switches = scene.opacity[:, :, 0].diff(dim=1)
    for k, change in enumerate((0, 1, -1)):
        mine = switches[classes[:, 4] == k]
        assert torch.equal(mine.sum(1), torch.full((len(mine),), float(change)))
        assert torch.equal(mine.abs().sum(1), torch.full((len(mine),), float(abs(change))))
        if change:
            when = mine.abs().argmax(1) / 32
            assert 0.3 < when.amin() < 0.4 < 0.6 < when.amax() < 0.7


@pytest.mark.parametrize("chosen", [{**BOUNCES, "motion": ("up", "right")}, BOUNCES])
def test_a_bounce_is_one_reflection_at_the_wall(chosen: dict[str, tuple[str, ...]]) -> None:
    classes, scene = draw(chosen, num_frames=65, width=48)
    v, contacts = scene.velocities, scene.contacts
    assert v is not None and contacts is not None
    bounces = classes[:, 0] == 1
    assert torch.equal(contacts[:, :, 0, 1].sum(1), bounces.long())
    assert not contacts[..., 0].any()
    assert (v[:, -1] == v[:, 0])[~bounces].all()
    v = v[bounces, :, 0]
    assert torch.allclose(v[:, -1].abs(), v[:, 0].abs())  # elastic
    assert ((v[:, -1] == -v[:, 0]) & (v[:, 0] != 0)).sum(1).tolist() == [1] * len(v)
    reach = EXTENT * scene.radius[bounces, :, None]
    frame = torch.tensor([1.5, 1.0])
    centres = scene.centres[bounces, :, 0]
    gap = torch.minimum(centres - reach, frame - reach - centres)  # b t 2
    touch = contacts[bounces, :, 0, 1].float().argmax(1)
    at_touch = gap[torch.arange(len(gap)), touch].amin(1)
    assert at_touch.amax() <= v.norm(dim=-1).amax() + 1e-6  # within a frame of the wall


def test_a_value_is_what_is_drawn() -> None:
    classes, scene = draw(LOOKS)
    values = draw_values(choose(LOOKS), classes, torch.arange(600), seed=0)
    assert torch.equal(values[:, 2, :3], scene.rgb[:, 0])
    assert torch.equal(values[:, 1, :1], scene.radius)
    assert (values[:, 3] == 0).all()  # a shape has no number


def test_what_is_not_controlled_varies_over_its_range_or_is_left_out() -> None:
    _, scene = draw({"shape": ("circle",)}, count=2000)
    assert RADIUS[0] <= scene.radius.amin() < 0.205 and 0.245 < scene.radius.amax() <= RADIUS[1]
    assert scene.rgb.amin() >= 0.1 - 1e-6 and scene.rgb.amax() <= 0.9 + 1e-6
    assert all(abs(scene.rgb[..., c].mean() - 0.5) < 0.03 for c in range(3))  # no hue is preferred
    travel = (scene.centres[:, -1] - scene.centres[:, 0])[:, 0]
    assert all(travel[:, axis].mean().abs() < 0.02 for axis in range(2))  # nor a direction
    length = travel.norm(dim=1)
    assert TRAVEL[0] - 1e-5 <= length.amin() and length.amax() <= TRAVEL[1] + 1e-5
    left_out = (scene.texture, scene.opacity, scene.background, scene.light)
    assert all(x is None for x in left_out)
    assert torch.equal(scene.angle_rad, scene.angle_rad[:, :1].expand_as(scene.angle_rad))
    _, scene = draw({"colour": ("red",)}, count=300, varying=VARYING)
    assert len(scene.shape.unique()) == 3
    assert scene.texture is not None and len(scene.texture.unique()) == 4
    assert scene.background is not None and len(scene.background.kind.unique()) == 4
    assert scene.light is not None and scene.light.amin() < 0.57 and scene.light.amax() > 0.98


MOVED_BY = {
    "shape": {"shape"},
    "colour": {"rgb"},
    "texture": {"texture"},
    "background": {"background"},
    "presence": {"opacity"},
    "rotation": {"angle_rad"},
    "motion": {"centres", "velocities"},
    "speed": {"centres", "velocities"},
    "turn": {"centres", "velocities"},
    "size": {"centres", "radius"},
    "bounce": {"centres", "velocities", "contacts"},
}


@pytest.mark.parametrize("name", MOVED_BY)
def test_another_class_of_one_factor_changes_that_alone(name: str) -> None:
    """Every draw of what is not controlled stays the same, bit for bit."""
    chosen = {factor.name: factor.class_names for factor in SINGLE}
    chosen["motion"] = chosen["motion"][:-1]
    chosen.pop("turn" if name == "bounce" else "bounce")
    factors = choose(chosen)
    classes = any_classes(factors, 200)
    column = factors.names.index(name)
    others = classes.clone()
    others[:, column] = (others[:, column] + 1) % factors.sizes[column]
    first, second = (
        draw(chosen, 200, classes=c, varying=("lighting",))[1] for c in (classes, others)
    )
    changed = set()
    for field in ("centres", "velocities", "radius", "angle_rad", "rgb", "shape", "texture"):
        if not torch.equal(getattr(first, field), getattr(second, field)):
            changed.add(field)
    for field in ("opacity", "light", "contacts"):
        if not torch.equal(getattr(first, field), getattr(second, field)):
            changed.add(field)
    assert first.background is not None and second.background is not None
    assert torch.equal(first.background.draws, second.background.draws)
    if not torch.equal(first.background.kind, second.background.kind):
        changed.add("background")
    assert changed == MOVED_BY[name]


def test_no_nuisance_tells_a_class() -> None:
    """The means of what is drawn freely are the same for every class of every factor; of the place
    it is the middle of the way, since a way to the right must begin on the left."""
    chosen = {"shape": ("circle", "star", "heart"), **MOTIONS, "texture": ("plain", "dots")}
    classes, scene = draw(chosen, count=7776, varying=("background", "lighting"))
    middle = (scene.centres.amax(1) + scene.centres.amin(1))[:, 0] / 2
    assert scene.light is not None and scene.background is not None
    nuisance = torch.cat(
        [
            middle,
            scene.radius,
            scene.rgb[:, 0],
            scene.angle_rad[:, 0],
            scene.light[:, None],
            scene.background.draws,
            scene.background.kind[:, None].float(),
        ],
        dim=1,
    )
    for f, factor in enumerate(choose(chosen).items):
        for k in range(len(factor.classes)):
            mine = nuisance[classes[:, f] == k]
            error = nuisance.std(0) / math.sqrt(len(mine))
            z = (mine.mean(0) - nuisance.mean(0)) / error
            assert z.abs().amax() < 4.5, (factor.name, factor.class_names[k], z)


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    classes, scene = draw(MOTIONS, varying=("texture", "background", "lighting"))
    factors, rows = choose(MOTIONS), torch.tensor([500, 3, 77])
    size = {"num_frames": 9, "height": 32, "width": 32}
    alone = draw_single(
        factors,
        classes[rows],
        draw_values(factors, classes[rows], rows, seed=0),
        rows,
        seed=0,
        varying=("texture", "background", "lighting"),
        **size,
    )
    part = scene[rows]
    for name in ("centres", "radius", "angle_rad", "rgb", "shape", "texture", "opacity", "light"):
        assert torch.equal(getattr(alone, name), getattr(part, name)), name
    assert alone.background is not None and part.background is not None
    assert torch.equal(alone.background.draws, part.background.draws)
    _, other = draw(MOTIONS, seed=1)
    assert not torch.isin(other.radius, scene.radius).any()


@pytest.mark.parametrize(
    "chosen, varying, num_frames, complaint",
    [
        ({"motion": ("up",)}, (), 1, "motion cannot be seen in one frame"),
        ({"turn": ("straight", "counter")}, (), 2, "turn cannot be seen in 2 frames; legal: 3"),
        ({"rotation": ("spin",), "shape": ("heart",)}, (), 7, "rotation .* 7 frames; legal: 8"),
        ({"speed": ("slow",), "motion": ("up", "still")}, (), 9, "speed .* stands still"),
        ({"turn": ("counter",), "bounce": ("bounce",)}, (), 9, "turn and bounce cannot"),
        ({"rotation": ("spin",)}, (), 9, "rotation cannot be seen of a plain circle"),
        ({"rotation": ("spin",), "shape": ("ring",)}, (), 9, "of a plain ring"),
        ({"shape": ("ring",)}, ("lightning",), 9, "no 'lightning'; did you mean 'lighting'"),
        ({"texture": ("dots",)}, ("texture",), 9, "'texture' is a factor already"),
    ],
)
def test_what_cannot_be_seen_is_refused(
    chosen: dict[str, tuple[str, ...]], varying: tuple[str, ...], num_frames: int, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        check_single(choose(chosen), varying, num_frames)


def test_a_texture_shows_that_a_circle_turns() -> None:
    check_single(choose({"rotation": ("spin",), "texture": ("dots",)}), (), 9)
