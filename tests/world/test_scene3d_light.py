"""Properties of the ray caster's light: shadows, penumbrae, highlights, mirrors."""

import math

import pytest
import torch
from scene3d_studio import Solid, rows, straight_down, studio
from torch import Tensor

from vidcomp.world.scene3d.scene import Rays, camera_rays, dot, pixel_centres, unit
from vidcomp.world.scene3d.shading import nearest, radiance
from vidcomp.world.scene3d.solids import SHAPES, Solids, entry, light_left, normals

LAMP = (4.0, 0.0, 4.0)


def floor_light(*solids: Solid, x: Tensor, y: Tensor, **studio_settings: float) -> Tensor:
    """Of the floor at (x, y), as a share of what it has without `solids`."""
    rays = straight_down(x, y)
    lit = radiance(studio(*solids, lamp=LAMP, **studio_settings), rays)
    bare = radiance(studio(Solid(x=100.0), lamp=LAMP, **studio_settings), rays)
    return (lit / bare)[1, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shadow_lies_opposite_the_lamp(shape: str) -> None:
    x = torch.tensor([-1.0, -1.0, 1.5, -6.0])
    y = torch.tensor([0.0, 3.0, 0.0, 0.0])
    share = floor_light(Solid(shape), x=x, y=y)
    assert share[0] < 0.05
    assert torch.equal(share[1:], torch.ones(3))  # beside, before and beyond it


@pytest.mark.parametrize("shape", SHAPES)
def test_the_penumbra_is_smooth_and_grows_with_the_lamp(shape: str) -> None:
    y = torch.linspace(0, 2, 400)
    x = torch.full_like(y, -1.0)
    widths: list[int] = []
    for lamp_radius in (0.15, 0.3, 0.6):
        share = floor_light(Solid(shape), x=x, y=y, lamp_radius=lamp_radius)
        assert share[0] < 0.05 and share[-1] == 1
        assert (share.diff() >= -1e-5).all() and share.diff().amax() < 0.12
        widths.append(int(((share > 0.1) & (share < 0.9)).sum()))
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.2)
    assert widths[2] == pytest.approx(2 * widths[1], rel=0.2)


