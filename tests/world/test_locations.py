"""Locations: who is told of, and maps from which the points can be read again."""

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.types import Grid
from vidcomp.world.locations import NUM_CHANNELS, Kind, Label, Locations, choose_given, heat_map
from vidcomp.world.truth import Truth

GRID = Grid(1, 6, 8)


def random_locations(b: int = 50, t: int = 1, n: int = 4, *, seed: int = 0) -> Locations:
    g = torch.Generator().manual_seed(seed)
    present = torch.rand(b, n, generator=g) < 0.8
    return Locations(
        points=torch.rand(b, t, n, 2, generator=g),
        velocities=torch.rand(b, t, n, 2, generator=g),
        attributes=torch.rand(b, n, 3, generator=g),
        present=present,
        given=present & (torch.rand(b, n, generator=g) < 0.6),
    )


def present(count: int, *, n: int = 6, b: int = 12_000) -> Tensor:
    """`count` of `n`, not the first ones."""
    return (torch.arange(n) >= n - count).expand(b, n)


def chosen(label: Label, among: Tensor, *, seed: int = 0) -> Tensor:
    return choose_given(among, label, Rng.make(seed, "label", torch.arange(len(among))))


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("label", ["all", "one", "subset"])
def test_how_many_are_told_of(label: Label, count: int) -> None:
    among = present(count, b=300)
    given = chosen(label, among)
    assert not (given & ~among).any()
    told = given.sum(1)
    expected = {
        "all": {count},
        "one": {min(count, 1)},
        "subset": set(range(min(count, 1), count + 1)),
    }
    assert set(told.tolist()) == expected[label]


@pytest.mark.parametrize("label", ["one", "subset"])
def test_no_object_is_preferred(label: Label) -> None:
    told = chosen(label, present(4))[:, 2:].sum(0)
    assert chisquare(told.numpy()).pvalue > 1e-3


def test_subsets_of_each_size_and_of_one_size_are_equally_likely() -> None:
    given = chosen("subset", present(4))[:, 2:]
    sizes = given.sum(1).bincount(minlength=5)
    assert sizes[0] == 0 and chisquare(sizes[1:].numpy()).pvalue > 1e-3
    pairs = given[given.sum(1) == 2].long() @ torch.tensor([1, 2, 4, 8])
    kinds = pairs.bincount().numpy()
    assert chisquare(kinds[kinds > 0]).pvalue > 1e-3 and (kinds > 0).sum() == 6


def test_the_choice_is_the_same_in_any_batch() -> None:
    among, rows = present(4, b=100), torch.tensor([70, 3, 20])
    rng = Rng.make(5, "label", torch.arange(100))
    whole = choose_given(among, "subset", rng)
    assert torch.equal(choose_given(among[rows], "subset", rng[rows]), whole[rows])


def test_points_are_fractions_of_the_frame() -> None:
    """The centre of the upper left pixel is half a pixel into the frame."""
    positions = torch.tensor([[[[0.0, 0.0], [39.5, 19.5], [0.0, 0.0], [19.5, 4.5]]]])
    truth = Truth(
        present=torch.tensor([[True, True, False, True]]),
        positions_px=positions,
        velocities_px=torch.full_like(positions, 2.0),
        labelled=torch.tensor([[True, False, True, True]]),
        clutter=torch.tensor([[False, False, False, True]]),
        attributes=torch.ones(1, 4, 3),
    )
    found = Locations.of_truth(truth, height=20, width=40)
    assert torch.allclose(found.points[0, 0, :2], torch.tensor([[0.5 / 40, 0.5 / 20], [1.0, 1.0]]))
    speed = torch.tensor([2 / 40, 2 / 20]).expand(1, 1, 2, 2)
    assert torch.allclose(found.velocities[:, :, :2], speed)
    assert found.given.tolist() == [[True, False, False, False]]
    assert found.all_given().given.tolist() == [[True, True, False, False]]
    for x in (found.points[:, 0], found.velocities[:, 0], found.attributes):
        assert x[:, :2].all() and not x[:, 2:].any(), "nothing is told of what is absent or clutter"


def test_a_truth_that_knows_little_has_locations_too() -> None:
    """Of an object whose place is unknown, nobody can be told."""
    positions = torch.tensor([[[[4.0, 4.0], [torch.nan, torch.nan]]]])
    everybody = torch.ones(1, 2, dtype=torch.bool)
    truth = Truth(everybody, positions, labelled=everybody)
    found = Locations.of_truth(truth, height=20, width=40)
    assert found.attributes.shape == (1, 2, 0) and not found.velocities.any()
    with pytest.raises(UserError, match=r"object 1 of clip 0 is asked for at \(nan, nan\)"):
        found.refuse_outside()


@pytest.mark.parametrize("point", [(1.01, 0.5), (0.5, -0.01), (float("nan"), 0.5), (3.0, 7.0)])
def test_points_outside_the_frame_are_refused(point: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"object 1 of clip 1 is asked for .* outside the frame"):
        Locations.at([[(0.5, 0.5)], [(0.1, 0.2), point]])
    inside = Locations.at([[(0.5, 0.5)], [(0.1, 0.2), (0.0, 1.0)]])
    inside.points[1, 0, 1] = torch.tensor(point)
    with pytest.raises(UserError, match="outside the frame; legal: fractions"):
        heat_map(inside, GRID, kind="gaussian")


