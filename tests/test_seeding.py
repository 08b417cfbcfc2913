"""Draws are a pure function of (seed, purpose, step, index), and distributed as they say.

The statistical tests have fixed seeds: they pass or fail for good. Their thresholds are far in the
tail, so that a wrong generator fails and a right one does not by bad luck.
"""

import pytest
import torch
from scipy import stats

from vidcomp.seeding import Rng, initial_weights, permutation, stream_indices

N = 20_000
# The first outputs of SplitMix64 with seed 1234567, as published with its reference implementation.
SPLITMIX64_SEED_1234567 = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def streams(purpose: str = "test", count: int = 8, *, seed: int = 0, step: int = 0) -> Rng:
    return Rng.make(seed, purpose, torch.arange(count), step=step)


def draws(rng: Rng) -> dict[str, torch.Tensor]:
    probabilities = torch.tensor([0.1, 0.2, 0.7]).expand(len(rng), 5, 3)
    return {
        "uniform": rng.uniform(3, 5),
        "normal": rng.normal(7),
        "gumbel": rng.gumbel(4),
        "integers": rng.integers(10, 6),
        "bernoulli": rng.bernoulli(0.3, 6),
        "categorical": rng.categorical(probabilities),
        "fold": rng.fold("a").fold(3).uniform(2),
    }


@pytest.mark.parametrize("rows", [[0], [5, 2, 7], [7, 6, 5, 4, 3, 2, 1, 0], [3, 3]])
def test_a_sample_draws_the_same_in_any_batch(rows: list[int]) -> None:
    index = torch.tensor(rows)
    whole = draws(streams())
    for name, drawn in draws(Rng.make(0, "test", index)).items():
        assert torch.equal(drawn, whole[name][index]), name
    for name, drawn in draws(streams()[index]).items():
        assert torch.equal(drawn, whole[name][index]), name


def test_a_longer_draw_begins_with_the_shorter() -> None:
    assert torch.equal(streams().uniform(9)[:, :4], streams().uniform(4))


def test_asking_twice_answers_the_same_and_names_tell_streams_apart() -> None:
    first = streams().uniform(16)
    assert torch.equal(first, streams().uniform(16))
    others = [
        streams("other"),
        streams(seed=1),
        streams(step=1),
        streams().fold("x"),
        streams().fold("x").fold("y"),
        streams().fold("y").fold("x"),
    ]
    everything = torch.cat([first, *(rng.uniform(16) for rng in others)])
    assert len(everything.unique()) > 0.999 * everything.numel()


