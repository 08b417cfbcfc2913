"""Properties of the ray caster's geometry: perspective, surfaces, normals, occlusion, pixels."""

import math

import pytest
import torch
from scene3d_studio import Solid, rows, studio
from torch import Tensor

from vidcomp.world.scene3d import render
from vidcomp.world.scene3d.render import render_frames
from vidcomp.world.scene3d.scene import camera_rays, pixel_centres, project, unit, unproject
from vidcomp.world.scene3d.seen import segments, visibility
from vidcomp.world.scene3d.shading import nearest
from vidcomp.world.scene3d.solids import BEVEL, HALF_HEIGHTS, SHAPES, Solids, entry, normals

SIDE = 96
CENTRE = torch.tensor([[0.3], [-0.2], [0.9]], dtype=torch.float64)


def solids(shape: str, p: int) -> Solids:
    """`p` copies, in double precision."""
    angle = torch.tensor([0.5], dtype=torch.float64).expand(p)
    return Solids(
        torch.full((p,), SHAPES.index(shape)),
        CENTRE.expand(3, p),
        torch.stack([angle.cos(), angle.sin()]),
        torch.full((p,), 0.8, dtype=torch.float64),
    )


def level(shape: str, solid: Solids, points: Tensor) -> Tensor:
    """1 on the surface, less inside, more outside."""
    x, y, z = solid.local(points - solid.centre) / solid.radius
    if shape == "sphere":
        return (x * x + y * y + z * z).sqrt()
    if shape == "cube":
        return torch.stack([x, y, z]).abs().amax(0) / HALF_HEIGHTS[0]
    return torch.maximum((x * x + y * y).sqrt(), z.abs())


def random_rays(p: int) -> tuple[Tensor, Tensor]:
    """From outside, at the solid or past it."""
    generator = torch.Generator().manual_seed(0)
    origin = 4 * unit(torch.randn(3, p, generator=generator, dtype=torch.float64))
    aim = 0.7 * torch.randn(3, p, generator=generator, dtype=torch.float64) + CENTRE
    return origin, unit(aim - origin)


def test_points_at_one_height_are_found_again_from_where_they_are_seen() -> None:
    scene = studio(Solid(x=0.5, y=-1.0), Solid(x=-2.0, y=1.5), Solid("cylinder", x=1.0, y=2.0))
    at = project(scene, scene.centre, height=48, width=64)
    back = unproject(scene, at.x, at.y, level=0.7, height=48, width=64)
    assert torch.allclose(back, scene.centre, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_end_where_they_first_meet_the_surface(shape: str) -> None:
    solid = solids(shape, 500)
    origin, direction = random_rays(500)
    distance = entry(solid, origin, direction)
    hit = distance.isfinite()
    assert 0.2 < hit.double().mean() < 0.8
    met = level(shape, solid, origin + distance.where(hit, 0) * direction)
    assert (met - 1)[hit].abs().amax() < 1e-9
    before = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    way = distance.where(hit, torch.tensor(8.0, dtype=torch.float64)) * (1 - 1e-6)
    inside = [level(shape, solid, origin + step * way * direction) < 1 - 1e-6 for step in before]
    assert not torch.stack(inside).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_those_of_the_depth(shape: str) -> None:
    solid = solids(shape, 500)
    origin, direction = random_rays(500)
    side = unit(torch.linalg.cross(direction, torch.ones_like(direction), dim=0))
    other = torch.linalg.cross(direction, side, dim=0)
    points = [
        origin + d + entry(solid, origin + d, direction) * direction
        for d in (0 * side, 1e-6 * side, 1e-6 * other)
    ]
    slope = unit(torch.linalg.cross(points[1] - points[0], points[2] - points[0], dim=0))
    slope = slope * -torch.sign((slope * direction).sum(0))
    x, y, z = solid.local(points[0] - solid.centre).abs() / solid.radius
    x, y, z = (x, y, z / HALF_HEIGHTS[1]) if shape != "cube" else (x, y, z)
    flat = torch.hypot(x, y) if shape == "cylinder" else torch.maximum(x, y)
    limit = (HALF_HEIGHTS[0] if shape == "cube" else 1) - BEVEL
    faces = torch.stack([x, y, z] if shape == "cube" else [flat, z])
    one_face = (faces > limit).sum(0) == 1  # elsewhere the edge is softened
    sharp = slope.isfinite().all(0) & (one_face | (shape == "sphere"))
    assert sharp.sum() > 80
    cosine = (slope * normals(solid, points[0])).sum(0)
    assert (cosine[sharp] > 1 - 1e-6).all()


def test_softened_edges_turn_from_one_face_to_the_next() -> None:
    solid = solids("cube", 1)
    half = 0.8 * HALF_HEIGHTS[0]
    edge = solid.centre + solid.world(torch.tensor([[half], [0.0], [half]], dtype=torch.float64))
    expected = solid.world(torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)) / math.sqrt(2)
    assert torch.allclose(normals(solid, edge), expected)


def test_projection_is_the_inverse_of_the_rays() -> None:
    scene = studio(Solid(), Solid("cube", 1.5, 1.0), eye=(2.0, -7.0, 3.0), target=(0.3, 0.5, 0.2))
    x, y = pixel_centres(1, 20, 30, torch.device("cpu"))
    points = camera_rays(scene, x, y, height=20, width=30).at(torch.full_like(x, 5.0))
    at = project(scene, points.transpose(1, 2), height=20, width=30)
    assert torch.allclose(at.x[:, 0], x[0], atol=1e-4)
    assert torch.allclose(at.y[:, 0], y[0], atol=1e-4)


