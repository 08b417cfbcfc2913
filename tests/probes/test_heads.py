"""Polysemantic heads, on heads that were made to respond to known factors."""

import pytest
import torch
from torch import Tensor
from toy_network import FACTORS, TWO_FACTORS, Toy, balanced, found_by, noise, signs

from vidcomp.config import UserError
from vidcomp.probes.heads import Config, differences, similarities

CLASSES = balanced(12)
BASIS = torch.linalg.qr(noise(6, 6))[0]


def head(*amplitudes: float) -> Tensor:
    """A head that writes an orthogonal direction for each factor, so long."""
    return (signs(CLASSES) * torch.tensor(amplitudes)) @ BASIS[:3]


def written() -> Tensor:
    """Layer 0: one factor, noise. Layer 1: two factors, three."""
    layers = [
        torch.stack([head(1, 0, 0), noise(len(CLASSES), 6)], dim=1),
        torch.stack([head(1, 1, 0), head(1, 1, 1)], dim=1),
    ]
    return torch.stack(layers, dim=1) + 0.01 * noise(len(CLASSES), 2, 2, 6, seed=1)


def values(toy: Toy, classes: Tensor = CLASSES) -> dict[str, float]:
    found = found_by(Config().build(FACTORS), toy, classes)
    return {key: score.value for key, score in found.items()}


def test_only_a_head_of_three_factors_is_polysemantic_in_two_pairs() -> None:
    assert values(Toy(written())) == {
        "layer/0": 0.0,
        "layer/1": 0.5,
        "overall": 0.25,
        "pair/shape+colour": 0.5,
        "pair/shape+motion": 0.25,
        "pair/colour+motion": 0.25,
        "factor/shape": 0.75,
        "factor/colour": 0.5,
        "factor/motion": 0.25,
    }


def test_chance_is_that_of_shuffled_labels_and_n_counts_heads() -> None:
    found = found_by(Config().build(FACTORS), Toy(written()), CLASSES)
    assert all(score.chance == 0.0 for score in found.values())
    assert found["overall"].n == 4 and found["layer/0"].n == 2
    assert all(s.low <= s.value <= s.high for s in found.values())
    shuffled = CLASSES[torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(0))]
    assert values(Toy(written()), shuffled)["overall"] == 0.0
    blind = found_by(Config(threshold=1e-6).build(FACTORS), Toy(written()), CLASSES)
    chance = blind["factor/shape"].chance
    assert chance is not None and 0.1 < chance < 0.9, "without a threshold noise responds too"


def test_the_difference_is_the_share_of_the_variance() -> None:
    found = differences(similarities(head(0.7**0.5, 0.2**0.5, 0.1**0.5)[:, None]), CLASSES)
    torch.testing.assert_close(found / 2, torch.tensor([[0.7, 0.2, 0.1]]), rtol=1e-4, atol=1e-5)


def test_the_threshold_is_a_share_of_the_variance() -> None:
    found = values(Toy(head(0.6**0.5, 0.25**0.5, 0.15**0.5)[:, None, None]))
    assert [found[f"factor/{name}"] for name in FACTORS.names] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_a_head_that_knows_one_factor_has_a_difference_of_one(num_classes: int) -> None:
    classes = torch.cartesian_prod(torch.arange(num_classes), torch.arange(2)).repeat(3, 1)
    one_vector_each = torch.eye(num_classes)[classes[:, 0]]
    (found,) = differences(similarities(one_vector_each[:, None]), classes)
    torch.testing.assert_close(found * (1 - 1 / num_classes), torch.tensor([1.0, 0.0]))


def test_turns_scales_and_offsets_of_a_head_do_not_matter() -> None:
    turn = torch.linalg.qr(noise(6, 6, seed=3))[0]
    assert values(Toy(50 * written() @ turn + 3)) == values(Toy(written()))


def test_a_silent_head_responds_to_nothing() -> None:
    assert set(values(Toy(torch.full_like(written(), 2.0))).values()) == {0.0}


def test_the_network_is_told_the_factors_at_the_level_that_was_asked() -> None:
    toy = Toy(written())
    found_by(Config(level=0.3).build(FACTORS), toy, CLASSES)
    assert toy.asked == [("heads", 0.3, True)]


def test_two_factors_make_one_pair_which_is_not_enough() -> None:
    with pytest.raises(UserError, match=r"heads must hold across two pairs .* have 2"):
        found_by(Config().build(TWO_FACTORS), Toy(written()), CLASSES)


def test_too_few_clips_are_said() -> None:
    with pytest.raises(UserError, match="among 8 clips there are none"):
        found_by(Config().build(FACTORS), Toy(written()[:8]), CLASSES[:8])
