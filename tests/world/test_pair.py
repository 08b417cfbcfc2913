"""The world of two sprites: each event happens as it is called, and nothing tells it beforehand."""

import math

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.world.concepts import PAIR, choose
from vidcomp.world.pair import RADIUS, WAY, check_pair, draw_pair
from vidcomp.world.scenes import combinations_of, draw_values
from vidcomp.world.shapes import EXTENT
from vidcomp.world.sprites import Scene, render

EVENTS = {
    "event": ("pass", "collide"),
    "order": ("a_first", "b_first"),
    "presence": ("stay", "appear", "vanish"),
}
OCCLUSION = {"occlusion": ("in_front", "behind"), "shape": ("circle",), "colour": ("red",)}
MOTION = {"event": ("collide", "pass"), "motion": ("right", "left", "up", "down")}


def draw(
    chosen: dict[str, tuple[str, ...]],
    count: int = 240,
    *,
    classes: Tensor | None = None,
    varying: tuple[str, ...] = (),
    **size: int,
) -> tuple[Tensor, Scene]:
    factors, indices = choose(chosen, PAIR), torch.arange(count)
    classes = combinations_of(factors, indices, seed=0) if classes is None else classes
    shape = {"num_frames": 33, "height": 48, "width": 48, **size}
    values = draw_values(factors, classes, indices, seed=0)
    return classes, draw_pair(factors, classes, values, indices, seed=0, varying=varying, **shape)


def gaps(scene: Scene) -> Tensor:
    """Between the two discs: b t."""
    apart = (scene.centres[:, :, 0] - scene.centres[:, :, 1]).norm(dim=-1)
    return apart - scene.radius.sum(1, keepdim=True)


@pytest.mark.parametrize("chosen", [EVENTS, OCCLUSION, MOTION])
@pytest.mark.parametrize("height, width", [(48, 48), (40, 72)])
def test_both_stay_in_the_frame(
    chosen: dict[str, tuple[str, ...]], height: int, width: int
) -> None:
    _, scene = draw(chosen, height=height, width=width)
    reach = EXTENT * scene.radius[:, None, :, None]
    frame = torch.tensor([width, height]) / min(height, width)
    assert (scene.centres - reach >= -1e-6).all()
    assert (scene.centres + reach <= frame + 1e-6).all()


def test_they_collide_or_pass_through_each_other() -> None:
    classes, scene = draw(EVENTS)
    collide = classes[:, 0] == 1
    contacts = scene.contacts
    assert contacts is not None
    assert torch.equal(contacts[:, :, 0, 1].sum(1) > 0, collide)
    assert torch.equal(contacts[:, :, 0, 1], contacts[:, :, 1, 0])
    closest = gaps(scene).amin(1)
    assert closest[collide].amin() > -1e-5  # never an overlap
    assert closest[~collide].amax() < -0.05  # always one


def test_a_collision_conserves_energy_and_momentum() -> None:
    _, scene = draw({"event": ("collide",)})
    v, contacts = scene.velocities, scene.contacts
    assert v is not None and contacts is not None
    mass = scene.radius.square()[:, None, :, None]
    energy = (mass * v.square()).sum((2, 3))
    assert torch.allclose(energy, energy[:, :1].expand_as(energy), rtol=1e-4)
    momentum = (mass * v).sum(2)
    free = ~contacts[..., -1].any(2).cumsum(1).bool()  # until a wall is touched
    assert (momentum - momentum[:, :1])[free].abs().amax() < 1e-7
    touch = contacts[:, :, 0, 1].float().argmax(1)
    assert free[torch.arange(len(free)), touch - 1].all()  # a wall may be touched right after
    turned = (v[:, -1] - v[:, 0]).norm(dim=-1)
    assert turned.amin() > 0.2 * v[:, 0].norm(dim=-1).amin()


def test_before_they_meet_nothing_tells_whether_they_collide() -> None:
    classes, scene = draw(EVENTS)
    other = classes.clone()
    other[:, 0] = 1 - other[:, 0]
    _, swapped = draw(EVENTS, classes=other)
    contacts = scene.contacts | swapped.contacts
    before = ~contacts[..., :-1].any((2, 3)).cumsum(1).bool()
    assert before.sum(1).amin() >= 32 * 0.48
    for name in ("centres", "velocities", "opacity"):
        same = (getattr(scene, name) == getattr(swapped, name)).flatten(2).all(2)
        assert same[before].all(), name
    assert not torch.equal(scene.centres[:, -1], swapped.centres[:, -1])


def test_the_one_that_is_named_sets_off_first() -> None:
    classes, scene = draw(EVENTS)
    assert scene.velocities is not None
    moving = (scene.velocities != 0).any(-1)  # b t n
    start = moving.float().argmax(1)
    first, second = start.sort(1).values.unbind(1)
    assert torch.equal(start.argmin(1), classes[:, 1])
    assert first.amax() <= 2 and (second - first).amin() >= 4
    rests = ~moving[:, :, :, None]
    assert (scene.centres == scene.centres[:, :1])[rests.expand_as(scene.centres)].all()


def test_the_first_frame_does_not_tell_the_order() -> None:
    classes, scene = draw(EVENTS)
    other = classes.clone()
    other[:, 1] = 1 - other[:, 1]
    _, swapped = draw(EVENTS, classes=other)
    at_rest = (scene.velocities[:, 0] == 0) & (swapped.velocities[:, 0] == 0)
    assert at_rest.all(-1).all(-1).float().mean() > 0.8
    assert torch.allclose(scene.centres[:, 0], swapped.centres[:, 0], atol=1e-6)


