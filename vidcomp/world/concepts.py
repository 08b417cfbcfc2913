"""The concepts that this world knows: every class of every factor, with its numbers.

A config chooses and orders them: ``factors: {shape: [circle, triangle], colour: [red, blue]}``.
What a config does not control is drawn at random over its natural range (`vidcomp.world.scenes`).

Red and blue are those of the first paper's Shapes2D (arXiv:2510.03075): a prototype RGB, and a box
of half-width 0.1 around it. Lengths are fractions of the frame's shorter side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vidcomp.config import UserError, nearest
from vidcomp.world.factors import Factor, FactorClass, Factors

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
"""Shape ids of the renderer, in this order."""

_COLOUR_SPREAD = (0.1, 0.1, 0.1)

_LIBRARY = (
    Factor("shape", tuple(FactorClass(name) for name in SHAPES)),
    Factor(
        "colour",
        (
            FactorClass("red", (0.9, 0.1, 0.1), _COLOUR_SPREAD),
            FactorClass("blue", (0.1, 0.1, 0.9), _COLOUR_SPREAD),
            FactorClass("green", (0.1, 0.9, 0.1), _COLOUR_SPREAD),
            FactorClass("yellow", (0.9, 0.9, 0.1), _COLOUR_SPREAD),
            FactorClass("magenta", (0.9, 0.1, 0.9), _COLOUR_SPREAD),
            FactorClass("cyan", (0.1, 0.9, 0.9), _COLOUR_SPREAD),
        ),
        unit="rgb in [0, 1]",
    ),
    Factor(
        "size",
        (FactorClass("large", (0.28,), (0.02,)), FactorClass("small", (0.19,), (0.02,))),
        unit="radius as a fraction of the frame's shorter side",
        kind="ordinal",
    ),
    Factor(
        "motion",
        (
            FactorClass("right", (1.0, 0.0), (0.0, 0.0)),
            FactorClass("left", (-1.0, 0.0), (0.0, 0.0)),
            FactorClass("up", (0.0, -1.0), (0.0, 0.0)),
            FactorClass("down", (0.0, 1.0), (0.0, 0.0)),
            FactorClass("still", (0.0, 0.0), (0.0, 0.0)),
        ),
        unit="direction (dx, dy), y down",
        temporal=True,
    ),
)


def choose(chosen: Mapping[str, Sequence[str]]) -> Factors:
    """The factors that a config names, with their classes, in its order."""
    known = {factor.name: factor for factor in _LIBRARY}
    factors: list[Factor] = []
    for name, class_names in chosen.items():
        if name not in known:
            raise UserError(f"factors: no factor {name!r}; {nearest(name, known)}")
        if not class_names or len(set(class_names)) != len(class_names):
            raise UserError(
                f"factors.{name}: name one or more different classes, got {list(class_names)}; "
                f"legal: {', '.join(known[name].class_names)}"
            )
        factor = known[name]
        classes = tuple(factor.classes[factor.index(c)] for c in class_names)
        factors.append(replace(factor, classes=classes))
    if not factors:
        raise UserError(f"factors is empty; choose among {', '.join(known)}")
    return Factors(tuple(factors))
