"""Properties of drawn 3-D scenes: what factors control, where solids are, how they move."""

import math
from dataclasses import fields

import pytest
import torch
from drawn_scenes import draw, same_clip
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors
from vidcomp.world.scene3d.concepts import LIBRARIES, StyleName
from vidcomp.world.scene3d.places import GAP
from vidcomp.world.scene3d.render import render_frames
from vidcomp.world.scene3d.scene import Scene
from vidcomp.world.scene3d.seen import truth_of
from vidcomp.world.scene3d.solids import SHAPES
from vidcomp.world.scene3d.styles import STYLES


def everything(style: StyleName) -> Factors:
    """All factors of a style with all their classes."""
    return choose({f.name: f.class_names for f in LIBRARIES[style]}, LIBRARIES[style])


def test_all_240_combinations_of_3d_shapes_look_different() -> None:
    library = {factor.name: factor.class_names for factor in LIBRARIES["room"]}
    factors = choose(
        {name: library[name] for name in ("object_hue", "shape", "scale")}, LIBRARIES["room"]
    )
    assert factors.num_combinations == 240
    scene = draw(
        "room", factors, factors.combinations(), index=same_clip(factors.combinations())
    ).scene
    frames = render_frames(scene, height=32, width=32)
    assert len(frames.flatten(1).unique(dim=0)) == 240
    # The same room around all of them: only what the object covers or shades is different.
    same = (frames.int() - frames[:1].int()).abs() <= 2
    assert same.all(0).float().mean() > 0.5


CONTROLS = {
    "shape": {"shape", "centre"},  # a cube's centre is lower
    "colour": {"albedo"},
    "object_hue": {"albedo"},
    "floor_hue": {"floor"},
    "wall_hue": {"wall"},
    "material": {"metal"},
    "size": {"radius", "centre"},
    "scale": {"radius", "centre"},
    "orientation": {"eye", "axes"},
    "motion": {"centre", "turn"},  # what stands still does not turn either
}


@pytest.mark.parametrize(
    "style, name", [(style, f.name) for style, library in LIBRARIES.items() for f in library]
)
def test_a_factor_controls_what_it_names_and_nothing_else(style: StyleName, name: str) -> None:
    factors = everything(style)
    column = factors.names.index(name)
    size = factors.sizes[column]
    classes = torch.zeros(size, len(factors), dtype=torch.int64)
    classes[:, column] = torch.arange(size)
    n = 4 if style == "clevr" else 1
    drawn = draw(
        style, factors, classes, num_frames=1, num_objects=(n, n), index=same_clip(classes)
    )
    changed = {f.name for f in fields(Scene) if not rows_equal(getattr(drawn.scene, f.name))}
    if name == "motion":
        assert changed <= CONTROLS[name]
        moved = draw(style, factors, classes, num_frames=2, index=same_clip(classes)).motion
        assert len((moved.positions[:, 1, 0] - moved.positions[:, 0, 0]).unique(dim=0)) == size
        assert (moved.positions[:, 0] == moved.positions[:1, 0]).all()  # the start tells nothing
    else:
        assert changed == CONTROLS[name]
    for field in ("centre", "albedo", "metal", "radius", "shape"):  # the others stay as they are
        assert rows_equal(getattr(drawn.scene, field)[..., 1:, :])


def rows_equal(x: Tensor) -> bool:
    return bool((x == x[..., :1]).all())


def test_distractors_take_the_classes_that_are_not_named() -> None:
    named = {"shape": ["cube", "sphere"], "colour": ["red", "blue"], "motion": ["right"]}
    factors = choose(named, LIBRARIES["clevr"])
    classes = factors.combinations().repeat(20, 1)
    drawn = draw("clevr", factors, classes, num_frames=2, num_objects=(5, 5))
    shape = drawn.scene.shape[:, ::2]
    assert (shape[1:] == SHAPES.index("cylinder")).all()
    cubes = classes[:, 0] == 0
    assert torch.equal(shape[0] == SHAPES.index("cube"), cubes)
    mine, theirs = drawn.scene.albedo[:, 0].T.unique(dim=0), drawn.scene.albedo[:, 1:].flatten(1).T
    assert len(mine) == 2 and len(theirs.unique(dim=0)) == 6
    assert not (theirs[:, None] == mine).all(-1).any()


def test_solids_start_apart_and_in_the_arena() -> None:
    factors = choose({"shape": SHAPES}, LIBRARIES["clevr"])
    drawn = draw("clevr", factors, torch.zeros(60, 1, dtype=torch.int64), num_objects=(3, 8))
    at, present = drawn.motion.positions[:, 0], drawn.present
    radius = drawn.scene.radius.T
    apart = (at[:, :, None] - at[:, None]).norm(dim=-1) - radius[:, :, None] - radius[:, None]
    pairs = present[:, :, None] & present[:, None] & ~torch.eye(8, dtype=torch.bool)
    assert apart[pairs].amin() > GAP - 1e-4
    assert at[present].abs().amax() <= STYLES["clevr"].arena
    counts = present.sum(1)
    assert counts.amin() >= 2 and counts.amax() == 8 and len(counts.unique()) >= 5
    assert (radius[~present] == 0).all() and present[:, 0].all()