def test_one_appears_before_or_vanishes_after_they_meet() -> None:
    classes, scene = draw(EVENTS)
    assert scene.opacity is not None and (scene.opacity[:, :, 1] == 1).all()
    switches = scene.opacity[:, :, 0].diff(dim=1)
    met = gaps(scene).argmin(1)
    for k, change in enumerate((0, 1, -1)):
        mine = classes[:, 2] == k
        assert (switches[mine].sum(1) == change).all()
        assert (switches[mine].abs().sum(1) == abs(change)).all()
        when = switches[mine].abs().argmax(1) + 1
        assert k != 1 or (when < met[mine]).all()
        assert k != 2 or (when > 0.77 * 32).all()


def test_the_one_behind_is_hidden_where_they_overlap() -> None:
    classes, scene = draw(OCCLUSION)
    seen = render(scene, height=48, width=48).truth.visibility
    assert seen is not None
    behind = torch.where(classes[:, :1] == 1, seen[..., 0], seen[..., 1])
    in_front = torch.where(classes[:, :1] == 1, seen[..., 1], seen[..., 0])
    assert (in_front == 1).all()
    assert (behind.amin(1) < 0.9).all()
    assert (behind[:, 0] == 1).all()


def test_motion_is_the_way_of_the_first() -> None:
    classes, scene = draw(MOTION)
    assert scene.velocities is not None
    heading = scene.velocities[:, 0] / scene.velocities[:, 0].norm(dim=-1, keepdim=True)
    ways = torch.tensor([[1.0, 0], [-1, 0], [0, -1], [0, 1]])[classes[:, 1]]
    assert torch.allclose(heading[:, 0], ways, atol=1e-5)
    assert torch.allclose(heading[:, 1], -ways, atol=1e-5)


def test_more_frames_are_the_same_motion_in_finer_steps() -> None:
    _, coarse = draw(EVENTS, num_frames=9)
    _, fine = draw(EVENTS, num_frames=33)
    assert torch.allclose(fine.centres[:, ::4], coarse.centres, atol=1e-5)
    assert torch.equal(fine.opacity[:, ::4], coarse.opacity)


def test_no_nuisance_tells_a_class() -> None:
    """The means of what is drawn freely are the same for every class of every factor."""
    chosen = {**EVENTS, "colour": ("red", "blue"), "shape": ("circle", "heart")}
    classes, scene = draw(chosen, 4800, varying=("texture", "background", "lighting"))
    assert scene.light is not None and scene.background is not None
    assert scene.texture is not None and scene.layers is not None
    nuisance = torch.cat(
        [
            scene.centres[:, 0].flatten(1),
            scene.radius,
            scene.rgb[:, 1, :1],
            scene.angle_rad[:, 0],
            scene.shape[:, 1:].float(),
            scene.texture[:, :1].float(),
            scene.layers[:, :1].float(),
            scene.light[:, None],
            scene.background.draws,
        ],
        dim=1,
    )
    for f, factor in enumerate(choose(chosen, PAIR).items):
        for k in range(len(factor.classes)):
            mine = nuisance[classes[:, f] == k]
            error = nuisance.std(0) / math.sqrt(len(mine))
            z = (mine.mean(0) - nuisance.mean(0)) / error
            assert z.abs().amax() < 4.5, (factor.name, factor.class_names[k])


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    classes, scene = draw(EVENTS, varying=("background",))
    rows = torch.tensor([200, 3, 77])
    size = {"num_frames": 33, "height": 48, "width": 48}
    factors = choose(EVENTS, PAIR)
    values = draw_values(factors, classes[rows], rows, seed=0)
    alone = draw_pair(factors, classes[rows], values, rows, seed=0, varying=("background",), **size)
    for name in (
        "centres",
        "velocities",
        "contacts",
        "radius",
        "rgb",
        "shape",
        "opacity",
        "layers",
    ):
        assert torch.equal(getattr(alone, name), getattr(scene[rows], name)), name


def test_ways_fit_the_smaller_side() -> None:
    """Two sprites, their ways and their reach, in one line across the frame."""
    assert 2 * (EXTENT * RADIUS[1] + WAY[1] + RADIUS[1]) <= 1


def test_what_collides_cannot_be_in_front() -> None:
    chosen = {"occlusion": ("in_front", "behind"), "event": ("pass", "collide")}
    with pytest.raises(UserError, match="occlusion cannot be seen of sprites that collide"):
        check_pair(choose(chosen, PAIR), (), 9)
    check_pair(choose({**chosen, "event": ("pass",)}, PAIR), (), 9)
    with pytest.raises(UserError, match=r"no 'rotation'; .*legal: background, lighting, texture"):
        check_pair(choose(EVENTS, PAIR), ("rotation",), 9)


def test_one_is_seen_in_front_whoever_sets_off_first() -> None:
    chosen = {"occlusion": ("in_front", "behind"), "order": ("a_first", "b_first")}
    with pytest.raises(UserError, match="cannot both be seen in 7 frames; set num_frames to 8"):
        check_pair(choose(chosen, PAIR), (), 7)
    for name in chosen:
        check_pair(choose({name: chosen[name]}, PAIR), (), 5)
    check_pair(choose(chosen, PAIR), (), 8)
    _, scene = draw(chosen, 1000, num_frames=8)
    assert gaps(scene).amin(1).amax() < -0.005  # they overlap in some frame