@pytest.mark.parametrize("kind", NUM_CHANNELS)
def test_what_is_not_given_is_not_shown(kind: Kind) -> None:
    some = random_locations()
    shown = heat_map(some, GRID, kind=kind)
    assert shown.shape == (50, *GRID, NUM_CHANNELS[kind])
    some.points[(~some.given)[:, None]] = torch.nan
    assert torch.equal(heat_map(some, GRID, kind=kind), shown)
    nothing = Locations.at([[], []])
    assert (
        heat_map(nothing, GRID, kind=kind).tolist()
        == torch.zeros(2, *GRID, shown.shape[-1]).tolist()
    )


@pytest.mark.parametrize("kind", NUM_CHANNELS)
def test_maps_of_objects_add_up(kind: Kind) -> None:
    some = random_locations().all_given()
    alone = [
        heat_map(
            Locations(
                some.points, some.velocities, some.attributes, some.present, some.given & only
            ),
            GRID,
            kind=kind,
        )
        for only in torch.eye(4, dtype=torch.bool)
    ]
    assert torch.allclose(sum(alone, torch.zeros(())), heat_map(some, GRID, kind=kind), atol=1e-6)


def test_multi_hot_marks_the_cell_of_the_centre() -> None:
    corners = [(0.0, 0.0), (1.0, 1.0), (0.125, 0.5), (0.124, 0.499)]
    hot = heat_map(Locations.at([corners]), GRID, kind="multi_hot")[0, 0, :, :, 0]
    assert sorted(hot.nonzero().tolist()) == [[0, 0], [2, 0], [3, 1], [5, 7]]
    some = random_locations()
    hot = heat_map(some, GRID, kind="multi_hot")
    assert torch.equal(hot.sum((1, 2, 3, 4)), some.given.sum(1).float())


def test_the_point_can_be_read_off_an_offset_map() -> None:
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    maps = heat_map(Locations.at([[tuple(p)] for p in points.tolist()]), GRID, kind="offset")
    clip, _, row, column = maps[..., 0].nonzero().unbind(1)
    assert clip.tolist() == list(range(200))
    off = maps[clip, 0, row, column, 1:]
    assert (off.abs() <= 0.5 + 1e-5).all()
    read = (torch.stack([column, row], dim=1) + 0.5 + off) / torch.tensor([GRID.w, GRID.h])
    assert torch.allclose(read, points, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_a_gaussian_map_is_the_closed_form_and_tells_the_point(sigma: float) -> None:
    x, y = 0.37, 0.61
    heat = heat_map(Locations.at([[(x, y)]]), GRID, kind="gaussian", sigma=sigma)[0, 0, :, :, 0]
    for row, column in product(range(GRID.h), range(GRID.w)):
        distance_2 = (column + 0.5 - x * GRID.w) ** 2 + (row + 0.5 - y * GRID.h) ** 2
        expected = torch.tensor(-distance_2 / (2 * sigma**2)).exp()
        assert torch.allclose(heat[row, column], expected, atol=1e-6)
    row, column = divmod(int(heat.argmax()), GRID.w)
    assert (row, column) == (int(y * GRID.h), int(x * GRID.w))
    slope = (heat[row, column + 1] / heat[row, column]).log()  # where in the cell it lies
    assert float(column + 1 + sigma**2 * slope) == pytest.approx(x * GRID.w, abs=1e-4)
    middle = Locations.at([[(2.5 / GRID.w, 3.5 / GRID.h)]])
    peak = heat_map(middle, GRID, kind="gaussian", sigma=sigma)
    assert float(peak[0, 0, 3, 2, 0]) == pytest.approx(1)


def test_a_latent_frame_shows_its_last_frame_or_all_show_the_first() -> None:
    moving = random_locations(t=9)
    grid = Grid(3, 6, 8)
    shown = heat_map(moving, grid, kind="offset")
    for latent, frame in enumerate((0, 4, 8)):
        still = Locations(
            moving.points[:, frame, None],
            moving.velocities[:, frame, None],
            moving.attributes,
            moving.present,
            moving.given,
        )
        assert torch.equal(shown[:, latent, None], heat_map(still, GRID, kind="offset"))
    first = heat_map(moving, grid, kind="offset", per="clip")
    assert torch.equal(first, shown[:, :1].expand_as(first))
    for wrong in (Grid(4, 6, 8), Grid(1, 6, 8), Grid(10, 6, 8)):
        with pytest.raises(UserError, match=f"9 frames do not fit {wrong.t} latent frames"):
            heat_map(moving, wrong, kind="offset")
        assert len(heat_map(moving, wrong, kind="offset", per="clip")) == 50
    with pytest.raises(UserError, match="1 frames do not fit 3 latent frames"):
        heat_map(random_locations(), grid, kind="offset")


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_heat_map_has_a_width(sigma: float) -> None:
    with pytest.raises(UserError, match="no width of a heat map"):
        heat_map(Locations.at([[(0.5, 0.5)]]), GRID, kind="gaussian", sigma=sigma)


def test_batches_are_cut_and_joined() -> None:
    some = random_locations(b=5)
    again = Locations.cat([some[:2], some[torch.tensor([2, 3, 4])]]).to("cpu")
    assert len(again) == 5
    for name in ("points", "velocities", "attributes", "present", "given"):
        assert torch.equal(getattr(again, name), getattr(some, name))
    joined = Locations.cat([some, random_locations(b=2, n=6)])
    assert joined.points.shape == (7, 1, 6, 2) and joined.attributes.shape == (7, 6, 3)
    assert torch.equal(joined.given[:5, :4], some.given) and not joined.present[:5, 4:].any()
    assert torch.equal(joined.attributes[:5, :4], some.attributes)
