"""Splits: under every rule levels are distances, requests are of their level, and nothing held out
gets through."""

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.scenes import combinations_of, draw_values
from vidcomp.world.splits import Split, SplitConfig, level_name

BITS = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
NOVEL = {"shape": ("triangle",), "colour": ("blue",), "motion": ("up",)}

COUNTS = Factors(
    (
        Factor(
            "count",
            tuple(FactorClass(str(n), (float(n),), (0.0,)) for n in range(11)),
            kind="ordinal",
        ),
        choose({"colour": ("red", "blue")}).items[0],
    )
)
SHAPES3D = Factors(
    tuple(
        Factor(name, tuple(FactorClass(c) for c in classes))
        for name, classes in {
            "hue": [str(k) for k in range(10)],
            "shape": ["cube", "cylinder", "sphere"],
            "scale": [str(k) for k in range(8)],
        }.items()
    )
)
SIZED = choose({"colour": ("red", "blue"), "size": ("large", "small"), "shape": ("circle", "ring")})

RULES = {
    "nothing held out": (choose(BITS), SplitConfig()),
    "three bits": (choose(BITS), SplitConfig(novel=NOVEL)),
    "two may be novel": (choose(BITS), SplitConfig(novel=NOVEL, max_novel=2)),
    "all classes of a factor are novel": (
        choose(BITS),
        SplitConfig(novel={"shape": ("circle", "triangle"), "colour": ("blue",)}),
    ),
    "explicit": (
        choose(BITS),
        SplitConfig(rule="explicit", train=({"shape": "circle", "colour": "red", "motion": "up"},)),
    ),
    "shapes3d": (
        SHAPES3D,
        SplitConfig(
            novel={"hue": tuple("6789"), "shape": ("sphere",), "scale": ("6", "7")}, max_novel=1
        ),
    ),
    "fraction": (SHAPES3D, SplitConfig(rule="fraction", held_out=0.4, seed=3)),
    "latin": (choose(BITS), SplitConfig(rule="latin", over=("colour", "shape"), symbols=(1,))),
    "latin over all": (choose(BITS), SplitConfig(rule="latin", symbols=(0,))),
    "range": (COUNTS, SplitConfig(rule="range", seen={"count": (1, 3)})),
    "predicates": (
        SIZED,
        SplitConfig(novel={"size": "x < 0.2", "colour": "r > 0.5 and b < 0.1"}, max_novel=0),
    ),
    "predicate and classes": (
        SIZED,
        SplitConfig(novel={"size": "0.19 < x < 0.27", "colour": ("blue",), "shape": ("ring",)}),
    ),
    "no factors": (Factors(()), SplitConfig()),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"factors", "config"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("factors", "config"), RULES.values(), ids=RULES)


