"""Scenes: what is controlled is as asked, what is not varies, and nothing leaves the frame."""

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.world.concepts import choose
from vidcomp.world.scenes import (
    RADIUS,
    TRAVEL,
    check_frames,
    combinations_of,
    draw_scene,
    draw_values,
)
from vidcomp.world.sprites import EXTENT

EVERYTHING = {
    "motion": ("right", "left", "up", "down", "still"),
    "size": ("large", "small"),
    "colour": ("red", "blue", "green", "yellow", "magenta", "cyan"),
    "shape": ("star", "circle"),
}
CHOICES = [
    {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")},
    {"shape": ("circle",)},
    {"motion": ("still", "left")},
    {"colour": ("blue",), "size": ("small", "large")},
    EVERYTHING,
]


def draw(chosen: dict[str, tuple[str, ...]], count: int = 600, *, seed: int = 0, **size: int):
    factors = choose(chosen)
    indices = torch.arange(count)
    classes = combinations_of(factors, indices, seed=seed)
    shape = {"num_frames": 9, "height": 32, "width": 32, **size}
    return factors, classes, draw_scene(factors, classes, indices, seed=seed, **shape)


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("height, width", [(32, 32), (20, 50)])
def test_the_sprite_stays_in_the_frame(
    chosen: dict[str, tuple[str, ...]], height: int, width: int
) -> None:
    _, _, scene = draw(chosen, height=height, width=width)
    reach = EXTENT * scene.radius[:, None, None]
    frame = torch.tensor([width, height]) / min(height, width)
    assert (scene.centres - reach >= -1e-6).all()
    assert (scene.centres + reach <= frame + 1e-6).all()


@pytest.mark.parametrize("chosen", CHOICES)
def test_combinations_are_balanced_in_every_run_and_shuffled(
    chosen: dict[str, tuple[str, ...]],
) -> None:
    factors, classes, _ = draw(chosen, count=choose(chosen).num_combinations * 5)
    ids = factors.combination_ids(classes).reshape(5, -1)
    assert torch.equal(ids.sort(1).values, torch.arange(ids.shape[1]).expand(5, -1))
    assert factors.num_combinations < 4 or len(ids.unique(dim=0)) > 1


def test_motion_goes_the_way_it_is_called() -> None:
    factors, classes, scene = draw(EVERYTHING)
    travel = scene.centres[:, -1] - scene.centres[:, 0]
    signs = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    for k, name in enumerate(factors.items[0].class_names):
        moved = travel[classes[:, 0] == k]
        assert torch.equal(
            moved.sign().where(moved.abs() > 1e-6, 0),
            torch.tensor(signs[name]).expand_as(moved).float(),
        )
    step = scene.centres.diff(dim=1)
    assert torch.allclose(step, step[:, :1].expand_as(step), atol=1e-6)  # steady


def test_travel_is_in_its_range_and_does_not_depend_on_the_shape() -> None:
    _, classes, scene = draw({"shape": ("circle", "star")}, count=2000)
    travel = torch.linalg.vector_norm(scene.centres[:, -1] - scene.centres[:, 0], dim=1)
    assert TRAVEL[0] - 1e-5 <= travel.amin() and travel.amax() <= TRAVEL[1] + 1e-5
    means = [travel[classes[:, 0] == k].mean() for k in range(2)]
    assert abs(means[0] - means[1]) < 0.01


def test_values_are_in_the_box_of_their_class_and_are_what_is_drawn() -> None:
    factors, classes, scene = draw(EVERYTHING)
    values = draw_values(factors, classes, torch.arange(600), seed=0)
    off = (values - factors.prototypes(classes)).abs()
    assert (off <= factors.spreads(classes) + 1e-6).all()
    assert off[:, factors.names.index("colour")].amax() > 0.09  # the whole box is used
    assert torch.equal(values[:, 2, :3], scene.rgb)
    assert torch.equal(values[:, 1, 0], scene.radius)
    assert (values[:, 3] == 0).all()  # a shape has no number
    assert torch.equal(values[:, 0, :2], factors.prototypes(classes)[:, 0, :2])


def test_what_is_not_controlled_varies_over_its_range() -> None:
    _, _, scene = draw({"shape": ("circle",)}, count=2000)
    assert RADIUS[0] <= scene.radius.amin() < 0.205 and 0.245 < scene.radius.amax() <= RADIUS[1]
    assert scene.rgb.amin() >= 0.1 - 1e-6 and scene.rgb.amax() <= 0.9 + 1e-6
    assert all(abs(scene.rgb[:, c].mean() - 0.5) < 0.03 for c in range(3))  # no hue is preferred
    travel = scene.centres[:, -1] - scene.centres[:, 0]
    assert all(travel[:, axis].mean().abs() < 0.02 for axis in range(2))  # nor a direction
    _, _, scene = draw({"colour": ("red",)}, count=300)
    assert len(scene.shape.unique()) == 3


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    factors, classes, scene = draw(EVERYTHING)
    rows = torch.tensor([500, 3, 77])
    alone = draw_scene(factors, classes[rows], rows, seed=0, num_frames=9, height=32, width=32)
    for name in ("centres", "radius", "angle_rad", "rgb", "shape"):
        assert torch.equal(getattr(alone, name), getattr(scene, name)[rows]), name
    assert torch.equal(combinations_of(factors, rows, seed=0), classes[rows])
    _, _, other = draw(EVERYTHING, seed=1)
    assert not torch.isin(other.radius, scene.radius).any()


def test_wrong_choices_name_the_legal_ones() -> None:
    with pytest.raises(UserError, match="no factor 'color'; did you mean 'colour'"):
        choose({"color": ("red",)})
    with pytest.raises(UserError, match="no class 'rde'; did you mean 'red'"):
        choose({"colour": ("rde",)})
    with pytest.raises(UserError, match="different classes"):
        choose({"colour": ("red", "red")})
    with pytest.raises(UserError, match="choose among shape, colour, size, motion"):
        choose({})
    with pytest.raises(UserError, match="num_frames >= 2"):
        check_frames(choose({"motion": ("up",)}), 1)
