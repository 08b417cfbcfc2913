"""Locality is measured right where it is known: on denoisers in closed form that compose or do not,
on data whose best linear denoiser is known, and on networks that are or are not local."""

import math
from dataclasses import replace

import pytest
import torch
from local_world import WINDOW, discrete_oracle, global_one, oracle, scenes_of
from pydantic import ValidationError
from torch import Tensor

from vidcomp.probes.base import Score
from vidcomp.probes.base_composition import region_matrix, removals
from vidcomp.probes.base_locality import Belief, Probes, Reach, Scenes, choose_probes
from vidcomp.probes.base_maps import extents, gradient_maps, perturbed_maps
from vidcomp.probes.base_nulls import Wiener
from vidcomp.probes.locality import Config, measure
from vidcomp.seeding import Rng

CELLS = [[(2, 2), (8, 3), (5, 9)], [(1, 10), (6, 6)], [(3, 4), (9, 9)], [(10, 1), (2, 6), (7, 7)]]
CONFIG = Config(probes=24, perturbed=24, draws=2, window=WINDOW)
REACH = Reach(cells=2.0, frames=2.0, objects=1.5)


def rng_of(count: int) -> Rng:
    return Rng.make(0, "test", torch.arange(count))


def centres(scenes: Scenes) -> Probes:
    """The middle of each object in the first frame."""
    at = scenes.distances().argmin(-1)
    return Probes(at, scenes.given)


def numbers(belief: Belief, reach: Reach | None = None) -> dict[str, Score]:
    return measure(belief, CONFIG, reach).scores


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_world_that_composes_is_measured_as_one(discrete: bool, frames: int) -> None:
    scenes = scenes_of(CELLS, frames=frames, discrete=discrete)
    belief = discrete_oracle(scenes) if discrete else oracle(scenes)
    found = numbers(belief, REACH)
    zero = ["leakage", "leakage_gradient", "additivity", "swap"]
    assert [found[key].value for key in zero] == pytest.approx([0.0] * 4, abs=1e-5)
    assert found["insert_leakage"].value == 0, "exactly"
    assert found["diagonal"].value == pytest.approx(1.0, abs=1e-6)
    assert found["enforced"].value == 1.0
    if discrete:
        assert found["additivity_nats"].value == pytest.approx(0.0, abs=1e-6)
    for key in ("leakage", "insert_leakage", "diagonal", "pixels/inside"):
        chance = found[key].chance
        assert chance is not None and 0 < chance < 1, "and no map that is even scores as well"


@pytest.mark.parametrize("discrete", [False, True])
def test_a_denoiser_that_counts_does_not(discrete: bool) -> None:
    scenes = scenes_of(CELLS, discrete=discrete)
    local = discrete_oracle(scenes) if discrete else oracle(scenes)
    found = numbers(global_one(local), REACH)
    assert found["leakage"].value > 0.3 and found["leakage_gradient"].value > 0.3
    assert found["insert_leakage"].value > 0.3
    assert found["additivity"].value > 0.2 and found["swap"].value > 0.2
    assert found["diagonal"].value < 0.8 and found["enforced"].value == 0
    inside, exact = (numbers(b)["pixels/inside"].value for b in (global_one(local), local))
    assert inside < 0.7 * exact


@pytest.mark.parametrize("frames", [1, 3])
def test_extents_of_a_block_are_known(frames: int) -> None:
    """Seen from its middle: all cells of the block count the same, its own is left out."""
    scenes = scenes_of(CELLS, frames=frames)
    probes, belief = centres(scenes), oracle(scenes)
    maps = gradient_maps(belief, probes, draws=1, rng=rng_of(4))
    block = 9 * frames - 1
    for found in (maps.positions, perturbed_maps(belief, probes)):
        known = extents(found, probes, scenes.grid, window=3)
        where = probes.valid
        assert known["inside"][where].allclose(torch.tensor(1.0).double())
        assert known["r50"][where].eq(1).all() and known["r90"][where].eq(1).all()
        assert known["inside"][~where].isnan().all()
        narrow = extents(found, probes, scenes.grid, window=1)["inside"][where]
        assert narrow.allclose(torch.tensor((frames - 1) / block).double(), atol=1e-5)
    assert extents(maps.positions, probes, scenes.grid, window=3)["participation"][
        probes.valid
    ].allclose(torch.tensor(float(block)).double())


