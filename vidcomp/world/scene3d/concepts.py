"""The concepts of the 3-D world: every class of every factor of its two styles, with its numbers.

``clevr``: the sizes, materials and colours of CLEVR (arXiv:1612.06890). ``room``: the hues, scales
and angles of 3D Shapes (https://github.com/google-deepmind/3d-shapes) under the names that the
reader `vidcomp.datasets.shapes3d` gives them, without the capsule.

Both have `motion`, the direction in which a solid sets out, as the camera of the middle frame sees
it; a collision changes it.
"""

import colorsys
from collections.abc import Mapping
from typing import Literal

from vidcomp.world.factors import Factor, FactorClass
from vidcomp.world.scene3d.solids import SHAPES

StyleName = Literal["clevr", "room"]

_RGB = "linear rgb in [0, 1]"


def _rgb_of_hue(hue: float) -> tuple[float, ...]:
    """Saturated, between 0.03 and 0.85: nothing reflects all light. Squared, since a picture shows
    the square root: it is there that the hue is seen."""
    return tuple((0.17 + 0.75 * c) ** 2 for c in colorsys.hsv_to_rgb(hue, 1, 1))


def _numbered(numbers: Mapping[str, tuple[float, ...]]) -> tuple[FactorClass, ...]:
    """Classes that are one point each, as those of both originals are."""
    return tuple(FactorClass(name, x, (0.0,) * len(x)) for name, x in numbers.items())


_HUE_NAMES = ["red", "orange", "lime", "green", "mint", "cyan", "azure", "blue", "purple", "rose"]
_HUES = _numbered({name: _rgb_of_hue(k / 10) for k, name in enumerate(_HUE_NAMES)})

_COLOURS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}

_SHAPE = Factor("shape", tuple(FactorClass(name) for name in SHAPES))

_MOTION = Factor(
    "motion",
    (
        FactorClass("right", (1.0, 0.0), (0.1, 0.1)),
        FactorClass("left", (-1.0, 0.0), (0.1, 0.1)),
        FactorClass("away", (0.0, 1.0), (0.1, 0.1)),
        FactorClass("towards", (0.0, -1.0), (0.1, 0.1)),
        FactorClass("still", (0.0, 0.0), (0.0, 0.0)),
    ),
    unit="direction on the floor (to the right, away from the camera)",
    temporal=True,
)

LIBRARIES: Mapping[StyleName, tuple[Factor, ...]] = {
    "clevr": (
        _SHAPE,
        Factor(
            "colour",
            _numbered({k: tuple(c / 255 for c in rgb) for k, rgb in _COLOURS.items()}),
            unit=_RGB,
        ),
        Factor("material", (FactorClass("rubber"), FactorClass("metal"))),
        Factor(
            "size",
            _numbered({"large": (0.7,), "small": (0.35,)}),
            unit="radius in world units",
            kind="ordinal",
        ),
        _MOTION,
    ),
    "room": (
        _SHAPE,
        Factor("object_hue", _HUES, unit=_RGB),
        Factor("floor_hue", _HUES, unit=_RGB),
        Factor("wall_hue", _HUES, unit=_RGB),
        Factor(
            "scale",
            _numbered({f"{0.75 + k / 14:.2f}": (0.75 + k / 14,) for k in range(8)}),
            unit="radius in world units",
            kind="ordinal",
        ),
        Factor(
            "orientation",
            _numbered({f"{30 * k / 7:.0f}": (30 * k / 7,) for k in range(-7, 8)}),
            unit="degrees by which the camera goes round to the right",
            kind="ordinal",
        ),
        _MOTION,
    ),
}
