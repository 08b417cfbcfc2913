"""Physics: closed forms of two discs, what is conserved, time run backwards, and any batch."""

import math

import pytest
import torch
from torch import Tensor

from vidcomp.world.physics import Motion, simulate


def run(x: Tensor, v: Tensor, *, num_frames: int = 20, walls: bool = True, **given: Tensor):
    b, n = x.shape[:2]
    settings = {
        "radius": torch.full((b, n), 0.1, dtype=x.dtype),
        "mass": torch.ones(b, n, dtype=x.dtype),
        "present": torch.ones(b, n, dtype=torch.bool),
        **given,
    }
    box = (torch.zeros(b, 2, dtype=x.dtype), torch.tensor([[2.0, 1.0]], dtype=x.dtype).repeat(b, 1))
    return simulate(x, v, **settings, num_frames=num_frames, bounds=box if walls else None)


def crowd(b: int = 12, n: int = 5, seed: int = 0) -> dict[str, Tensor]:
    """Discs of different sizes and masses on a jittered grid, in float64; one is not there."""
    g = torch.Generator().manual_seed(seed)
    cells = torch.tensor([[0.25 + 0.5 * (k % 4), 0.25 + 0.5 * (k // 4)] for k in range(8)])
    places = torch.stack([torch.randperm(8, generator=g)[:n] for _ in range(b)])
    present = torch.ones(b, n, dtype=torch.bool)
    present[::3, -1] = False
    return {
        "x": cells[places].double() + 0.08 * torch.rand(b, n, 2, generator=g) - 0.04,
        "v": 0.4 * torch.rand(b, n, 2, generator=g).double() - 0.2,
        "radius": 0.08 + 0.1 * torch.rand(b, n, generator=g).double(),
        "mass": 0.5 + 2 * torch.rand(b, n, generator=g).double(),
        "present": present,
    }


def energy(motion: Motion, mass: Tensor) -> Tensor:
    return (mass[:, None] * motion.velocities.square().sum(-1) / 2).sum(-1)  # b t


def test_two_discs_head_on() -> None:
    """m1 v1' = ((m1 - m2) v1 + 2 m2 v2) / (m1 + m2), at the moment when they touch."""
    x = torch.tensor([[[0.3, 0.5], [1.3, 0.5]]], dtype=torch.float64)
    v = torch.tensor([[[0.1, 0.0], [-0.06, 0.0]]], dtype=torch.float64)
    mass = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    out = run(x, v, num_frames=9, mass=mass)
    after = [(-2 * 0.1 + 6 * -0.06) / 4, (2 * -0.06 + 2 * 0.1) / 4]
    assert out.velocities[0, -1, :, 0].tolist() == pytest.approx(after)
    touch = (1.0 - 0.2) / 0.16  # frame 5 exactly
    expected = 0.3 + 0.1 * touch + after[0] * (8 - touch)
    assert float(out.positions[0, -1, 0, 0]) == pytest.approx(expected)
    assert out.contacts[0].any(0).tolist() == [[False, True, False], [True, False, False]]
    frames = out.contacts[0, :, 0, 1].nonzero()[:, 0].tolist()
    assert frames in ([5], [6])  # 5 to rounding


def test_an_oblique_hit_changes_only_what_is_along_the_axis() -> None:
    """At touch the axis is at 30 degrees; of equal masses, a resting disc takes that component."""
    x = torch.tensor([[[0.3, 0.5 - 0.1], [1.0, 0.5]]], dtype=torch.float64)  # sin 30 = 0.1 / 0.2
    v = torch.tensor([[[0.1, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    out = run(x, v, num_frames=9)
    axis = torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)], dtype=torch.float64)
    along = 0.1 * axis[0] * axis
    assert torch.allclose(out.velocities[0, -1, 1], along)
    assert torch.allclose(out.velocities[0, -1, 0], v[0, 0] - along)


def test_a_wall_is_a_mirror() -> None:
    """The path is that of a free disc, folded into the box."""
    g = torch.Generator().manual_seed(1)
    x = 0.2 + 0.6 * torch.rand(20, 1, 2, generator=g).double()
    v = torch.rand(20, 1, 2, generator=g).double() - 0.5
    out = run(x, v, num_frames=30)
    room = torch.tensor([1.8, 0.8], dtype=torch.float64)  # for the centre, from 0.1 on
    free = x[:, None] - 0.1 + torch.arange(30.0)[:, None, None] * v[:, None]
    folded = room - (free % (2 * room) - room).abs()
    assert torch.allclose(out.positions, folded + 0.1)
    hits = (free / room).floor().diff(dim=1) != 0  # b t-1 1 2
    assert torch.equal(out.contacts[:, 1:, :, 1], hits.any(-1))


@pytest.mark.parametrize("seed", range(3))
def test_energy_is_conserved_nothing_overlaps_and_nothing_leaves(seed: int) -> None:
    discs = crowd(seed=seed)
    mass, present, radius = discs["mass"], discs["present"], discs["radius"]
    out = run(**discs, num_frames=60)
    assert out.contacts[..., :-1].any() and out.contacts[..., -1].any()
    now = energy(out, mass)
    assert torch.allclose(now, now[:, :1].expand_as(now), rtol=1e-12)
    gaps = (out.positions[:, :, :, None] - out.positions[:, :, None]).norm(dim=-1)
    gaps = gaps - (radius[:, :, None] + radius[:, None])[:, None]
    both = present[:, :, None] & present[:, None] & ~torch.eye(5, dtype=torch.bool)
    assert gaps.masked_fill(~both[:, None], 1).amin() > -1e-12
    reach = radius[:, None, :, None]
    inside = (out.positions >= reach - 1e-12) & (
        out.positions <= torch.tensor([2.0, 1.0]) - reach + 1e-12
    )
    assert inside.all()


def test_momentum_is_conserved_without_walls() -> None:
    discs = crowd(b=40)
    out = run(**discs, num_frames=20, walls=False)
    assert out.contacts[..., :-1].any() and not out.contacts[..., -1].any()
    momentum = (discs["mass"][:, None, :, None] * out.velocities).sum(2)
    assert torch.allclose(momentum, momentum[:, :1].expand_as(momentum), atol=1e-13)
    assert torch.equal(out.contacts[..., :-1], out.contacts[..., :-1].transpose(2, 3))


def test_time_can_be_reversed() -> None:
    discs = crowd()
    there = run(**discs, num_frames=20)
    assert there.contacts[..., :-1].any()
    end = {"x": there.positions[:, -1], "v": -there.velocities[:, -1]}
    back = run(**{**discs, **end}, num_frames=20)
    assert torch.allclose(back.positions.flip(1), there.positions, atol=1e-7)


def test_more_frames_a_second_are_the_same_motion() -> None:
    discs = crowd()
    coarse = run(**discs, num_frames=11)
    fine = run(**{**discs, "v": discs["v"] / 4}, num_frames=41)
    assert torch.allclose(fine.positions[:, ::4], coarse.positions, atol=1e-9)
    touched = fine.contacts[:, 1:].unflatten(1, (10, 4)).any(2)
    assert torch.equal(touched, coarse.contacts[:, 1:])


def test_absent_discs_stand_still_and_touch_nothing() -> None:
    discs = crowd(b=6)
    gone = ~discs["present"][:, -1]  # the last disc of some clips
    out = run(**discs, num_frames=40)
    contacts = out.contacts[gone]
    assert contacts.any() and not contacts[:, :, 4].any() and not contacts[..., 4].any()
    assert (out.velocities[gone, :, 4] == 0).all()
    fewer = run(**{name: value[:, :4] for name, value in discs.items()}, num_frames=40)
    assert torch.equal(fewer.positions[gone], out.positions[gone, :, :4])


def test_a_clip_does_not_depend_on_its_batch() -> None:
    discs = {k: v if v.dtype == torch.bool else v.float() for k, v in crowd(b=9).items()}
    together = run(**discs, num_frames=60)
    assert together.positions.dtype == torch.float32
    for k in (0, 5, 8):
        alone = run(**{name: value[k : k + 1] for name, value in discs.items()}, num_frames=60)
        assert torch.equal(alone.positions[0], together.positions[k])
        assert torch.equal(alone.velocities[0], together.velocities[k])
        assert torch.equal(alone.contacts[0], together.contacts[k])


def test_a_disc_needs_room() -> None:
    discs = crowd(b=2)
    with pytest.raises(ValueError, match="as wide as its box"):
        run(**{**discs, "radius": discs["radius"] + 0.5})
