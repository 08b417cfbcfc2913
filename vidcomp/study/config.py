"""What a study is told: worlds, a base, axes, seeds, and what is asked of the results.

Every run is the base with settings on top, in this order: the world's, the size's, the study's
(`set`), and those of one value of each axis. Mappings merge; one that has a ``name`` is another
variant and replaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveFloat, PositiveInt

from vidcomp.config import RootSettings, Settings, UserError, nearest
from vidcomp.report.claims import Claim

Overrides = dict[str, Any]
"""Dotted keys of a generator's config, and their values."""


class World(Settings):
    """Clips, the tokenizers that generators name, and the judge that knows the look of them all: a
    YAML, or the name of one that needs no fitting. Two studies share runs if they share this.

    `expected_s`: seconds when last measured, for the ETA alone: of ``render``, ``probe``, ``score``
    and ``step`` (of training), of tokenizers and of cells.
    """

    data: str
    probe: str
    tokenizers: dict[str, str]
    set: Overrides = {}
    expected_s: dict[str, float] = {}


class Size(Settings):
    """What ``size=NAME`` chooses. `leave_out`: cells and worlds that are too much for it."""

    set: Overrides = {}
    seeds: tuple[int, ...] | None = None
    leave_out: tuple[str, ...] = ()


class Trial(Settings):
    """Samples that are only scored, beside the run's own: `set` are keys of ``sampling``;
    `checkpoint` is the step of an older one; no `levels` are all, and no `cells` too."""

    set: Overrides = {}
    weights: Literal["averaged", "raw"] = "averaged"
    checkpoint: PositiveInt | None = None
    levels: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()


class Also(Settings):
    """A probe that is asked by name only: of which `cells` (none are all), with `set` for its
    settings, such as ``checkpoints: all``. A list alone is the cells."""

    cells: tuple[str, ...] = ()
    set: Overrides = {}


def _cells_alone(raw: Any) -> Any:
    return {"cells": raw} if isinstance(raw, (list, tuple)) else raw


class Tune(Settings):
    """Fair tuning: for each value of the axis `by`, the best of all its cells and `trials`, chosen
    on seen combinations alone. Every value has the same number of trials."""

    by: str
    trials: dict[str, Overrides]


class StudyConfig(RootSettings):
    """The root of a study's YAML. A run is a cell (a value of each axis), a world and a seed.

    `base`: the YAML of a generator, or several by name, which are then the first axis. Its
    ``tokenizer`` is one of the world's by name or YAML; ``data`` may be left to the world.
    `cells`: by name, each the axes' values that are not their first; none are the full cross.
    `exclude`: axes' values that do not go together.
    `also`: probes that are asked by name only, such as heads.
    `tuned`: what a study with `tune` wrote, applied after the axis that it was tuned by.
    `time_limit_s`: a slice; what runs at its end goes on in the next.
    """

    name: str
    worlds: dict[str, World]
    base: str | dict[str, str]
    set: Overrides = {}
    axes: dict[str, dict[str, Overrides]] = {}
    cells: dict[str, dict[str, str]] = {}
    exclude: tuple[dict[str, str | tuple[str, ...]], ...] = ()
    leave_out: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    size: str | None = None
    sizes: dict[str, Size] = {}
    trials: dict[str, Trial] = {}
    also: dict[str, Annotated[Also, BeforeValidator(_cells_alone)]] = {}
    tune: Tune | None = None
    tuned: str | None = None
    claims: dict[str, Claim] = {}
    store: str = "runs/store"
    executor: Literal["processes", "here", "cluster"] = "processes"
    workers: PositiveInt = 2
    cluster: dict[str, Any] = {}
    time_limit_s: PositiveFloat | None = None

    @property
    def at_size(self) -> Size:
        """The chosen size; raises UserError if there is none of that name."""
        if self.size is None and not self.sizes:
            return Size()
        if self.size not in self.sizes:
            sizes = nearest(self.size or "", self.sizes)
            raise UserError(f"study {self.name} has no size {self.size!r}; {sizes}")
        return self.sizes[self.size]

    @property
    def run_seeds(self) -> tuple[int, ...]:
        of_size = self.at_size.seeds
        return self.seeds if of_size is None else of_size

    @property
    def omitted(self) -> tuple[str, ...]:
        """Names of worlds and cells that this size, or the command line, leaves out."""
        return (*self.at_size.leave_out, *self.leave_out)

    @property
    def bases(self) -> dict[str, str]:
        """YAMLs by name; one that has none is called ``base``."""
        return {"base": self.base} if isinstance(self.base, str) else self.base


@dataclass(frozen=True)
class Cell:
    """A configuration: a value of each axis."""

    name: str
    values: Mapping[str, str]


def require_name(name: str, known: Mapping[str, Any], what: str) -> None:
    """Raise UserError unless `name` is one of `known`."""
    if name not in known:
        raise UserError(f"{what} {name!r} does not exist; {nearest(name, known)}")