def test_extents_in_time_are_in_frames() -> None:
    """From the first of three frames: 8 of 26 in the same one, 17 up to the next."""
    scenes = scenes_of(CELLS, frames=3)
    probes = centres(scenes)
    maps = gradient_maps(oracle(scenes), probes, draws=1, rng=rng_of(4))
    found = extents(maps.positions, probes, scenes.grid, window=3)
    assert found["r50_frames"][probes.valid].eq(1).all()
    assert found["r90_frames"][probes.valid].eq(2).all()


def linear(scenes: Scenes, matrix: Tensor) -> Belief:
    """D = matrix x, of all channels of all positions."""

    def of(x: Tensor, points: Tensor, given: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T).reshape(*x.shape[:4], -1)

    return Belief(scenes, of)


def with_channels(scenes: Scenes, channels: int) -> Scenes:
    x = rng_of(len(scenes.x)).normal(*scenes.grid, channels)
    return replace(scenes, x=x, other=x.roll(1, 0), clean=x)


def test_gradients_of_a_linear_map_are_its_blocks() -> None:
    """All channels exactly; by random signs, nearly, and never biased by much."""
    scenes = with_channels(scenes_of([[(1, 1)], [(2, 2)]], size=4), 6)
    matrix = rng_of(16 * 6).normal(16 * 6)
    blocks = matrix.reshape(16, 6, 16, 6).square().sum((1, 3)).sqrt()
    probes = Probes(torch.tensor([[3, 7, 12], [0, 5, 15]]), torch.ones(2, 3, dtype=torch.bool))
    exact = gradient_maps(linear(scenes, matrix), probes, draws=6, rng=rng_of(2)).positions
    torch.testing.assert_close(exact, blocks[probes.at])
    drawn = gradient_maps(linear(scenes, matrix), probes, draws=5, rng=rng_of(2)).positions
    assert float((drawn / exact).mean()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(drawn, exact)


def test_gradients_of_log_probabilities_are_small_divergences() -> None:
    """Fisher information is eight times the Jensen-Shannon divergence, for small changes."""
    scenes = scenes_of([[(1, 1)], [(2, 2)]], size=4, discrete=True)
    scenes = replace(scenes, shown=torch.ones_like(scenes.shown))
    matrix = rng_of(16 * 3).normal(16)

    def of(x: Tensor, points: Tensor, given: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T).reshape(*x.shape[:4], 3).log_softmax(-1)

    belief = Belief(scenes, of, (3,))
    probes = Probes(torch.tensor([[3], [9]]), torch.ones(2, 1, dtype=torch.bool))
    gradients = gradient_maps(belief, probes, draws=3, rng=rng_of(2)).positions[:, 0]
    step = 0.02
    for j in range(16):
        x = scenes.x.flatten(1).clone()
        x[:, j] += step
        moved = belief.change(belief.at(), belief.at(x=x.reshape(scenes.x.shape)))
        at = moved.gather(1, probes.at)[:, 0]
        expected = gradients[:, j].double() * step / math.sqrt(8)
        torch.testing.assert_close(at, expected, rtol=0.05, atol=1e-5)


def test_probes_are_objects_edges_and_background() -> None:
    scenes = scenes_of(CELLS)
    probes = choose_probes(scenes, scenes.asked, num=24, window=3, rng=rng_of(4))
    near = scenes.distances().masked_fill(~scenes.given[..., None], 99).amin(1)
    near = near.gather(1, probes.at)
    assert probes.valid.all()
    objects = scenes.given.sum(1)
    assert torch.equal((near < 0.5).sum(1), objects)
    edges, background = ((near > 0.5) & (near < 1.5)).sum(1), (near > 1.5).sum(1)
    assert torch.equal(edges + background, 24 - objects) and (edges - background).abs().max() <= 1
    few = torch.zeros_like(scenes.asked)
    few[:, 0, 0, :5] = True
    probes = choose_probes(scenes, few, num=24, window=3, rng=rng_of(4))
    assert probes.valid.sum(1).tolist() == [5] * 4 and (probes.at[probes.valid] < 5).all()


def test_an_object_changes_its_own_region() -> None:
    scenes = scenes_of(CELLS)
    regions = region_matrix(removals(oracle(scenes)), scenes, WINDOW)
    diagonal = regions.diagonal(dim1=1, dim2=2)
    assert (diagonal[scenes.given] > 0).all() and not diagonal[~scenes.given].any()
    assert torch.equal(regions, torch.diag_embed(diagonal))


def smooth(count: int, size: int = 6) -> Tensor:
    """Draws of a Gaussian field whose correlation falls with distance."""
    line = torch.arange(size)
    factor = torch.exp(-(line[:, None] - line).abs() / 3.0)
    root = torch.linalg.cholesky(factor + 1e-4 * torch.eye(size))
    draws = rng_of(count).normal(size, size)
    return (1.5 + torch.einsum("ij,njk,lk->nil", root, draws, root))[:, None, ..., None]


def test_the_wiener_denoiser_is_the_closed_form() -> None:
    latents = smooth(400)
    flat = latents.flatten(1).double()
    mean, covariance = flat.mean(0), torch.cov(flat.T)
    wiener = Wiener.of(latents, rank=36)
    seen = smooth(5).flatten(1).double()
    noise = 0.7**2
    gain = covariance @ torch.linalg.inv(covariance + noise * torch.eye(36))
    expected = mean + (seen - mean) @ gain.T
    precision = torch.full((5, 1, 6, 6), 1 / noise)
    found = wiener.denoiser(precision)(seen.float().reshape(5, 1, 6, 6, 1)).flatten(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    few = Wiener.of(latents, rank=4)
    largest = torch.linalg.eigvalsh(covariance).flip(0)[:4]
    torch.testing.assert_close(few.variances.double(), largest, rtol=1e-3, atol=1e-3)


def test_the_wiener_denoiser_fills_in_what_is_hidden() -> None:
    """As the conditional mean of a Gaussian does."""
    latents = smooth(400)
    flat = latents.flatten(1).double()
    mean, covariance = flat.mean(0), torch.cov(flat.T)
    shown = torch.arange(36) % 3 == 0
    seen = smooth(2).flatten(1).double()
    noise = 1e-3 * torch.eye(int(shown.sum()))
    gain = covariance[:, shown] @ torch.linalg.inv(covariance[shown][:, shown] + noise)
    expected = mean + (seen[:, shown] - mean[shown]) @ gain.T
    precision = (shown.float() / 1e-3).expand(2, 36).reshape(2, 1, 6, 6)
    found = Wiener.of(latents, rank=36).denoiser(precision)(seen.float().reshape(2, 1, 6, 6, 1))
    hidden = ~shown
    torch.testing.assert_close(
        found.flatten(1).double()[:, hidden], expected[:, hidden], rtol=0.02, atol=0.02
    )


def test_the_data_alone_make_a_denoiser_far_from_local() -> None:
    """Of correlated data; it knows of no objects, so nothing is said of them."""
    scenes = scenes_of([[(1, 1), (4, 4)], [(4, 1), (1, 4)]], size=6)
    scenes = replace(scenes, clean=smooth(2))
    found = numbers(Wiener.of(smooth(400)).belief(scenes))
    assert found["pixels/r90"].value >= 3 and found["swap"].value > 0.05
    assert found["pixels/r90"].value < (found["pixels/r90"].chance or 0), "but not even"
    of_objects = {"leakage", "insert_leakage", "leakage_gradient", "diagonal", "additivity"}
    assert not found.keys() & of_objects


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"window": 0}, "smaller than a token"),
        ({"window": 4}, "has no middle"),
        ({"also_at": [0.5, 1.2]}, "less than 1"),
        ({"level": -0.1}, "greater than or equal to 0"),
        ({"objects": [0, 3]}, r"no range of counts; example: \[2, 3\]"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config.model_validate(wrong)


def test_a_window_that_holds_the_whole_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="window=23 around a position holds all of 12 x 12"):
        measure(oracle(scenes_of(CELLS)), Config(window=23))
