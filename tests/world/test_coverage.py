"""Coverage: the counts are those of the clips, whichever factors one looks at."""

import re

import pytest
import torch

from vidcomp.world.concepts import choose
from vidcomp.world.coverage import coverage_of_clips, coverage_of_combinations, coverage_text
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.splits import SplitConfig

BITS = choose({"shape": ("circle", "ring"), "colour": ("red", "blue"), "size": ("large", "small")})
SPLIT = SplitConfig(
    novel={"shape": ("ring",), "colour": ("blue",), "size": "x < 0.19"}, max_novel=1
).build(BITS)


def clips(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(2, (n, 3), generator=generator)
    draws = torch.rand(n, 3, 3, generator=generator) * 2 - 1
    return classes, BITS.prototypes(classes) + BITS.spreads(classes) * draws


@pytest.mark.parametrize("columns", [(), (0,), (2, 1), (1, 0, 2)])
def test_counts_by_brute_force(columns: tuple[int, ...]) -> None:
    classes, values = clips()
    levels = SPLIT.levels(classes, values)
    table = coverage_of_clips(SPLIT, classes, values).by(columns)
    assert table.shape == (*[2] * len(columns), 3) and table.sum() == len(classes)
    for cell in torch.cartesian_prod(*[torch.arange(size) for size in table.shape]).reshape(
        -1, table.ndim
    ):
        here = (classes[:, list(columns)] == cell[:-1]).all(1) & (levels == cell[-1])
        assert table[tuple(cell.tolist())] == here.sum()


def test_the_text_has_every_count_of_every_pair() -> None:
    coverage = coverage_of_clips(SPLIT, *clips())
    text = coverage_text(coverage)
    assert text.startswith(f"split {SPLIT.digest} of 300 clips: ")
    for title in ("shape x colour", "shape x size", "colour x size"):
        _, _, table = text.partition(f"{title}, clips: seen/level-1/level-2\n")
        rows = [line.split() for line in table.partition("\n\n")[0].splitlines()]
        names = title.split(" x ")
        assert tuple(rows[0]) == BITS.items[BITS.names.index(names[1])].class_names
        found = [
            [[0 if n == "." else int(n) for n in cell.split("/")] for cell in row]
            for _, *row in rows[1:]
        ]
        expected = coverage.by([BITS.names.index(name) for name in names])
        assert found == expected.tolist()
    assert max(map(len, text.splitlines())) < 100


def test_combinations_are_counted_once_for_each_level_that_they_can_have() -> None:
    coverage = coverage_of_combinations(SPLIT)
    assert coverage.counts.sum() == len(SPLIT.occurrences.levels) > 8
    plain = SplitConfig(novel={"shape": ("ring",)}, max_novel=0).build(BITS)
    assert coverage_of_combinations(plain).counts.sum(1).tolist() == [1] * 8


@pytest.mark.parametrize("num_classes", [1, 3, 1000])
def test_one_factor_and_none(num_classes: int) -> None:
    label = Factor("label", tuple(FactorClass(f"class {k}") for k in range(num_classes)))
    split = SplitConfig().build(Factors((label,)))
    text = coverage_text(coverage_of_combinations(split))
    assert text.startswith(f"split {split.digest} of {num_classes} combinations: {num_classes}")
    assert len(text.splitlines()) < 10
    nothing = SplitConfig().build(Factors(()))
    classes, values = torch.zeros(7, 0, dtype=torch.int64), torch.zeros(7, 0, 0)
    text = coverage_text(coverage_of_clips(nothing, classes, values))
    assert re.fullmatch(r"split \w{12} of 7 clips: 7 seen", text)


def test_no_clips_are_covered_too() -> None:
    classes, values = clips(0)
    assert coverage_of_clips(SPLIT, classes, values).counts.sum() == 0
