"""What clips are asked to show: balanced, inside the boxes of their classes, pure in (seed, i)."""

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.world.concepts import PAIR, SINGLE, choose
from vidcomp.world.scenes import ask, check_frames, combinations_of, draw_values

EVERYTHING = {
    "motion": ("right", "left", "up", "down", "still"),
    "size": ("large", "small"),
    "colour": ("red", "blue", "green", "yellow", "magenta", "cyan"),
    "shape": ("star", "circle"),
}
CHOICES = [
    {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")},
    {"shape": ("circle",)},
    {"motion": ("still", "left")},
    {"turn": ("counter", "straight"), "presence": ("vanish", "stay", "appear")},
    EVERYTHING,
]


@pytest.mark.parametrize("chosen", CHOICES)
def test_combinations_are_balanced_in_every_run_and_shuffled(
    chosen: dict[str, tuple[str, ...]],
) -> None:
    factors = choose(chosen)
    classes = combinations_of(factors, torch.arange(factors.num_combinations * 5), seed=0)
    ids = factors.combination_ids(classes).reshape(5, -1)
    assert torch.equal(ids.sort(1).values, torch.arange(ids.shape[1]).expand(5, -1))
    assert factors.num_combinations < 4 or len(ids.unique(dim=0)) > 1


def test_values_are_in_the_box_of_their_class_and_fill_it() -> None:
    chosen = {factor.name: factor.class_names for factor in SINGLE}
    factors = choose(chosen)
    indices = torch.arange(3000)
    g = torch.Generator().manual_seed(0)
    classes = torch.stack([torch.randint(k, (3000,), generator=g) for k in factors.sizes], dim=1)
    spreads = factors.spreads(classes)
    off = (draw_values(factors, classes, indices, seed=0) - factors.prototypes(classes)).abs()
    assert (off <= spreads + 1e-6).all()
    assert (off.amax(0) > 0.9 * spreads.amax(0) - 1e-6).all()


def test_values_do_not_depend_on_the_batch() -> None:
    factors = choose(EVERYTHING)
    indices = torch.arange(600)
    classes = combinations_of(factors, indices, seed=0)
    rows = torch.tensor([500, 3, 77])
    assert torch.equal(combinations_of(factors, rows, seed=0), classes[rows])
    values = draw_values(factors, classes, indices, seed=0)
    assert torch.equal(draw_values(factors, classes[rows], rows, seed=0), values[rows])


def test_what_varies_takes_every_class_and_its_numbers() -> None:
    factors = choose({"shape": ("circle",)})
    indices = torch.arange(900)
    classes = torch.zeros(900, 1, dtype=torch.int64)
    values = factors.prototypes(classes)
    asked = ask(SINGLE, factors, classes, values, indices, seed=0, varying=("rotation", "texture"))
    assert set(asked.settled) == {"shape", "rotation", "texture"}
    counts = asked.settled["rotation"].kind.bincount(minlength=3)
    assert counts.amin() > 240
    rotation = next(factor for factor in SINGLE if factor.name == "rotation")
    for k, of_class in enumerate(rotation.classes):
        values = asked.settled["rotation"].value[asked.settled["rotation"].kind == k, 0]
        assert (values - of_class.prototype[0]).abs().amax() <= of_class.spread[0] + 1e-6


def test_controlled_classes_are_places_in_the_library() -> None:
    factors = choose({"shape": ("star", "circle"), "motion": ("left",)})
    classes = torch.tensor([[0, 0], [1, 0]])
    values = factors.prototypes(classes)
    asked = ask(SINGLE, factors, classes, values, torch.arange(2), seed=0, varying=())
    assert asked.settled["shape"].kind.tolist() == [3, 0]
    assert asked.settled["motion"].kind.tolist() == [1, 1]
    assert asked.settled["motion"].value.tolist() == [[-1, 0], [-1, 0]]


@pytest.mark.parametrize("library", [SINGLE, PAIR])
def test_no_two_classes_have_one_name(library: tuple) -> None:
    """So that a combination can be described by the names of its classes alone."""
    names = [name for factor in library for name in factor.class_names]
    assert len(set(names)) == len(names)


def test_wrong_choices_name_the_legal_ones() -> None:
    with pytest.raises(UserError, match="no factor 'color'; did you mean 'colour'"):
        choose({"color": ("red",)})
    with pytest.raises(UserError, match="no class 'rde'; did you mean 'red'"):
        choose({"colour": ("rde",)})
    with pytest.raises(UserError, match="different classes"):
        choose({"colour": ("red", "red")})
    with pytest.raises(UserError, match="choose among shape, colour, size, motion"):
        choose({})
    with pytest.raises(UserError, match="no factor 'turn'"):
        choose({"turn": ("straight",)}, PAIR)
    with pytest.raises(UserError, match="num_frames >= 2"):
        check_frames(choose({"motion": ("up",)}), 1)
