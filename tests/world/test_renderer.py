"""The renderer: areas, places and shapes in closed form; the same pixels in any batch."""

import math

import pytest
import torch

from vidcomp.world.shapes import EXTENT, SHAPES, signed_distance
from vidcomp.world.sprites import Scene, render
from vidcomp.world.textures import GROUND

R = EXTENT
ARM, HALF_WIDTH = math.sqrt(EXTENT**2 - 0.4**2), 0.4
AREAS = {  # in squared radii
    "circle": math.pi,
    "square": 2 * R**2,
    "triangle": 3 * math.sqrt(3) / 4 * R**2,
    "ring": math.pi * (1 - 0.5**2),
    "cross": 8 * ARM * HALF_WIDTH - 4 * HALF_WIDTH**2,
    "star": 5 * R * 0.6 * math.sin(math.pi / 5),
    "heart": (1 + math.pi / 4) * 1.29232**2,  # a square of this side and two half discs
}


def scene(
    shape: str,
    *,
    radius: float = 0.25,
    angle_rad: float = 0.0,
    centre: tuple[float, float] = (0.5, 0.5),
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Scene:
    return Scene(
        present=torch.tensor([[True]]),
        centres=torch.tensor([[[centre]]]),
        radius=torch.tensor([[radius]]),
        angle_rad=torch.tensor([[[angle_rad]]]),
        rgb=torch.tensor([[rgb]]),
        shape=torch.tensor([[SHAPES.index(shape)]]),
    )


def coverage(s: Scene, *, height: int, width: int) -> torch.Tensor:
    """The share of each pixel that is covered, read back from the first channel."""
    red = render(s, height=height, width=width).frames[0, 0, :, :, 0] / 255
    return (red - GROUND) / (s.rgb[0, 0, 0] - GROUND)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle_rad", [0.0, 0.15, 0.7])
@pytest.mark.parametrize("height, width", [(64, 64), (45, 61)])
def test_covered_area_is_the_area_of_the_shape(
    shape: str, angle_rad: float, height: int, width: int
) -> None:
    s = scene(shape, angle_rad=angle_rad, centre=(0.503, 0.507))
    area_px = coverage(s, height=height, width=width).sum()
    radius_px = 0.25 * min(height, width)
    # Corners are mitred and pixels rounded to 1/255: within 2 % at 11 pixels of radius.
    assert area_px == pytest.approx(AREAS[shape] * radius_px**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_anti_aliased(shape: str) -> None:
    """Moving by a tenth of a pixel moves the centre of coverage by a tenth of a pixel."""
    x = torch.arange(64.0)
    at = [
        coverage(scene(shape, angle_rad=0.1, centre=(0.5 + 0.1 * k / 64, 0.5)), height=64, width=64)
        for k in range(2)
    ]
    centroid_x = [float((a.sum(0) * x).sum() / a.sum()) for a in at]
    assert centroid_x[1] - centroid_x[0] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle_rad", [0.0, 0.1, 1.0])
def test_no_shape_reaches_beyond_its_extent(shape: str, angle_rad: float) -> None:
    a = coverage(scene(shape, angle_rad=angle_rad), height=128, width=128)
    y, x = torch.nonzero(a > 0.05, as_tuple=True)
    reach_px = torch.hypot(x - 63.5, y - 63.5).amax()
    assert reach_px <= EXTENT * 32 + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("height, width", [(32, 32), (33, 47), (48, 31)])
def test_mask_and_position_agree(shape: str, height: int, width: int) -> None:
    unit = min(height, width)
    centre = (0.45 * width / unit, 0.55 * height / unit)
    out = render(scene(shape, centre=centre), height=height, width=width)
    y, x = torch.nonzero(out.truth.masks()[0, 0, 0], as_tuple=True)
    position = out.truth.positions_px[0, 0, 0]
    assert torch.allclose(position, torch.tensor(centre) * unit - 0.5)
    assert torch.hypot(x.float().mean() - position[0], y.float().mean() - position[1]) < 0.4


def test_colours_are_exact_inside_and_outside() -> None:
    out = render(scene("square", rgb=(0.8, 0.2, 0.4)), height=32, width=32)
    assert out.frames[0, 0, 16, 16].tolist() == [204, 51, 102]
    assert out.frames[0, 0, 0, 0].tolist() == [round(GROUND * 255)] * 3


def test_angles_turn_clockwise() -> None:
    """The triangle's apex goes to the right of its centre."""
    top_rows = coverage(scene("triangle", angle_rad=0.3), height=64, width=64)[:18]
    assert top_rows.sum(0).argmax() > 33


def test_up_is_up() -> None:
    """The triangle and the star have a point above their centre, the heart below it."""
    for shape in ("triangle", "star"):
        rows = coverage(scene(shape), height=65, width=65).amax(1) > 0.5
        top, bottom = torch.nonzero(rows)[[0, -1], 0]
        assert 32 - top > bottom - 32
    rows = torch.nonzero(coverage(scene("heart"), height=65, width=65).amax(1) > 0.5)
    assert 32 - rows[0, 0] < rows[-1, 0] - 32


@pytest.mark.parametrize("shape", SHAPES)
def test_the_centroid_of_a_shape_is_its_centre(shape: str) -> None:
    line = (torch.arange(600) + 0.5) / 300 - 1
    x, y = 1.25 * line.expand(600, 600), 1.25 * line[:, None].expand(600, 600)
    inside = (signed_distance(shape, x, y) < 0).float()
    for z in (x, y):
        assert abs(float((z * inside).sum() / inside.sum())) < 2e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_distances_near_the_outline(shape: str) -> None:
    """By one unit across the outline they change by one, but at corners: |gradient| = 1."""
    g = torch.Generator().manual_seed(0)
    x, y = (2.5 * torch.rand(2, 40_000, generator=g).double() - 1.25).requires_grad_().unbind()
    d = signed_distance(shape, x, y)
    steepness = torch.stack(torch.autograd.grad(d.sum(), (x, y))).norm(dim=0)
    near = d.abs() < 0.05
    assert near.sum() > 500
    assert (steepness[near] - 1).abs().quantile(0.98) < 1e-6
