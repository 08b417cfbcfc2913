"""Two looks of one renderer, in numbers: CLEVR's grey studio, and the coloured room of 3D Shapes.

World units: CLEVR's, in which large solids have radius 0.7. The camera stands at negative y and
looks along y, so that x is to the right.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vidcomp.world.scene3d.concepts import StyleName


@dataclass(frozen=True)
class Lamp:
    """`power`: irradiance at the origin, when facing the lamp."""

    place: tuple[float, float, float]
    radius: float
    power: float


@dataclass(frozen=True)
class Style:
    """`colour` and `size` name the factors of the solids' colour and radius."""

    colour: str
    size: str
    largest: float  # radius
    arena: float  # centres start between -arena and arena
    edge: float  # an unseen wall around the moving solids
    eye: tuple[float, float, float]
    eye_jitter: float  # half-width, along each axis
    look_at_height: float
    orbit_rad: float  # the most that the camera goes round over a clip, either way
    focal: float  # over the frame's shorter side
    lamps: tuple[Lamp, ...]  # the first is the sun, the others fill
    lamp_turn_rad: float  # the lamps go round together by up to this, either way
    ambient: float
    floor: tuple[float, float, float]
    wall: tuple[float, float, float]
    room: float  # half the length of a wall
    haze: float
    sky: float


STYLES: Mapping[StyleName, Style] = {
    "clevr": Style(
        colour="colour",
        size="size",
        largest=0.7,
        arena=2.5,
        edge=3.4,
        eye=(0.0, -9.7, 5.7),
        eye_jitter=0.4,
        look_at_height=0.2,
        orbit_rad=0.15,
        focal=1.45,
        lamps=(
            Lamp((2.0, -9.3, 8.4), radius=1.8, power=0.25),
            Lamp((3.5, 5.5, 7.5), radius=1.6, power=0.16),
            Lamp((-9.3, -0.2, 5.1), radius=2.0, power=0.11),
        ),
        lamp_turn_rad=0.4,
        ambient=0.11,
        floor=(0.78, 0.78, 0.77),
        wall=(0.2, 0.2, 0.2),
        room=1000.0,
        haze=20.0,
        sky=0.175,
    ),
    "room": Style(
        colour="object_hue",
        size="scale",
        largest=1.25,
        arena=0.3,
        edge=3.0,
        eye=(0.0, -6.4, 2.9),
        eye_jitter=0.0,
        look_at_height=1.0,
        orbit_rad=0.15,
        focal=1.05,
        lamps=(Lamp((3.0, -5.0, 8.0), radius=1.2, power=0.6),),
        lamp_turn_rad=0.7,
        ambient=0.55,
        floor=(0.5, 0.5, 0.5),
        wall=(0.5, 0.5, 0.5),
        room=6.5,
        haze=1000.0,
        sky=0.5,
    ),
}