def test_the_penumbra_grows_with_the_distance_to_the_solid() -> None:
    y = torch.linspace(0, 2.5, 500)
    low, high = (
        floor_light(Solid(z=z, radius=0.5), x=torch.full_like(y, -x), y=y)
        for z, x in ((0.6, 0.7), (2.0, 4.0))
    )
    soft = [int(((share > 0.1) & (share < 0.9)).sum()) for share in (low, high)]
    assert soft[1] > 2 * soft[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_shadows_agree_with_many_rays_to_the_lamp(shape: str) -> None:
    scene = studio(Solid(shape), lamp=(3.0, -2.0, 5.0), lamp_radius=0.8)
    grid = torch.linspace(-2.5, 1.5, 41)
    x, y = (g.flatten() for g in torch.meshgrid(grid, grid, indexing="ij"))
    points = torch.stack([x, y, torch.zeros_like(x)])
    outside = torch.hypot(x, y) > 0.75
    points = points[:, outside]
    p = points.shape[1]

    solid = Solids.of(scene, torch.zeros(p, dtype=torch.int64))
    to_lamp = scene.lamp[:, 0] - points
    distance = dot(to_lamp, to_lamp).sqrt()
    ours = light_left(solid, solid.centre - points, to_lamp / distance, 0.8 / distance)

    generator = torch.Generator().manual_seed(0)
    free = torch.zeros(p)
    side = unit(
        torch.linalg.cross(to_lamp, torch.tensor([[0.0], [0.0], [1.0]]).expand(3, p), dim=0)
    )
    up = unit(torch.linalg.cross(side, to_lamp, dim=0))
    for _ in range(200):
        u = torch.rand(2, p, generator=generator)
        rho, phi = 0.8 * u[0].sqrt(), 2 * math.pi * u[1]
        aim = to_lamp + rho * (phi.cos() * side + phi.sin() * up)
        free += entry(solid, points, unit(aim)).isinf() / 200
    assert 0.03 < (1 - free).mean() < 0.3
    assert (ours - free).abs().mean() < 0.01
    assert ((ours - free).abs() < 0.1).float().mean() > 0.98


def test_ambient_light_is_shut_out_near_a_solid() -> None:
    x = torch.tensor([-0.2, -1.0, -2.0, -8.0])
    rays = straight_down(x, torch.zeros(4))
    dark = [
        radiance(studio(s, lamp=(0.0, 500.0, 0.1), ambient=0.3), rays)[0, 0]
        for s in (Solid(z=0.75), Solid(x=100.0))
    ]
    share = dark[0] / dark[1]
    assert (share.diff() > 0).all() and share[0] < 0.3 and share[3] > 0.99


def shown_ball(metal: bool) -> tuple[Tensor, Tensor, Rays, Tensor]:
    """Radiance of a ball's pixels, its normals there, and the rays."""
    scene = studio(Solid(metal=metal, rgb=(0.9, 0.5, 0.3)), ambient=0.1, eye=(0.0, -5.0, 3.0))
    x, y = pixel_centres(1, 160, 160, torch.device("cpu"))
    rays = camera_rays(scene, x, y, height=160, width=160)
    met = nearest(scene, rays)
    on = met.solid[0] == 0
    points = rays.at(met.distance.where(met.solid == 0, 0))[:, 0, on]
    solid = Solids.of(scene, torch.zeros(points.shape[1], dtype=torch.int64))
    picked = Rays(rays.origin[:, 0, on], rays.direction[:, 0, on])
    return (
        radiance(scene, rays)[:, 0, on],
        normals(solid, points),
        picked,
        scene.lamp[:, 0] - points,
    )


def test_the_highlight_lies_in_the_mirror_direction() -> None:
    shown, normal, rays, to_lamp = shown_ball(metal=True)
    reflected = rays.direction - 2 * dot(rays.direction, normal) * normal
    cosine = dot(unit(to_lamp), reflected)
    brightest = int(shown.sum(0).argmax())
    assert cosine[brightest] > math.cos(math.radians(4))
    off = shown[:, cosine < math.cos(math.radians(60))]
    assert shown.amax() > 4 * off.amax()


def test_rubber_has_no_highlight() -> None:
    shown, normal, _, to_lamp = shown_ball(metal=False)
    light = shown / torch.tensor([[0.9], [0.5], [0.3]])
    assert torch.allclose(light[0], light[1]) and torch.allclose(light[0], light[2])
    facing = dot(unit(to_lamp), normal)
    assert facing[int(light[0].argmax())] > 0.98  # Lambert: brightest where it faces the lamp
    assert light.amax() < 0.5 * 1.5 + 0.1


def test_metal_mirrors_its_neighbours_and_rubber_does_not() -> None:
    side = Solid("cube", x=1.6, rgb=(0.0, 0.9, 0.0))
    for metal in (True, False):
        ball = Solid(metal=metal, rgb=(0.5, 0.5, 0.5))
        scene = rows(
            studio(ball, side, ambient=0.3), studio(ball, side._replace(x=50.0), ambient=0.3)
        )
        x, y = pixel_centres(2, 80, 80, torch.device("cpu"))
        rays = camera_rays(scene, x, y, height=80, width=80)
        met = nearest(scene, rays)
        on_ball = (met.solid == 0).all(0)
        shown = radiance(scene, rays)[:, :, on_ball]
        greener = shown[1] > 1.5 * shown[0]
        assert bool(greener[0].any()) == metal and not greener[1].any()


def test_a_solid_between_lamp_and_mirror_puts_the_highlight_out() -> None:
    ball = Solid(metal=True)
    x, y = pixel_centres(1, 120, 120, torch.device("cpu"))
    brightest: list[float] = []
    for blocker in (Solid(x=100.0), Solid(x=1.5, y=-2.0, z=3.35, radius=1.2, rgb=(0.1, 0.1, 0.1))):
        scene = studio(ball, blocker, lamp_radius=1.5)
        rays = camera_rays(scene, x, y, height=120, width=120)
        on = nearest(scene, rays).solid[0] == 0
        brightest.append(float(radiance(scene, rays)[:, 0, on].amax()))
    assert brightest[1] < 0.2 * brightest[0]
