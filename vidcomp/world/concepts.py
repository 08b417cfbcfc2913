"""The concepts that this world knows: every class of every factor, with its numbers.

A config chooses and orders them: ``factors: {shape: [circle, triangle], colour: [red, blue]}``.
What a config does not control is drawn at random over its natural range or left plain
(`vidcomp.world.scenes`).

Red and blue are those of the first paper's Shapes2D (arXiv:2510.03075): a prototype RGB, and a box
of half-width 0.1 around it. Lengths are fractions of the frame's shorter side.

Unusual: no two factors share the name of a class, so that ``circle red right spin`` can be read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vidcomp.config import UserError, nearest
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.shapes import SHAPES
from vidcomp.world.textures import BACKGROUNDS, TEXTURES

_COLOUR_SPREAD = (0.1, 0.1, 0.1)
_TURN = (math.radians(150), math.radians(20))  # over the clip: prototype and spread
_SPIN = (math.radians(180), math.radians(20))


def _named(name: str, classes: Sequence[str], *, temporal: bool = False) -> Factor:
    """A factor without numbers."""
    return Factor(name, tuple(FactorClass(c) for c in classes), temporal=temporal)


def _angle(name: str, classes: Sequence[str], prototype: float, spread: float) -> Factor:
    """None, clockwise and counter-clockwise, over the clip."""
    none, clockwise, counter = classes
    return Factor(
        name,
        (
            FactorClass(none, (0.0,), (0.0,)),
            FactorClass(clockwise, (prototype,), (spread,)),
            FactorClass(counter, (-prototype,), (spread,)),
        ),
        unit="rad over the clip, clockwise",
        temporal=True,
        kind="continuous",
    )


_SHAPE = _named("shape", SHAPES)
_COLOUR = Factor(
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
)
_SIZE = Factor(
    "size",
    (FactorClass("large", (0.28,), (0.02,)), FactorClass("small", (0.19,), (0.02,))),
    unit="radius as a fraction of the frame's shorter side",
    kind="ordinal",
)
_MOTION = Factor(
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
)
_SPEED = Factor(
    "speed",
    (
        FactorClass("slow", (0.09,), (0.01,)),
        FactorClass("medium", (0.16,), (0.02,)),
        FactorClass("fast", (0.25,), (0.03,)),
    ),
    unit="way over the clip as a fraction of the frame's shorter side",
    temporal=True,
    kind="ordinal",
)
_TEXTURE = _named("texture", TEXTURES)
_BACKGROUND = _named("background", BACKGROUNDS)
_PRESENCE = _named("presence", ("stay", "appear", "vanish"), temporal=True)

SINGLE = (
    _SHAPE,
    _COLOUR,
    _SIZE,
    _MOTION,
    _SPEED,
    _angle("turn", ("straight", "clockwise", "counter"), *_TURN),
    _angle("rotation", ("upright", "spin", "spin_back"), *_SPIN),
    _TEXTURE,
    _BACKGROUND,
    _PRESENCE,
    _named("bounce", ("free", "bounce"), temporal=True),
)
"""Of the world of one sprite."""

PAIR = (
    _SHAPE,
    _COLOUR,
    replace(_MOTION, classes=_MOTION.classes[:-1]),  # a sprite that meets another moves
    _TEXTURE,
    _BACKGROUND,
    _PRESENCE,
    _named("event", ("pass", "collide"), temporal=True),
    _named("order", ("a_first", "b_first"), temporal=True),
    _named("occlusion", ("in_front", "behind"), temporal=True),
)
"""Of the world of two sprites that meet: all but the last three are of the first one."""


def choose(chosen: Mapping[str, Sequence[str]], library: tuple[Factor, ...] = SINGLE) -> Factors:
    """The factors that a config names, with their classes, in its order."""
    known = {factor.name: factor for factor in library}
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