def clips(factors: Factors, n: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes and values as a world draws them, all combinations alike."""
    classes = combinations_of(factors, torch.arange(n), seed=1)
    return classes, draw_values(factors, classes, torch.arange(n), seed=1)


def is_novel(config: SplitConfig, factors: Factors, f: int, k: int, value: list[float]) -> bool:
    """What the config says of one factor of one clip, in plain Python."""
    name = factors.names[f]
    if name in config.seen:
        low, high = config.seen[name]
        return not low <= value[0] <= high
    said = config.novel.get(name, ())
    if isinstance(said, str):
        names = dict(zip("rgb" if name == "colour" else "x", value, strict=False))
        return bool(eval(said, {}, names))
    return factors.items[f].class_names[k] in said


def describe(split: Split, config: SplitConfig, classes: list[int], values: list) -> tuple:
    """A clip as a point: of each factor its class, and whether it is novel."""
    novel = [is_novel(config, split.factors, f, k, values[f]) for f, k in enumerate(classes)]
    return tuple(zip(classes, novel, strict=True))


def bits(split: Split, level: str) -> set[str]:
    return {"".join(str(int(k)) for k in row) for row in split.combinations_of(level)}


def test_levels_are_distances_by_brute_force(factors: Factors, config: SplitConfig) -> None:
    """To the nearest clip that is seen, whichever clips there are."""
    split = config.build(factors)
    classes, values = clips(factors)
    levels = split.levels(classes, values).tolist()
    points = [
        describe(split, config, c, v)
        for c, v in zip(classes.tolist(), values.tolist(), strict=True)
    ]
    trained = {p for p, level in zip(points, levels, strict=True) if level == 0}
    for point, level in set(zip(points, levels, strict=True)):
        distance = min(sum(a != b for a, b in zip(point, other, strict=True)) for other in trained)
        assert level == distance
    assert torch.equal(split.seen(classes, values), torch.tensor(levels) == 0)


def test_seen_is_what_the_rule_says(factors: Factors, config: SplitConfig) -> None:
    if config.rule not in ("base_novel", "range"):
        pytest.skip("rules on whole combinations have tests of their own")
    split = config.build(factors)
    classes, values = clips(factors)
    limit = config.max_novel if config.rule == "base_novel" else 0
    for c, v, level in zip(
        classes.tolist(), values.tolist(), split.levels(classes, values).tolist(), strict=True
    ):
        num_novel = sum(novel for _, novel in describe(split, config, c, v))
        assert level == max(0, num_novel - limit)


def test_requests_are_of_their_level_and_inside_the_boxes(
    factors: Factors, config: SplitConfig
) -> None:
    split = config.build(factors)
    for k in {int(k) for k in split.occurrences.levels}:
        level = level_name(k)
        classes, values = split.requests(level, 30)
        assert len(classes) >= 30
        assert (split.levels(classes, values) == k).all()
        off = (values - factors.prototypes(classes)).abs()
        assert (off <= factors.spreads(classes) + 1e-6).all()
        assert {tuple(row) for row in classes.tolist()} == {
            tuple(row) for row in split.combinations_of(level).tolist()
        }
        again = config.build(factors).requests(level, 30)
        assert torch.equal(again.values, values) and torch.equal(again.classes, classes)
        if not any(split.cells.predicates):
            assert torch.equal(values, factors.prototypes(classes))
    with pytest.raises(UserError, match="no clip can be at 'level-9' of this split; legal: seen"):
        split.requests("level-9", 1)


def test_held_out_clips_are_refused(factors: Factors, config: SplitConfig) -> None:
    split = config.build(factors)
    classes, values = clips(factors)
    seen = split.seen(classes, values)
    split.refuse_held_out(classes[seen], values[seen])
    for row in (~seen).nonzero()[:20, 0].tolist():
        batch = torch.cat([seen.nonzero()[:3, 0], torch.tensor([row])])
        with pytest.raises(UserError, match="1 of 4 training clips show held-out") as error:
            split.refuse_held_out(classes[batch], values[batch])
        assert factors.describe(classes[row]) in str(error.value)


def test_every_level_that_clips_have_is_named(factors: Factors, config: SplitConfig) -> None:
    split = config.build(factors)
    found = {level_name(k) for k in split.levels(*clips(factors, 2000)).tolist()}
    assert found == set(split.level_names)
    assert split.level_names[0] == "seen"
    pairs = zip(split.occurrences.classes.tolist(), split.occurrences.levels.tolist(), strict=True)
    known = {(*c, k) for c, k in pairs}
    classes, values = clips(factors)
    levels = split.levels(classes, values)
    assert {(*c, k) for c, k in zip(classes.tolist(), levels.tolist(), strict=True)} <= known
    if not any(split.cells.predicates):
        assert torch.equal(split.occurrences.classes, factors.combinations())


def test_a_split_survives_its_yaml(factors: Factors, config: SplitConfig) -> None:
    stored = SplitConfig.model_validate(config.model_dump(mode="json"))
    assert stored == config and stored.build(factors).digest == config.build(factors).digest


def test_clips_of_other_factors_are_refused(factors: Factors, config: SplitConfig) -> None:
    """A class id of -1 would otherwise be the last class, and might be seen."""
    split = config.build(factors)
    classes, values = clips(factors, 4)
    wider = F.pad(classes, (0, 1)), F.pad(values, (0, 0, 0, 1))
    shifted = [(classes - 1, values), (classes + 20, values)] if len(factors) else []
    for c, v in (wider, *shifted):
        with pytest.raises(UserError, match="not of the split's factors"):
            split.refuse_held_out(c, v)


def test_the_papers_three_bits() -> None:
    split = SplitConfig(novel=NOVEL).build(choose(BITS))
    assert split.level_names == ("seen", "level-1", "level-2")
    assert bits(split, "seen") == {"000", "100", "010", "001"}
    assert bits(split, "level-1") == {"011", "101", "110"}
    assert bits(split, "level-2") == {"111"}


def test_the_papers_shapes3d() -> None:
    """Six of ten hues, two of three shapes and six of eight scales are base."""
    split = RULES["shapes3d"][1].build(SHAPES3D)
    counts = [len(split.combinations_of(level)) for level in split.level_names]
    assert counts == [180, 52, 8]


@pytest.mark.parametrize("seed", range(5))
def test_explicit_lists_by_brute_force(seed: int) -> None:
    factors = choose(
        {
            "shape": ("circle", "square", "star"),
            "colour": ("red", "blue"),
            "motion": ("up", "left", "still"),
        }
    )
    combinations = factors.combinations()
    order = Rng.make(seed, "draw", torch.arange(len(combinations))).keys.argsort()
    rows = order[:3].tolist()
    names = [
        {
            f.name: f.class_names[k]
            for f, k in zip(factors.items, combinations[i].tolist(), strict=True)
        }
        for i in rows
    ]
    split = SplitConfig(rule="explicit", train=tuple(names)).build(factors)
    levels = split.levels(combinations, factors.prototypes(combinations)).tolist()
    for i, level in enumerate(levels):
        assert level == min(int((combinations[i] != combinations[s]).sum()) for s in rows)


@pytest.mark.parametrize(
    "factors", [choose(BITS), SHAPES3D, COUNTS], ids=["bits", "shapes3d", "counts"]
)
@pytest.mark.parametrize("seed", range(8))
def test_a_fraction_leaves_every_class_seen_up_to_the_most_that_can_be(
    factors: Factors, seed: int
) -> None:
    total, most = factors.num_combinations, factors.num_combinations - max(factors.sizes)
    smaller: set[tuple[int, ...]] = set()
    for num in sorted({1, most // 2, most}):
        config = SplitConfig(rule="fraction", held_out=num / total, seed=seed)
        split = config.build(factors)
        assert total - len(split.combinations_of("seen")) == num
        for f, size in enumerate(factors.sizes):
            assert set(split.combinations_of("seen")[:, f].tolist()) == set(range(size))
        held_out = {
            tuple(row)
            for level in split.level_names[1:]
            for row in split.combinations_of(level).tolist()
        }
        assert smaller <= held_out
        smaller = held_out
    with pytest.raises(UserError, match=f"legal: 1 to {most} combinations"):
        SplitConfig(rule="fraction", held_out=(most + 1) / total, seed=seed).build(factors)


def test_fractions_of_other_seeds_hold_out_others() -> None:
    splits = [SplitConfig(rule="fraction", held_out=0.3, seed=s).build(SHAPES3D) for s in range(20)]
    assert len({split.digest for split in splits}) == 20
    share = torch.tensor([split.trained for split in splits]).float().mean(0)
    assert share.min() > 0.2  # nothing is always held out


def test_a_latin_square_has_each_symbol_once_in_each_row_and_column() -> None:
    names = ("red", "blue", "green", "yellow")
    shapes = ("circle", "square", "triangle", "star")
    factors = choose({"colour": names, "shape": shapes, "motion": ("up", "down")})
    seen_by = []
    for symbol in range(4):
        config = SplitConfig(rule="latin", over=("shape", "colour"), symbols=(symbol,))
        seen_by.append(set(map(tuple, config.build(factors).combinations_of("seen").tolist())))
    for i, motion in itertools.product(range(4), range(2)):
        for square in seen_by:
            assert sum(c == i and m == motion for c, _, m in square) == 1
            assert sum(s == i and m == motion for _, s, m in square) == 1
    assert set.union(*seen_by) == set(map(tuple, factors.combinations().tolist()))
    assert sum(map(len, seen_by)) == 32


def test_a_count_outside_the_range_is_level_1_whatever_its_colour() -> None:
    split = RULES["range"][1].build(COUNTS)
    assert split.level_names == ("seen", "level-1")
    assert set(split.combinations_of("seen")[:, 0].tolist()) == {1, 2, 3}
    assert set(split.combinations_of("level-1")[:, 0].tolist()) == {0, *range(4, 11)}


def test_counts_of_a_table_have_their_number_in_their_name() -> None:
    """A user's CSV says 3, in a column `count`, and has no other number."""
    named = Factors((Factor("count", tuple(FactorClass(n) for n in ("10", "2", "3"))),))
    split = SplitConfig(rule="range", seen={"count": (1, 3)}).build(named)
    assert split.combinations_of("level-1").tolist() == [[0]]
    assert split.requests("level-1", 2).values.shape == (2, 1, 0)


def test_one_combination_may_have_several_levels_and_its_clips_tell_them_apart() -> None:
    factors = choose({"size": ("large", "small")})
    split = SplitConfig(novel={"size": "x < 0.19"}, max_novel=0).build(factors)
    assert split.occurrences.classes.tolist() == [[0], [1], [1]]
    assert split.occurrences.levels.tolist() == [0, 0, 1]
    classes = torch.tensor([[1], [1]])
    values = torch.tensor([0.195, 0.18]).reshape(2, 1, 1)
    assert split.levels(classes, values).tolist() == [0, 1]
    with pytest.raises(UserError, match=r"'small, size x 0\.18' \(level-1 of split"):
        split.refuse_held_out(classes, values)
    asked = split.requests("level-1", 50).values
    assert asked.max() < 0.19 and len(asked.unique()) == 50


def test_the_level_is_that_of_the_numbers_not_of_the_class() -> None:
    """Which a mislabelled clip cannot hide."""
    factors = choose({"size": ("large", "small")})
    split = SplitConfig(novel={"size": "x < 0.2"}, max_novel=0).build(factors)
    called_large = torch.tensor([[0]])
    assert split.levels(called_large, torch.full((1, 1, 1), 0.15)).tolist() == [1]


def test_a_number_that_is_missing_is_not_taken_for_seen() -> None:
    split = SplitConfig(novel={"size": "x < 0.2"}, max_novel=0).build(SIZED)
    classes, values = clips(SIZED, 4)
    with pytest.raises(UserError, match="a clip's size is not a finite number"):
        split.refuse_held_out(classes, values * torch.nan)


def test_two_rules_can_say_the_same_and_then_have_the_same_hash() -> None:
    factors = choose(BITS)
    split = SplitConfig(novel=NOVEL).build(factors)
    train = [
        {f.name: f.class_names[int(k)] for f, k in zip(factors.items, row, strict=True)}
        for row in split.combinations_of("seen")
    ]
    for order in (train, train[::-1], [*train, *train]):
        assert SplitConfig(rule="explicit", train=tuple(order)).build(factors).digest == (
            split.digest
        )


def test_the_hash_forgets_the_order_and_the_spelling_of_a_config() -> None:
    counts = SplitConfig(novel={"count": ("4", "5"), "colour": ("red",)})
    turned = SplitConfig(novel={"colour": ("red",), "count": ("5", "4", "5")})
    assert counts.build(COUNTS).digest == turned.build(COUNTS).digest
    spelt = [SplitConfig(novel={"size": text}) for text in ("x<0.2", "  ( x < .20 ) ")]
    assert spelt[0].build(SIZED).digest == spelt[1].build(SIZED).digest


def test_the_hash_changes_with_the_split_and_with_the_factors() -> None:
    swapped = {"colour": BITS["colour"], "shape": BITS["shape"], "motion": BITS["motion"]}
    digests = [
        SplitConfig(novel=NOVEL).build(choose(BITS)).digest,
        SplitConfig(novel=NOVEL).build(choose(swapped)).digest,
        SplitConfig(novel=NOVEL).build(choose({**BITS, "colour": ("red", "blue", "green")})).digest,
        SplitConfig(novel={"shape": ("circle",)}, max_novel=0).build(choose(BITS)).digest,
        SplitConfig(novel={"size": "x < 0.2"}).build(SIZED).digest,
        SplitConfig(novel={"size": "x < 0.21"}).build(SIZED).digest,
        SplitConfig(novel={"size": "x < 0.2"}, max_novel=0).build(SIZED).digest,
        *(config.build(factors).digest for factors, config in RULES.values()),
    ]
    digests.remove(SplitConfig(novel=NOVEL).build(choose(BITS)).digest)  # is in RULES, too
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"novel": {"colr": ("red",)}},
            r"split.novel names no factor 'colr'; did you mean 'colour",
        ),
        ({"novel": {"colour": ("green",)}}, "no class 'green'"),
        ({"novel": {"colour": ("red", "blue")}, "max_novel": 0}, "leaves no combination to train"),
        ({"novel": {"size": "x > 0"}, "max_novel": 0}, "leaves no combination to train on"),
        ({"novel": {"shape": "x > 0"}}, "factor 'shape' has no numbers .*: circle, ring"),
        ({"novel": {"size": "r > 0"}}, "predicate of 'size': there is no number 'r'; legal: x"),
        ({"novel": {"colour": "x > 0"}}, "there is no number 'x'; legal: b, g, r"),
        ({"novel": {"size": "1 / (x - x) > 1"}}, "divides by zero"),
        ({"rule": "range", "seen": {"siz": (0, 1)}}, "split.seen names no factor 'siz'"),
        ({"rule": "range", "seen": {"colour": (0, 1)}}, "a range is of one number, not of r, g, b"),
        ({"rule": "range", "seen": {"size": (5, 6)}}, "leaves no combination to train on"),
        ({"rule": "explicit", "train": ({"size": "small"},)}, "lacks colour, shape; legal: colour"),
        ({"rule": "fraction", "held_out": 0.01}, "of 8 combinations is 0"),
        ({"rule": "latin", "symbols": (2,)}, "some, but not all, of 0 to 1"),
        ({"rule": "latin", "symbols": (0, 1)}, "some, but not all, of 0 to 1"),
        ({"rule": "latin", "symbols": (0,), "over": ("size",)}, "two or more different factors"),
        ({"rule": "latin", "symbols": (0,), "over": ("size", "size")}, "two or more different"),
        ({"rule": "latin", "symbols": (0,), "over": ("size", "hue")}, "names no factor 'hue'"),
    ],
)
def test_mistakes_are_named_in_one_line(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        SplitConfig(**given).build(SIZED).level_names  # noqa: B018
    assert "\n" not in str(error.value)


def test_a_latin_square_that_would_hide_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="no seen combination has hue '1'; name more symbols"):
        SplitConfig(rule="latin", over=("hue", "shape"), symbols=(0,)).build(SHAPES3D)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": ({"shape": "circle"},)}, "belongs to rule=explicit"),
        ({"rule": "explicit"}, "non-empty 'train'"),
        ({"rule": "range"}, "non-empty 'seen'"),
        ({"rule": "fraction"}, "non-empty 'held_out'"),
        ({"rule": "latin"}, "non-empty 'symbols'"),
        ({"rule": "fraction", "held_out": 1.0}, "less than 1"),
        ({"rule": "fraction", "held_out": 0.5, "novel": NOVEL}, "belongs to rule=base_novel"),
        ({"rule": "range", "seen": {"count": (3, 1)}}, "is empty"),
        ({"rule": "range", "seen": {"count": (1, float("inf"))}}, "finite"),
        ({"max_novel": -1}, "greater than or equal to 0"),
        ({"novel": {"size": "x <"}}, "'x <' is no predicate"),
        ({"novel": {"size": ""}}, "is no predicate"),
    ],
)
def test_mistakes_of_a_config_are_found_before_there_are_clips(given: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitConfig(**given)


def test_too_many_combinations_are_an_error_and_not_a_hang() -> None:
    bits = Factors(
        tuple(Factor(f"bit {k}", (FactorClass("no"), FactorClass("yes"))) for k in range(40))
    )
    with pytest.raises(UserError, match="more than a split can list"):
        SplitConfig().build(bits)


def test_ids_and_names_of_combinations_are_inverses() -> None:
    factors = choose(BITS)
    combinations = factors.combinations()
    assert torch.equal(factors.combination_ids(combinations), torch.arange(8))
    named = [
        dict(zip(factors.names, factors.describe(row).split(), strict=True)) for row in combinations
    ]
    assert torch.equal(factors.parse(named), combinations)
    assert Factors.from_json(factors.to_json()) == factors