def test_twice_as_far_is_half_as_large() -> None:
    ball = Solid(z=0.0, radius=0.5)
    near, far = (studio(ball, eye=(0.0, -d, 0.0)) for d in (4.0, 8.0))
    area = (segments(rows(near, far), height=SIDE, width=SIDE) == 1).sum((1, 2)).sqrt()
    ideal = math.sqrt(8.0**2 - 0.5**2) / math.sqrt(4.0**2 - 0.5**2)  # of the tangent cones
    assert float(area[0] / area[1]) == pytest.approx(ideal, rel=0.02)
    # The outline of a ball is seen under asin(r / d).
    radius = 1.4 * SIDE * math.tan(math.asin(0.5 / 4.0))
    assert float(area[0]) == pytest.approx(math.sqrt(math.pi) * radius, rel=0.01)


@pytest.mark.parametrize("x, y", [(0.0, 0.0), (2.0, 1.0), (-1.5, -1.0)])
def test_a_ball_is_seen_where_its_centre_projects(x: float, y: float) -> None:
    scene = studio(Solid(x=x, y=y, radius=0.4))
    rows_, columns = (segments(scene, height=SIDE, width=SIDE)[0] == 1).nonzero().unbind(1)
    at = project(scene, scene.centre, height=SIDE, width=SIDE)
    assert abs(float(columns.float().mean() - at.x)) < 0.25
    assert abs(float(rows_.float().mean() - at.y)) < 0.25


def test_the_nearer_solid_hides_the_farther() -> None:
    front, back = Solid("cube", 0.2, -1.5), Solid("cylinder", 0.0, 1.0)
    both, alone = studio(front, back), studio(back)
    shown = segments(rows(both, studio(back, front)), height=SIDE, width=SIDE)
    assert torch.equal(shown[0] == 1, shown[1] == 2) and torch.equal(shown[0] == 2, shown[1] == 1)
    own = segments(alone, height=SIDE, width=SIDE)[0] == 1
    hidden = own & (shown[0] == 1)
    assert hidden.any() and torch.equal(own & ~hidden, shown[0] == 2)
    share = visibility(both, shown[:1])[:, 0]
    assert float(share[0]) == 1
    assert float(share[1]) == pytest.approx(1 - float(hidden.sum() / own.sum()))


def test_visibility_counts_what_lies_beyond_the_frame() -> None:
    half = studio(Solid(z=0.0), eye=(0.0, -6.0, 0.0), target=(6 / 2.8, 0.0, 0.0))
    at = project(half, half.centre, height=SIDE, width=SIDE)
    assert float(at.x) == pytest.approx(-0.5, abs=1e-3)  # the very edge
    shown = segments(half, height=SIDE, width=SIDE)
    assert float(visibility(half, shown)) == pytest.approx(0.5, abs=0.03)
    away = studio(Solid(z=0.0), eye=(0.0, -6.0, 0.0), target=(0.0, -9.0, 0.0))
    shown = segments(away, height=SIDE, width=SIDE)
    assert not shown.any() and float(visibility(away, shown)) == 0


def test_a_face_lies_in_its_plane() -> None:
    scene = studio(Solid("cube", angle=0.0), eye=(0.0, -5.0, 0.4), target=(0.0, 0.0, 0.4))
    x, y = pixel_centres(1, SIDE, SIDE, torch.device("cpu"))
    rays = camera_rays(scene, x, y, height=SIDE, width=SIDE)
    met = nearest(scene, rays)
    front = rays.at(met.distance)[1][met.solid >= 0]
    assert len(front) > 100
    assert torch.allclose(front, torch.tensor(-0.7 * HALF_HEIGHTS[0]), atol=1e-5)


def mixed_rows() -> list[Solid]:
    return [
        Solid("cube", -1.0, 0.5, metal=True),
        Solid("sphere", 1.0, -0.5, metal=True, rgb=(0.9, 0.9, 0.9)),
        Solid("cylinder", 0.2, -2.0, radius=0.4),
    ]


def test_pixels_are_the_same_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = mixed_rows()
    parts = [studio(a, b, c), studio(b, c, a, ambient=0.2), studio(c, a, b, lamp=(-5.0, 1.0, 4.0))]
    whole = render_frames(rows(*parts), height=33, width=47)
    for i, part in enumerate(parts):
        assert torch.equal(render_frames(part, height=33, width=47)[0], whole[i])
    back = render_frames(rows(*parts[::-1]), height=33, width=47)
    assert torch.equal(back.flip(0), whole)
    monkeypatch.setattr(render, "CHUNK", 1500)
    assert torch.equal(render_frames(rows(*parts), height=33, width=47), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pixels_are_nearly_the_same_on_a_gpu() -> None:
    scene = studio(*mixed_rows(), ambient=0.2)
    ours = render_frames(scene, height=64, width=64).int()
    theirs = render_frames(scene.to("cuda"), height=64, width=64).cpu().int()
    assert ((ours - theirs).abs() <= 1).float().mean() > 0.999


def test_edges_are_anti_aliased() -> None:
    scene = studio(*mixed_rows(), ambient=0.2)
    fine = render_frames(scene, height=8 * 32, width=8 * 32).float() / 255
    ideal = (fine * fine).unflatten(1, (32, 8)).unflatten(3, (32, 8)).mean((2, 4)).sqrt()
    ours = render_frames(scene, height=32, width=32).float() / 255
    jagged = fine[:, 4::8, 4::8]  # about the centre of each pixel
    assert (ours - ideal).abs().mean() < 0.4 * (jagged - ideal).abs().mean()