def test_a_batch_shares_a_stream_beside_those_of_its_samples() -> None:
    alone = streams(count=8)
    rng = alone.sharing(streams("batch", 8)[torch.arange(8) // 4])
    assert torch.equal(rng.uniform(5), alone.uniform(5)), "the samples' own are as they were"
    shared = rng.of_batch().uniform(5)
    assert torch.equal(shared[:4], shared[:1].expand(4, 5))
    assert torch.equal(shared[4:], shared[4:5].expand(4, 5))
    assert not torch.equal(shared[0], shared[4])
    assert not torch.equal(rng.fold("a").of_batch().uniform(5), shared), "fold reaches both"
    assert torch.equal(rng.fold("a").of_batch().uniform(5), rng.of_batch().fold("a").uniform(5))
    rows = torch.tensor([6, 1])
    assert torch.equal(rng[rows].of_batch().uniform(5), shared[rows])
    assert torch.equal(alone.of_batch().uniform(5), alone.uniform(5)), "without one, its own"


def test_no_global_state_is_read_or_written() -> None:
    before = torch.get_rng_state()
    draws(streams())
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    weights: list[torch.Tensor] = []
    for seed in (3, 3, 4):
        torch.rand(seed)
        before = torch.get_rng_state()
        with initial_weights(seed):
            weights.append(torch.nn.Linear(4, 4).weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_bits_are_those_of_splitmix64() -> None:
    drawn = Rng(torch.tensor([1234567])).uniform(5)[0]
    expected = [((bits >> 41) + 0.5) * 2**-23 for bits in SPLITMIX64_SEED_1234567]
    assert drawn.tolist() == expected


def test_golden_numbers() -> None:
    """A change of these changes every dataset and every run: it needs a reason and a note."""
    rng = Rng.make(7, "golden", torch.tensor([0, 1, 1_000_000]), step=3)
    assert rng.keys.tolist() == [-2472234150799379565, 6721438637420353142, 728251180301507469]
    assert rng.fold("a").keys.tolist() == [
        3974104519765985968,
        1905840585201476252,
        4886661242878458580,
    ]
    assert rng.integers(1000, 3).tolist() == [[684, 150, 346], [783, 587, 635], [662, 570, 187]]
    assert permutation(7, "golden", 10).tolist() == [7, 1, 6, 9, 4, 5, 3, 8, 0, 2]
    assert stream_indices(7, 5, 3, 8).tolist() == [0, 1, 1, 4, 2, 3, 0, 3]


@pytest.mark.parametrize("bits", [0, 2**64 - 1, 2**63, 2**63 - 1])
def test_uniform_is_never_0_and_never_1(bits: int) -> None:
    """For a stream whose first 64 random bits are `bits`, found by running SplitMix64 backwards."""
    mask = 2**64 - 1
    z = bits ^ bits >> 31 ^ bits >> 62
    z = z * pow(0x94D049BB133111EB, -1, 2**64) & mask
    z ^= z >> 27 ^ z >> 54
    z = z * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
    z ^= z >> 30 ^ z >> 60
    key = z - 0x9E3779B97F4A7C15 & mask
    rng = Rng(torch.tensor([key - 2**64 if key >= 2**63 else key]))
    u = rng.uniform(1).item()
    assert 0 < u < 1
    assert u == ((bits >> 41) + 0.5) * 2**-23
    assert rng.gumbel(1).isfinite().all() and rng.integers(3, 1) == int(u * 3)


def test_uniform_is_uniform() -> None:
    across = streams(count=N).uniform(1).flatten()  # one draw for each index
    along = streams(count=1).uniform(N).flatten()  # many draws for one index
    for drawn in (across, along):
        assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3


def test_normal_is_normal() -> None:
    across = streams(count=N).normal(1).flatten()
    along = streams(count=1).normal(N).flatten()
    for drawn in (across, along):
        assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


def test_gumbel_is_gumbel() -> None:
    assert stats.kstest(streams(count=N).gumbel(1).flatten().numpy(), "gumbel_r").pvalue > 1e-3


def test_neighbours_are_not_correlated() -> None:
    """Neighbouring indices, draws, steps, seeds and folds: |r| below five standard errors."""
    rng = streams(count=N)
    u = rng.uniform(2)
    pairs = {
        "index": (u[:-1, 0], u[1:, 0]),
        "draw": (u[:, 0], u[:, 1]),
        "step": (u[:, 0], streams(count=N, step=1).uniform(1)[:, 0]),
        "seed": (u[:, 0], streams(count=N, seed=1).uniform(1)[:, 0]),
        "purpose": (u[:, 0], streams("tess", count=N).uniform(1)[:, 0]),
        "fold": (u[:, 0], rng.fold("a").uniform(1)[:, 0]),
        "integer fold": (rng.fold(0).uniform(1)[:, 0], rng.fold(1).uniform(1)[:, 0]),
    }
    for name, pair in pairs.items():
        r = torch.corrcoef(torch.stack(pair))[0, 1]
        assert abs(r) < 5 / N**0.5, name


def test_integers_and_bernoulli_have_their_frequencies() -> None:
    drawn = streams(count=N).integers(7, 1)
    assert drawn.amin() == 0 and drawn.amax() == 6
    assert stats.chisquare(torch.bincount(drawn.flatten()).numpy()).pvalue > 1e-3
    share = streams(count=N).bernoulli(0.3, 1).float().mean()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / N) ** 0.5
    assert not streams().bernoulli(0.0, 100).any() and streams().bernoulli(1.0, 100).all()


def test_categorical_has_its_frequencies() -> None:
    p = torch.tensor([0.0, 0.5, 0.125, 0.0, 0.375, 0.0])
    drawn = streams(count=N).categorical((3 * p).expand(N, 6))  # need not be normalised
    counts = torch.bincount(drawn, minlength=6)
    possible = p > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible].numpy(), (p[possible] * N).numpy()).pvalue > 1e-3


def test_permutation_is_one_and_depends_on_its_name() -> None:
    for size in (1, 2, 100):
        assert permutation(0, "a", size).sort().values.tolist() == list(range(size))
    orders = {tuple(permutation(s, p, 100).tolist()) for s in (0, 1) for p in ("a", "b")}
    assert len(orders) == 4


def test_permutation_is_uniform_over_orders() -> None:
    orders = torch.stack([permutation(0, str(k), 3) for k in range(1200)])
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 7, 10])
def test_stream_indices_is_one_endless_list(size: int) -> None:
    whole = stream_indices(0, size, 0, 5 * size)
    for epoch in whole.split(size):
        assert epoch.sort().values.tolist() == list(range(size))
    for start in range(3 * size):
        for count in (0, 1, size, 2 * size):
            part = stream_indices(0, size, start, count)
            assert torch.equal(part, whole[start : start + count])


def test_stream_indices_shuffles_each_epoch_anew() -> None:
    first, second = stream_indices(0, 50, 0, 100).split(50)
    assert not torch.equal(first, second)
    assert not torch.equal(first, stream_indices(1, 50, 0, 50))
