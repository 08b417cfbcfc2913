"""Splits: levels are distances, the paper's split is the paper's, nothing held out gets through."""

import pytest
import torch
from pydantic import ValidationError

from vidcomp.config import UserError
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split, SplitConfig

BITS = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
NOVEL = {"shape": ("triangle",), "colour": ("blue",), "motion": ("up",)}


def bits(split: Split, level: str) -> set[str]:
    return {"".join(str(int(k)) for k in row) for row in split.combinations_of(level)}


def test_the_papers_three_bits() -> None:
    split = SplitConfig(novel=NOVEL).build(choose(BITS))
    assert split.level_names == ("seen", "level-1", "level-2")
    assert bits(split, "seen") == {"000", "100", "010", "001"}
    assert bits(split, "level-1") == {"011", "101", "110"}
    assert bits(split, "level-2") == {"111"}


@pytest.mark.parametrize("seed", range(5))
def test_level_is_the_hamming_distance_to_the_nearest_seen(seed: int) -> None:
    factors = choose(
        {
            "shape": ("circle", "square", "star"),
            "colour": ("red", "blue"),
            "motion": ("up", "left", "still"),
        }
    )
    combinations = factors.combinations()
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randperm(len(combinations), generator=generator)[:3].tolist()
    train = tuple(
        {
            f.name: f.class_names[k]
            for f, k in zip(factors.items, combinations[i].tolist(), strict=True)
        }
        for i in seen
    )
    split = SplitConfig(rule="explicit", train=train).build(factors)
    for i, level in enumerate(split.levels(combinations).tolist()):
        assert level == min(int((combinations[i] != combinations[s]).sum()) for s in seen)


def test_both_rules_can_say_the_same_and_then_have_the_same_hash() -> None:
    factors = choose(BITS)
    split = SplitConfig(novel=NOVEL).build(factors)
    train = tuple(
        {f.name: f.class_names[int(k)] for f, k in zip(factors.items, row, strict=True)}
        for row in split.combinations_of("seen")
    )
    assert SplitConfig(rule="explicit", train=train).build(factors).digest == split.digest


def test_the_hash_changes_with_the_split_and_with_the_factors() -> None:
    swapped = {"colour": BITS["colour"], "shape": BITS["shape"], "motion": BITS["motion"]}
    digests = [
        SplitConfig(novel=NOVEL).build(choose(BITS)).digest,
        SplitConfig(novel=NOVEL, max_novel=2).build(choose(BITS)).digest,
        SplitConfig(novel={"shape": ("circle",)}, max_novel=0).build(choose(BITS)).digest,
        SplitConfig(novel=NOVEL).build(choose(swapped)).digest,
        SplitConfig(novel=NOVEL).build(choose({**BITS, "colour": ("red", "blue", "green")})).digest,
    ]
    assert len(set(digests)) == len(digests)


def test_a_held_out_combination_is_refused() -> None:
    split = SplitConfig(novel=NOVEL).build(choose(BITS))
    split.refuse_held_out(split.combinations_of("seen"))
    batch = torch.cat([split.combinations_of("seen"), split.combinations_of("level-2")])
    with pytest.raises(UserError, match=r"1 of 5 training clips .* 'triangle blue up'"):
        split.refuse_held_out(batch)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="no factor 'colr'"):
        SplitConfig(novel={"colr": ("red",)}).build(choose(BITS))
    with pytest.raises(UserError, match="no class 'green'"):
        SplitConfig(novel={"colour": ("green",)}).build(choose(BITS))
    with pytest.raises(UserError, match="leaves no combination"):
        SplitConfig(novel={"colour": ("red", "blue")}, max_novel=0).build(choose(BITS))
    with pytest.raises(ValidationError, match="belongs to rule=explicit"):
        SplitConfig(train=({"shape": "circle"},))
    with pytest.raises(ValidationError, match="non-empty 'train'"):
        SplitConfig(rule="explicit")
    with pytest.raises(UserError, match="lacks motion; legal: shape: circle, triangle"):
        SplitConfig(rule="explicit", train=({"shape": "circle", "colour": "red"},)).build(
            choose(BITS)
        )


def test_ids_and_names_of_combinations_are_inverses() -> None:
    factors = choose(BITS)
    combinations = factors.combinations()
    assert torch.equal(factors.combination_ids(combinations), torch.arange(8))
    named = [
        dict(zip(factors.names, factors.describe(row).split(), strict=True)) for row in combinations
    ]
    assert torch.equal(factors.parse(named), combinations)
    assert Factors.from_json(factors.to_json()) == factors
