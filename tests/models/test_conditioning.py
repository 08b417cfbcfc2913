"""Conditions: rates of dropping are those of the config, and what is dropped does not matter."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition, ConditionEmbedding, ConditioningConfig
from vidcomp.models.factor_embedding import BinnedEmbedding
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors

FACTORS = choose(
    {"shape": ["circle", "square"], "colour": ["red", "blue", "green"], "size": ["small", "large"]}
)
MANY = 4000
GRID = Grid(1, 2, 2)


def condition(batch: int) -> Condition:
    ids = torch.arange(batch) % FACTORS.num_combinations
    classes = FACTORS.combinations()[ids]
    return Condition.of(classes, FACTORS.prototypes(classes))


def rng(batch: int) -> Rng:
    return Rng.make(0, "conditions", torch.arange(batch))


def within(count: float, p: float, n: int) -> bool:
    """Within 4.5 standard deviations of the binomial."""
    return abs(count - n * p) <= 4.5 * (n * p * (1 - p)) ** 0.5


def test_nothing_is_dropped_at_rate_zero_and_everything_at_one() -> None:
    asked = condition(50)
    never = ConditioningConfig(drop_joint=0.0, drop_factor=0.0)
    assert asked.dropped(never, rng(50)).given.all()
    for always in (ConditioningConfig(drop_joint=1.0), ConditioningConfig(drop_factor=1.0)):
        assert not asked.dropped(always, rng(50)).given.any()


def test_drop_joint_drops_all_factors_of_a_clip_at_once() -> None:
    config = ConditioningConfig(drop_joint=0.2, drop_factor=0.0)
    given = condition(MANY).dropped(config, rng(MANY)).given
    assert torch.equal(given.any(1), given.all(1))
    assert within(float((~given[:, 0]).sum()), 0.2, MANY)


def test_drop_factor_drops_each_alone() -> None:
    config = ConditioningConfig(drop_joint=0.0, drop_factor=0.3)
    dropped = ~condition(MANY).dropped(config, rng(MANY)).given
    patterns = (dropped * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8)
    for pattern, count in enumerate(patterns.tolist()):
        num_dropped = pattern.bit_count()
        assert within(count, 0.3**num_dropped * 0.7 ** (3 - num_dropped), MANY)


def in_batches(batch: int, size: int) -> Rng:
    """As in training: batches of `size` share a stream."""
    return rng(batch).sharing(Rng.make(0, "batch", torch.arange(batch) // size))


def test_drop_per_batch_drops_a_factor_for_all_clips_of_a_batch() -> None:
    config = ConditioningConfig(drop_joint=0.0, drop_factor=0.3, drop_per="batch")
    size = 4
    dropped = ~condition(MANY).dropped(config, in_batches(MANY, size)).given
    batches = dropped.reshape(-1, size, 3)
    assert torch.equal(batches.all(1), batches.any(1)), "one mask for each batch"
    patterns = (batches[:, 0] * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8)
    for pattern, count in enumerate(patterns.tolist()):
        num_dropped = pattern.bit_count()
        p = 0.3**num_dropped * 0.7 ** (3 - num_dropped)
        assert within(count, p, MANY // size), "and batches are independent"


def test_drop_joint_stays_with_the_sample() -> None:
    config = ConditioningConfig(drop_joint=0.5, drop_factor=0.3, drop_per="batch")
    per_sample = config.model_copy(update={"drop_per": "sample", "drop_factor": 0.0})
    shared = condition(100).dropped(config, in_batches(100, 100)).given.any(1)
    alone = condition(100).dropped(per_sample, rng(100)).given.any(1)
    assert torch.equal(shared, alone) and shared.any() and not shared.all()


def test_the_mask_of_a_batch_does_not_depend_on_how_it_is_shared_out() -> None:
    config = ConditioningConfig(drop_factor=0.5, drop_per="batch")
    whole = condition(64).dropped(config, in_batches(64, 16)).given
    parts = [
        condition(64)[rows].dropped(config, in_batches(64, 16)[rows]).given
        for rows in torch.arange(64).split(8)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_both_rates_are_independent() -> None:
    config = ConditioningConfig(drop_joint=0.25, drop_factor=0.4)
    given = condition(MANY).dropped(config, rng(MANY)).given
    for factor in range(3):
        assert within(float(given[:, factor].sum()), 0.75 * 0.6, MANY)
    assert within(float(given.all(1).sum()), 0.75 * 0.6**3, MANY)


def test_dropping_never_gives_what_was_not_given() -> None:
    asked = condition(100).keep([1])
    given = asked.dropped(ConditioningConfig(drop_factor=0.5), rng(100)).given
    assert not given[:, [0, 2]].any() and given[:, 1].any()


@pytest.mark.parametrize("drop", [{"drop_joint": -0.1}, {"drop_factor": 1.5}, {"prefix": 2}])
def test_rates_are_shares(drop: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(drop))):
        ConditioningConfig.model_validate(drop)


def test_keep_null_and_prefix_are_told_apart() -> None:
    asked = condition(6).given_frames(2)
    kept = asked.keep([0, 2])
    assert kept.given.tolist() == [[True, False, True]] * 6
    assert kept.keep([1]).given.any().item() is False, "keep never adds"
    assert not asked.null().given.any()
    for changed in (kept, asked.null()):
        assert torch.equal(changed.classes, asked.classes)
        assert torch.equal(changed.values, asked.values)
        assert (changed.prefix_frames == 2).all()


def test_a_prefix_has_between_one_and_all_but_one_frames() -> None:
    config = ConditioningConfig(prefix=0.5)
    grid = Grid(4, 2, 2)
    frames = condition(MANY).with_prefix(config, grid, rng(MANY)).prefix_frames
    counts = frames.bincount(minlength=5)
    assert within(float(counts[0]), 0.5, MANY) and counts[4] == 0
    for length in (1, 2, 3):
        assert within(float(counts[length]), 0.5 / 3, MANY)


def test_an_image_has_no_prefix_and_rate_zero_gives_none() -> None:
    everywhere, nowhere = ConditioningConfig(prefix=1.0), ConditioningConfig(prefix=0.0)
    assert not condition(50).with_prefix(everywhere, Grid(1, 2, 2), rng(50)).prefix_frames.any()
    assert not condition(50).with_prefix(nowhere, Grid(3, 2, 2), rng(50)).prefix_frames.any()
    assert condition(50).with_prefix(everywhere, Grid(2, 1, 1), rng(50)).prefix_frames.all()


def test_given_positions_are_the_first_frames() -> None:
    asked = condition(4)
    frames = torch.tensor([0, 1, 2, 3])
    asked = Condition(asked.classes, asked.values, asked.given, frames)
    given = asked.given_positions(Grid(3, 2, 4))
    for clip, count in enumerate(frames.tolist()):
        assert given[clip, :count].all() and not given[clip, count:].any()


def test_draws_do_not_depend_on_the_batch() -> None:
    config = ConditioningConfig(drop_joint=0.3, drop_factor=0.3, prefix=0.5)
    rows = torch.tensor([7, 3, 40])
    asked = condition(50)
    whole = asked.dropped(config, rng(50)).with_prefix(config, Grid(5, 1, 1), rng(50))[rows]
    part = asked[rows].dropped(config, rng(50)[rows])
    part = part.with_prefix(config, Grid(5, 1, 1), rng(50)[rows])
    assert torch.equal(whole.given, part.given)
    assert torch.equal(whole.prefix_frames, part.prefix_frames)


def test_cat_undoes_slicing() -> None:
    asked = condition(7).given_frames(1)
    joined = Condition.cat([asked[:3], asked[3:]])
    for name in ("classes", "values", "given", "prefix_frames"):
        assert torch.equal(getattr(joined, name), getattr(asked, name))


# The embedding.


def embedding_of(**settings: object) -> ConditionEmbedding:
    """Its null is not zero, as after training."""
    config = ConditioningConfig.model_validate(settings)
    with initial_weights(0):
        made = ConditionEmbedding(config, FACTORS, 16)
        if made.null is not None:
            torch.nn.init.normal_(made.null)
    return made


def embedding(**encode: str) -> ConditionEmbedding:
    return embedding_of(encode=encode)


def embedded(embed: ConditionEmbedding, asked: Condition) -> Tensor:
    with torch.no_grad():
        return embed(asked, torch.full((len(asked.classes),), 0.5), GRID).vector


@pytest.mark.parametrize("encode", [{}, {"colour": "exact", "size": "exact"}])
@pytest.mark.parametrize("factor", [0, 1, 2])
def test_a_dropped_factor_does_not_matter(encode: dict[str, str], factor: int) -> None:
    embed, asked = embedding(**encode), condition(12)
    classes, values = asked.classes.clone(), asked.values.clone()
    classes[:, factor] = (classes[:, factor] + 1) % FACTORS.sizes[factor]
    values[:, factor] += 0.3
    other = Condition(classes, values, asked.given, asked.prefix_frames)
    kept = [column for column in range(3) if column != factor]
    assert torch.equal(embedded(embed, asked.keep(kept)), embedded(embed, other.keep(kept)))
    distance = (embedded(embed, asked) - embedded(embed, other)).abs().amax(-1)
    assert (distance > 1e-3).all()
    dropped = (embedded(embed, asked) - embedded(embed, asked.keep(kept))).abs().amax(-1)
    assert (dropped > 1e-3).all()


def test_exact_sees_the_value_and_class_only_the_id() -> None:
    asked = condition(12)
    moved = Condition(asked.classes, asked.values + 0.05, asked.given, asked.prefix_frames)
    by_class, exact = embedding(), embedding(colour="exact")
    assert torch.equal(embedded(by_class, asked), embedded(by_class, moved))
    assert ((embedded(exact, asked) - embedded(exact, moved)).abs().amax(-1) > 1e-4).all()
    other = Condition(asked.classes.clone(), asked.values, asked.given, asked.prefix_frames)
    other.classes[:, 1] = 0
    assert torch.equal(embedded(exact, asked), embedded(exact, other))


def test_exact_reads_no_padding() -> None:
    asked, embed = condition(12), embedding(size="exact")
    padded = asked.values.clone()
    padded[:, 2, 1:] = 9.0  # a size is one number, a colour is three
    changed = Condition(asked.classes, padded, asked.given, asked.prefix_frames)
    assert torch.equal(embedded(embed, asked), embedded(embed, changed))


def test_the_level_is_seen_and_the_prefix_is_not() -> None:
    embed, asked = embedding(), condition(4)
    levels = torch.tensor([0.0, 0.3, 0.7, 1.0])
    with torch.no_grad():
        by_level = embed(Condition.cat([asked[:1]] * 4), levels, GRID).vector
    assert (torch.cdist(by_level, by_level) + torch.eye(4)).min() > 1e-3
    assert torch.equal(embedded(embed, asked), embedded(embed, asked.given_frames(2)))


def test_what_cannot_be_encoded_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"no factor 'color'; did you mean 'colour'\?") as error:
        embedding(color="class")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="'shape' has no continuous value; use 'class'"):
        embedding(shape="exact")
    with pytest.raises(UserError, match="'shape' has no continuous value; use 'class'"):
        embedding(shape="quantized")
    with pytest.raises(ValueError, match="encode"):
        ConditioningConfig.model_validate({"encode": {"shape": "rounded"}})
    with pytest.raises(ValueError, match="bins"):
        ConditioningConfig(bins=1)


def test_a_dataset_without_factors_has_an_unconditional_model() -> None:
    none = Factors(())
    embed = ConditionEmbedding(ConditioningConfig(), none, 16)
    classes = torch.zeros(3, 0, dtype=torch.int64)
    asked = Condition.of(classes, none.prototypes(classes))
    dropped = asked.dropped(ConditioningConfig(drop_factor=0.5), rng(3))
    assert embedded(embed, dropped.null()).shape == (3, 16)


def within_class(draws: int) -> Condition:
    """Many values of each combination, spread over the boxes of their classes."""
    classes = FACTORS.combinations().repeat_interleave(draws, 0)
    u = 2 * Rng.make(0, "values", torch.arange(len(classes))).uniform(3, FACTORS.value_size) - 1
    return Condition.of(classes, FACTORS.prototypes(classes) + 0.999 * u * FACTORS.spreads(classes))


@pytest.mark.parametrize("encode", ["class", "exact", "quantized"])
def test_one_encoding_for_all_leaves_factors_without_numbers_to_their_classes(encode: str) -> None:
    embed = embedding_of(encode=encode)
    kinds = [embed.config.encoding_of(factor) for factor in FACTORS.items]
    assert kinds == ["class", encode, encode]
    by_name = embedding_of(encode={"colour": encode, "size": encode})
    assert torch.equal(embedded(embed, condition(12)), embedded(by_name, condition(12)))


BINARY = choose(
    {"shape": ["circle", "square"], "colour": ["red", "blue"], "size": ["large", "small"]}
)


@pytest.mark.parametrize("factor", [1, 2])
def test_two_bins_are_the_papers_binary_labels(factor: int) -> None:
    """Whatever the values inside the two classes: those of the green in red and blue, too, whose
    prototype is the middle of its range."""
    item = BINARY.items[factor]
    embed = BinnedEmbedding(item, bins=2, width=16)
    classes = torch.arange(400) % 2
    prototypes = torch.tensor([c.prototype for c in item.classes])[classes]
    spreads = torch.tensor([c.spread for c in item.classes])[classes]
    u = 2 * Rng.make(0, "values", torch.arange(400)).uniform(item.value_size) - 1
    bins = embed.bins_of(prototypes + 0.999 * u * spreads)
    assert torch.equal(bins, embed.bins_of(prototypes))
    assert len(bins.unique(dim=0)) == 2
    told = embed(prototypes)
    assert len(told.unique(dim=0)) == 2 and torch.equal(told[0], told[2])


def test_more_bins_tell_more_apart_until_they_are_the_value() -> None:
    item = BINARY.items[1]
    red_and_blue = within_class(20)
    values = red_and_blue.values[:, 1][red_and_blue.classes[:, 1] < 2]
    told = [
        len(BinnedEmbedding(item, bins=bins, width=4).bins_of(values).unique(dim=0))
        for bins in (2, 10, 1000)
    ]
    assert 2 == told[0] < told[1] < told[2] == len(values)


def test_bins_are_equal_parts_of_the_range_and_its_ends_are_theirs() -> None:
    size = FACTORS.items[2]  # small 0.19, large 0.28, each +- 0.02
    embed = BinnedEmbedding(size, bins=4, width=4)
    edges = torch.linspace(0.17, 0.30, 5)
    inside = (edges[:-1] + edges[1:]) / 2
    assert embed.bins_of(inside[:, None]).flatten().tolist() == [0, 1, 2, 3]
    beyond = torch.tensor([[-5.0], [0.17], [0.30], [7.0]])
    assert embed.bins_of(beyond).flatten().tolist() == [0, 0, 3, 3]


def test_a_narrow_range_has_fewer_bins_of_the_same_width() -> None:
    embed = BinnedEmbedding(BINARY.items[1], bins=5, width=4)  # red and blue: 1, 0.2 and 1 wide
    assert embed.num_bins.tolist() == [5, 1, 5]
    assert BinnedEmbedding(BINARY.items[1], bins=10, width=4).num_bins.tolist() == [10, 2, 10]


def test_a_number_that_never_changes_has_one_bin() -> None:
    motion = choose({"motion": ["left", "right"]}).items[0]
    embed = BinnedEmbedding(motion, bins=2, width=4)
    assert embed.num_bins.tolist() == [2, 1]
    nearly = torch.tensor([[-1.0, 1e-7], [1.0, -1e-7]])
    assert embed.bins_of(nearly).tolist() == [[0, 0], [1, 0]]


def test_bins_that_merge_classes_are_refused() -> None:
    speed = choose({"speed": ["slow", "medium", "fast"]})
    config = ConditioningConfig(encode="quantized")
    with pytest.raises(UserError, match=r"bins=2 puts 'slow' and 'medium'.*more bins") as error:
        ConditionEmbedding(config, speed, 16)
    assert "\n" not in str(error.value)
    ConditionEmbedding(config.model_copy(update={"bins": 3}), speed, 16)


@pytest.mark.parametrize("path", ["adaln", "tokens", "both"])
def test_factors_are_told_on_the_paths_that_are_asked_for(path: str) -> None:
    embed, asked = embedding_of(path=path), condition(12)
    other = Condition.of(asked.classes.roll(1, 0), asked.values.roll(1, 0))
    level = torch.full((12,), 0.5)
    told, others = embed(asked, level, GRID), embed(other, level, GRID)
    assert torch.equal(told.vector, others.vector) == (path == "tokens")
    assert (told.tokens is None) == (path == "adaln")
    if told.tokens is not None and others.tokens is not None:
        assert told.tokens.shape == (12, 3, 16)
        changed = (told.tokens - others.tokens).abs().amax(-1) > 1e-4
        assert torch.equal(changed, asked.classes != other.classes), "one token for each factor"


def test_tokens_of_absent_factors_are_told_apart_by_their_slot() -> None:
    for null in ("learned", "zeros"):
        embed = embedding_of(path="tokens", drop_to=null)
        tokens = embed(condition(2).null(), torch.zeros(2), GRID).tokens
        assert tokens is not None and torch.equal(tokens[0], tokens[1])
        assert (torch.cdist(tokens[0], tokens[0]) + torch.eye(3)).min() > 1e-3


def test_zeros_for_what_is_absent_are_zeros_and_have_no_parameter() -> None:
    zeros, learned = embedding_of(drop_to="zeros"), embedding_of(drop_to="learned")
    assert zeros.null is None and learned.null is not None
    names = {name for name, _ in zeros.named_parameters()}
    assert names == {name for name, _ in learned.named_parameters()} - {"null"}
    level = torch.full((12,), 0.5)
    with torch.no_grad():
        of_level = zeros.of_level(level[:, None])
    assert torch.equal(embedded(zeros, condition(12).null()), of_level)
    assert not torch.allclose(embedded(learned, condition(12).null()), of_level)


@pytest.mark.parametrize("path", ["adaln", "tokens", "both"])
@pytest.mark.parametrize("null", ["learned", "zeros"])
def test_without_factors_only_the_level_is_told(path: str, null: str) -> None:
    none = Factors(())
    config = ConditioningConfig.model_validate({"path": path, "drop_to": null, "encode": "exact"})
    embed = ConditionEmbedding(config, none, 16)
    asked = Condition.of(torch.zeros(3, 0).long(), torch.zeros(3, 0, 0))
    told = embed(asked, torch.tensor([0.0, 0.5, 1.0]), GRID)
    assert told.tokens is None and len(told.vector.unique(dim=0)) == 3
    assert all(parameter.numel() for parameter in embed.parameters()), "nothing without a gradient"


# What is told at all.


@pytest.mark.parametrize("path", ["adaln", "tokens", "both"])
def test_only_the_factors_that_are_to_be_told_are(path: str) -> None:
    embed, asked, level = embedding_of(tell=["size"], path=path), condition(12), torch.zeros(12)
    told = embed(asked, level, GRID)
    assert told.tokens is None or told.tokens.shape == (12, 1, 16)
    for column, is_told in enumerate((False, False, True)):
        classes = asked.classes.clone()
        classes[:, column] = (classes[:, column] + 1) % FACTORS.sizes[column]
        other = embed(replace(asked, classes=classes), level, GRID)
        same = torch.equal(told.vector, other.vector)
        if told.tokens is not None and other.tokens is not None:
            same = same and torch.equal(told.tokens, other.tokens)
        assert same != is_told


@pytest.mark.parametrize("encode", ["class", "exact"])
@pytest.mark.parametrize("path", ["adaln", "both"])
def test_told_nothing_the_output_knows_neither_classes_nor_values(path: str, encode: str) -> None:
    embed, asked = embedding_of(tell=[], path=path, encode=encode), condition(12)
    told = embed(asked, torch.zeros(12), GRID)
    for other in (asked.null(), asked[torch.arange(11, -1, -1)]):
        assert torch.equal(told.vector, embed(other, torch.zeros(12), GRID).vector)
    assert told.tokens is None
    assert all(parameter.numel() for parameter in embed.parameters())


def test_a_factor_that_is_to_be_told_is_one_of_the_dataset() -> None:
    with pytest.raises(UserError, match=r"conditioning.tell: no factor 'sise'; .*'size'"):
        embedding_of(tell=["sise"])