def test_solids_collide_and_never_overlap() -> None:
    factors = choose({"size": ["large"]}, LIBRARIES["clevr"])
    classes = torch.zeros(40, 1, dtype=torch.int64)
    drawn = draw("clevr", factors, classes, num_frames=9, num_objects=(6, 6))
    at = drawn.motion.positions  # b t n 2
    radius = drawn.scene.radius[:, ::9].T[:, None]
    apart = (at[:, :, :, None] - at[:, :, None]).norm(dim=-1)
    touching = apart - radius[..., :, None] - radius[..., None, :]
    pairs = drawn.present[:, None, :, None] & drawn.present[:, None, None]
    pairs = pairs & ~torch.eye(6, dtype=torch.bool)
    assert touching[pairs.expand_as(touching)].amin() > -1e-4
    hits = drawn.motion.contacts[..., :6]
    assert int(hits.sum()) > 5 and torch.equal(hits, hits.transpose(2, 3))
    # Where nothing was hit, nothing changed its velocity.
    free = ~drawn.motion.contacts.any(1).any(-1)
    speed = drawn.motion.velocities.permute(0, 2, 1, 3)[free]
    assert torch.allclose(speed, speed[:, :1].expand_as(speed))


@pytest.mark.parametrize(
    "motion, axis, sign", [("right", 0, 1), ("left", 0, -1), ("away", 1, -1), ("towards", 1, 1)]
)
def test_motion_is_seen_in_the_picture(motion: str, axis: int, sign: int) -> None:
    factors = choose({"motion": [motion]}, LIBRARIES["clevr"])
    drawn = draw("clevr", factors, torch.zeros(20, 1, dtype=torch.int64), num_frames=9)
    truth = truth_of(drawn, height=32, width=32)
    way = truth.positions_px[:, -1, 0] - truth.positions_px[:, 0, 0]
    assert (sign * way[:, axis] > 1).all()
    assert truth.velocities_px is not None and truth.visibility is not None
    assert torch.allclose(truth.velocities_px[:, 1:].sum(1)[:, 0], way, atol=1e-3)
    assert (truth.visibility > 0.5).all()


@pytest.mark.parametrize("orientation", ["-30", "0", "30"])
def test_motion_is_seen_from_wherever_the_camera_stands(orientation: str) -> None:
    chosen = {"motion": ["right", "left", "away", "towards"], "orientation": [orientation]}
    factors = choose(chosen, LIBRARIES["room"])
    drawn = draw("room", factors, factors.combinations().repeat(10, 1), num_frames=9)
    way = drawn.motion.positions[:, -1, 0] - drawn.motion.positions[:, 0, 0]
    right, _, ahead = drawn.scene.axes[:, :2, 4::9]  # of the camera in the middle frame: xy b
    seen = torch.stack([(way.T * right).sum(0), (way.T * ahead).sum(0)], dim=1)
    asked = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).repeat(10, 1)
    assert (torch.cosine_similarity(seen, asked) > math.cos(math.radians(10))).all()
    in_picture = truth_of(drawn, height=32, width=32).positions_px[:, :, 0]
    shift = (in_picture[:, -1] - in_picture[:, 0]) * torch.tensor([1.0, -1])
    assert ((shift * asked).sum(1) > 1).all()


def test_truth_of_absent_solids_is_zero() -> None:
    factors = choose({"shape": SHAPES}, LIBRARIES["clevr"])
    drawn = draw("clevr", factors, torch.zeros(8, 1, dtype=torch.int64), num_objects=(1, 4))
    truth = truth_of(drawn, height=32, width=32)
    absent = ~truth.present[:, None].expand(-1, 1, -1)
    assert absent.any()
    for x in (truth.positions_px, truth.positions, truth.velocities_px, truth.visibility):
        assert x is not None and (x[absent] == 0).all()
    assert truth.segments is not None
    shown = [set(row.unique().tolist()) - {0} for row in truth.segments]
    for row, ids in enumerate(shown):
        assert ids <= {1 + i for i in range(4) if truth.present[row, i]}


def test_metal_and_lamps_differ_from_clip_to_clip() -> None:
    factors = choose({"shape": SHAPES}, LIBRARIES["clevr"])
    scene = draw("clevr", factors, torch.zeros(12, 1, dtype=torch.int64)).scene
    assert 0 < float(scene.metal.mean()) < 1
    for x in (scene.lamp[0, 0], scene.lamp_power[0], scene.eye[0], scene.centre[0, 0]):
        assert len(x.unique()) == 12


@pytest.mark.parametrize(
    "style, chosen, message",
    [
        ("clevr", {"hue": ["red"]}, "no factor 'hue'.*legal: colour, material"),
        ("room", {"object_hue": ["read"]}, "did you mean 'red'"),
        ("room", {"scale": ["0.75", "0.75"]}, "different classes"),
        ("room", {}, "factors is empty"),
    ],
)
def test_mistakes_are_named(style: StyleName, chosen: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(chosen, LIBRARIES[style])
