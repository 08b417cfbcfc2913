"""Many objects: who is in front, what is seen of each, what is not there, and any batch."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from vidcomp.world.shapes import SHAPES
from vidcomp.world.sprites import Scene, render
from vidcomp.world.textures import GROUND, NUM_DRAWS, Background


def discs(*places: tuple[float, float], radius: float = 0.2) -> Scene:
    """One still image with a disc at each place; the first is red, the second green."""
    n = len(places)
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return Scene(
        present=torch.ones(1, n, dtype=torch.bool),
        centres=torch.tensor([[places]]).float(),
        radius=torch.full((1, n), radius),
        angle_rad=torch.zeros(1, 1, n),
        rgb=colours[:n][None],
        shape=torch.zeros(1, n, dtype=torch.int64),
    )


def crowd(b: int = 40, t: int = 2, n: int = 5, seed: int = 0) -> Scene:
    """Everything at random, some of it beyond the frame."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g)

    return Scene(
        present=rand(b, n) < 0.8,
        centres=1.6 * rand(b, t, n, 2) - 0.3,
        radius=0.03 + 0.2 * rand(b, n),
        angle_rad=6 * rand(b, t, n),
        rgb=rand(b, n, 3),
        shape=torch.randint(len(SHAPES), (b, n), generator=g),
        texture=torch.randint(4, (b, n), generator=g),
        opacity=(rand(b, t, n) < 0.8).float(),
        layers=rand(b, n).argsort(1),
        background=Background(torch.randint(4, (b,), generator=g), rand(b, NUM_DRAWS)),
        light=0.5 + 0.5 * rand(b),
    )


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_visibility_of_two_discs_is_what_the_lens_leaves(gap: float) -> None:
    """The lens of two circles at a distance of `gap` radii, in closed form."""
    out = render(discs((0.3, 0.5), (0.3 + 0.2 * gap, 0.5)), height=128, width=128)
    lens = 2 * math.acos(gap / 2) - gap / 2 * math.sqrt(4 - gap**2)
    seen = out.truth.visibility
    assert seen is not None
    assert seen[0, 0].tolist() == pytest.approx([1 - lens / math.pi, 1], abs=0.01)


def test_half_a_disc_beyond_the_frame_is_half_seen() -> None:
    out = render(discs((0.0, 0.5), (1.3, 0.5), (1.0, 1.0), radius=0.22), height=100, width=100)
    seen = out.truth.visibility
    assert seen is not None
    assert seen[0, 0].tolist() == pytest.approx([0.5, 0, 0.25], abs=0.01)


def test_the_last_is_in_front_unless_layers_say_otherwise() -> None:
    scene = discs((0.45, 0.5), (0.55, 0.5))
    for layers, front in ((None, 2), ([[0, 1]], 2), ([[1, 0]], 1)):
        given = None if layers is None else torch.tensor(layers)
        out = render(replace(scene, layers=given), height=32, width=32)
        assert out.segments[0, 0, 16, 16] == front
        colour = [0, 0, 0]
        colour[front - 1] = 255
        assert out.frames[0, 0, 16, 16].tolist() == colour
        assert set(out.segments.unique().tolist()) == {0, 1, 2}


def test_without_objects_there_is_only_the_ground() -> None:
    scene = discs((0.3, 0.5), (0.5, 0.5))
    nothing = render(replace(scene, present=scene.present & False), height=20, width=30)
    assert (nothing.frames == round(GROUND * 255)).all()
    assert not nothing.segments.any()
    truth = nothing.truth
    assert truth.visibility is not None and not truth.visibility.any()
    assert len(render(scene[:0], height=20, width=30).frames) == 0


def test_what_is_not_present_changes_nothing() -> None:
    """Neither the pixels nor the truth of the others."""
    scene = discs((0.3, 0.5), (0.5, 0.5), (0.6, 0.6))
    two = render(discs((0.3, 0.5), (0.5, 0.5)), height=32, width=32)
    absent = torch.tensor([[True, True, False]])
    out = render(replace(scene, present=absent), height=32, width=32)
    assert torch.equal(out.frames, two.frames)
    padded, truth = two.truth.padded(3), out.truth
    assert truth.visibility is not None and padded.visibility is not None
    assert torch.equal(truth.visibility, padded.visibility)
    assert torch.equal(truth.present, padded.present)


def test_what_is_transparent_is_not_seen() -> None:
    scene = discs((0.3, 0.5), (0.5, 0.5))
    out = render(replace(scene, opacity=torch.tensor([[[1.0, 0.0]]])), height=32, width=32)
    alone = render(discs((0.3, 0.5)), height=32, width=32)
    assert torch.equal(out.frames, alone.frames)
    seen = out.truth.visibility
    assert seen is not None and seen[0, 0].tolist() == [1, 0]
    half = render(replace(scene, opacity=torch.tensor([[[0.0, 0.5]]])), height=32, width=32)
    green = round((GROUND + 0.5 * (1 - GROUND)) * 255)
    assert abs(int(half.frames[0, 0, 16, 16, 1]) - green) <= 1


def test_light_scales_everything() -> None:
    scene = crowd()
    assert scene.light is not None
    lit = render(scene, height=24, width=24).frames.float()
    white = render(replace(scene, light=None), height=24, width=24).frames.float()
    assert (lit - white * scene.light[:, None, None, None, None]).abs().amax() <= 1


def test_truth_is_in_pixels() -> None:
    scene = crowd()
    moving = replace(scene, velocities=torch.ones_like(scene.centres) / 4)
    truth = render(moving, height=24, width=40).truth
    assert truth.velocities_px is not None and (truth.velocities_px == 6).all()
    assert torch.allclose((truth.positions_px + 0.5) / 24, scene.centres, atol=1e-6)


def test_segments_count_what_is_seen() -> None:
    out = render(crowd(), height=32, width=40)
    truth = out.truth
    assert truth.visibility is not None
    assert (truth.visibility >= 0).all() and (truth.visibility <= 1).all()
    seen = truth.masks().sum((3, 4))
    assert torch.equal((truth.visibility * out.own_pixels).round().long(), seen)
    assert not seen.transpose(1, 2)[~truth.present].any()


def test_a_clip_is_the_same_in_any_batch() -> None:
    scene = crowd(b=70)
    together = render(scene, height=30, width=40)
    for rows in (slice(13, 14), slice(69, 70), slice(20, 51)):
        some = render(scene[rows], height=30, width=40)
        assert torch.equal(some.frames, together.frames[rows])
        ours, theirs = some.truth.tensors(), together.truth[rows].tensors()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


def test_a_part_of_a_scene_keeps_every_field() -> None:
    part = crowd()[3:5]
    lengths = {f.name: getattr(part, f.name) for f in fields(part)}
    assert all(len(x.kind) == 2 for x in lengths.values() if isinstance(x, Background))
    assert all(len(x) == 2 for x in lengths.values() if isinstance(x, Tensor))
