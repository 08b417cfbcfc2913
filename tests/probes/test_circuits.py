"""Circuit overlap, on neurons that were made to matter to known factors."""

import pytest
import torch
from torch import Tensor
from toy_network import FACTORS, TWO_FACTORS, Toy, balanced, found_by, noise, signs

from vidcomp.config import UserError
from vidcomp.probes.circuits import Config, chance_overlap

CLASSES = balanced(10)
GROUP = 4
"""Neurons that matter to a class of a factor."""

PER_LAYER = 60


def influence() -> Tensor:
    """A group of neurons for each class of each factor, spread over two layers."""
    scores = 0.01 * noise(len(CLASSES), 2 * PER_LAYER).abs()
    for f in range(3):
        for k in range(2):
            first = (2 * f + k) * GROUP * 3
            shows = (CLASSES[:, f] == k)[:, None]
            scores[:, first : first + GROUP] += 1.0 * shows
    sign = torch.where(noise(*scores.shape, seed=1) > 0, 1.0, -1.0)
    return (scores * sign).unflatten(1, (2, PER_LAYER))


SHARE = 3 * GROUP / (2 * PER_LAYER)


def test_the_overlap_is_that_of_the_shared_factors() -> None:
    """Circuits of 3 groups that share s of them: s / (6 - s)."""
    found = found_by(Config(share=SHARE).build(FACTORS), Toy(influence()), CLASSES)
    values = {key: score.value for key, score in found.items()}
    # Of the 6 pairs that agree in the third factor, 4 share one of the two and 2 share none.
    pair = pytest.approx((4 * 2 / 4 + 2 * 1 / 5) / 6)
    assert values == {
        "shared/0": 0.0,
        "shared/1": pytest.approx(1 / 5),
        "shared/2": pytest.approx(2 / 4),
        "shared/3": 1.0,
        "pair/shape+colour": pair,
        "pair/shape+motion": pair,
        "pair/colour+motion": pair,
    }
    assert [found[f"shared/{s}"].n for s in range(4)] == [4, 12, 12, 8]


def test_circuits_of_chance_overlap_by_chance() -> None:
    """Neurons that matter to single clips, not to combinations."""
    toy = Toy(noise(len(CLASSES), 2, 500))
    found = found_by(Config(share=0.1).build(FACTORS), toy, CLASSES)
    for score in found.values():
        assert score.chance == pytest.approx(chance_overlap(1000, 100))
        assert score.value == pytest.approx(score.chance, abs=0.015)


def test_chance_is_the_expected_overlap_of_random_sets() -> None:
    assert chance_overlap(10, 1) == pytest.approx(1 / 10)
    assert chance_overlap(3, 2) == pytest.approx(1 / 3 * 1 + 2 / 3 * 1 / 3)
    assert chance_overlap(5, 5) == pytest.approx(1.0)
    ranks = torch.rand(2, 20_000, 40, generator=torch.Generator().manual_seed(0)).argsort(-1)
    one, other = (ranks < 8).unbind(0)
    drawn = ((one & other).sum(-1) / (one | other).sum(-1)).mean()
    assert chance_overlap(40, 8) == pytest.approx(float(drawn), abs=0.003)


def test_both_circuits_of_a_pair_come_from_different_clips() -> None:
    """Where every clip has neurons of its own, a combination does not even overlap with itself."""
    own = torch.eye(len(CLASSES)).repeat_interleave(2, dim=1)[:, None]
    found = found_by(Config(share=10 / own.shape[-1]).build(FACTORS), Toy(own), CLASSES)
    assert found["shared/3"].value == 0.0


def test_combinations_that_one_clip_shows_are_left_out() -> None:
    rows = torch.cat([torch.arange(len(CLASSES))[(CLASSES != 0).any(1)], torch.tensor([0])])
    found = found_by(Config(share=SHARE).build(FACTORS), Toy(influence()[rows]), CLASSES[rows])
    assert found["shared/3"].n == 7 and found["shared/2"].value == pytest.approx(2 / 4)


def test_strength_counts_not_the_sign() -> None:
    probe = Config(share=SHARE).build(FACTORS)
    flipped = influence() * signs(CLASSES)[:, :1, None]
    assert found_by(probe, Toy(flipped), CLASSES) == found_by(probe, Toy(influence()), CLASSES)


def test_the_network_is_told_the_factors_at_the_level_that_was_asked() -> None:
    toy = Toy(influence())
    found_by(Config(level=0.3).build(FACTORS), toy, CLASSES)
    assert toy.asked == [("influence", 0.3, True)]


def test_a_network_without_influence_has_no_circuits() -> None:
    """Else any neurons would be the strongest, and the same ones everywhere."""
    with pytest.raises(
        UserError, match=r"circuits are 6 neurons, and fewer .* train it for longer"
    ):
        found_by(Config().build(FACTORS), Toy(torch.zeros(len(CLASSES), 2, PER_LAYER)), CLASSES)


def test_two_factors_make_one_pair_which_is_not_enough() -> None:
    with pytest.raises(UserError, match=r"circuits must hold across two pairs .* have 2"):
        found_by(Config().build(TWO_FACTORS), Toy(influence()), CLASSES)


def test_too_few_clips_are_said() -> None:
    with pytest.raises(UserError, match="8 clips show 0 of them"):
        found_by(Config().build(FACTORS), Toy(influence()[:8]), CLASSES[:8])
