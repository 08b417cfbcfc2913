"""An object that no scene shows is told of where there is room for it, and nowhere else."""

from dataclasses import replace

import pytest
import torch
from local_world import WINDOW, global_one, oracle, scenes_of

from vidcomp.probes.base_composition import insertions, leakage, newcomers
from vidcomp.probes.locality import Config, measure
from vidcomp.seeding import Rng

CELLS = [[(2, 2), (8, 3), (5, 9)], [(1, 10), (6, 6)], [(3, 4), (9, 9)], [(10, 1), (2, 6), (7, 7)]]


def rng_of(count: int, seed: int = 0) -> Rng:
    return Rng.make(seed, "test", torch.arange(count))


def test_they_stand_apart_from_every_object_in_every_frame() -> None:
    """Of objects that move, too; and their windows lie inside the frame."""
    scenes = scenes_of(CELLS, frames=3)
    steps = torch.tensor([0.0, 2.0, 4.0])[None, :, None, None] / 12
    scenes = replace(scenes, points=(scenes.points + steps).clamp_max(1))
    places: set[tuple[float, ...]] = set()
    for seed in range(20):
        new = newcomers(scenes, WINDOW, rng_of(4, seed))
        assert new.given.all() and new.points.shape == (4, 3, 1, 2)
        assert torch.equal(new.points, new.points[:, :1].expand(-1, 3, -1, -1)), "they stand still"
        apart = (12 * (new.points - scenes.points)).abs().amax(-1)  # b t n
        apart = apart.masked_fill(~scenes.given[:, None], torch.inf)
        assert apart.min() >= WINDOW - 1e-4
        cells = 12 * new.points
        assert cells.min() >= WINDOW / 2 - 1e-4 and cells.max() <= 12 - WINDOW / 2 + 1e-4
        again = newcomers(scenes, WINDOW, rng_of(4, seed))
        assert torch.equal(new.points, again.points)
        places.add(tuple(new.points[0, 0, 0].tolist()))
    assert len(places) > 5, "drawn"


def test_a_scene_without_room_says_nothing() -> None:
    full, free = [[(2, 2)], [(3, 3)]], [[(2, 2)], [(0, 0)]]
    crowded = scenes_of(full, size=6)
    assert not newcomers(crowded, WINDOW, rng_of(2)).given.any()
    config = Config(probes=4, perturbed=2, window=WINDOW)
    assert "insert_leakage" not in measure(oracle(crowded), config).scores
    found = measure(oracle(scenes_of(free, size=6)), config).scores
    assert found["insert_leakage"].n == 1 and found["leakage"].n == 2


def test_they_change_what_is_believed_at_their_place() -> None:
    scenes = scenes_of(CELLS)
    new = newcomers(scenes, WINDOW, rng_of(4))
    changes = insertions(oracle(scenes), new)
    there = new.regions(WINDOW)
    assert (changes[there] > 0).all() and not changes[~there].any()
    assert leakage(changes, new, WINDOW).eq(0).all()
    shared = leakage(insertions(global_one(oracle(scenes)), new), new, WINDOW)
    assert (shared > 0.1).all()


@pytest.mark.parametrize("window", [1, 5])
def test_nobody_stands_within_the_window_of_another(window: int) -> None:
    scenes = scenes_of(CELLS)
    new = newcomers(scenes, window, rng_of(4))
    both = replace(
        scenes,
        points=torch.cat([scenes.points, new.points], dim=2),
        given=torch.cat([scenes.given, new.given], dim=1),
    )
    near = (both.distances() < window / 2) & both.given[..., None]
    assert near.sum(1).max() == 1
