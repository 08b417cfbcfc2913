"""Cells: which values of the axes go together, and the config of a run that follows from them.

A mistake in any cell is found before anything runs, and is told with the axis and the key.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from vidcomp.config import UserError, explain, read_yaml
from vidcomp.runs import GeneratorRun
from vidcomp.study.config import Cell, Overrides, StudyConfig, require_name
from vidcomp.study.tuning import Tuned

BASE_AXIS = "base"


def axes_of(config: StudyConfig) -> dict[str, list[str]]:
    """The names of the axes' values; several bases are the first axis."""
    axes = {axis: list(values) for axis, values in config.axes.items()}
    if empty := [axis for axis, values in axes.items() if not values]:
        raise UserError(f"axis {empty[0]} has no values; drop it, or name one")
    return axes if isinstance(config.base, str) else {BASE_AXIS: list(config.bases), **axes}


def cells_of(config: StudyConfig) -> list[Cell]:
    """Every cell of a study, those left out at this size among them."""
    axes = axes_of(config)
    for values in (*config.cells.values(), *config.exclude):
        for axis, wanted in values.items():
            require_name(axis, axes, "axis")
            for value in [wanted] if isinstance(wanted, str) else wanted:
                require_name(value, dict.fromkeys(axes[axis]), f"axis {axis}: value")
    if config.cells:
        first = {axis: values[0] for axis, values in axes.items()}
        return [Cell(name, {**first, **values}) for name, values in config.cells.items()]
    cells: list[Cell] = []
    for values in itertools.product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        if not any(_matches(cell, pattern) for pattern in config.exclude):
            cells.append(Cell("-".join(values) or BASE_AXIS, cell))
    if not cells:
        raise UserError(f"study {config.name}: 'exclude' leaves no cell")
    return cells


def resolve(
    config: StudyConfig, cell: Cell, world: str, data: Mapping[str, Any], tuned: Tuned | None
) -> GeneratorRun:
    """The run of a cell, with its tokenizer still by name. Raises UserError that names what is
    wrong and where it was said."""
    path = config.bases[cell.values.get(BASE_AXIS, BASE_AXIS)]
    base = read_yaml(path)
    if base.get("data", data) != data:
        raise UserError(f"{path} has other 'data' than world {world} ({config.worlds[world].data})")
    base |= {"data": data, "name": cell.name}
    layers: list[tuple[str, Overrides]] = [
        (f"base {path}", {}),
        (f"world {world}", config.worlds[world].set),
        (f"size {config.size}", config.at_size.set),
        ("set", config.set),
    ]
    for axis, value in cell.values.items():
        layers.append((f"axis {axis}={value}", config.axes.get(axis, {}).get(value, {})))
        if tuned is not None and axis == tuned.by:
            layers.append((f"tuned {config.tuned}", tuned.of(world, value)))
    return _validated(f"study {config.name}, cell {cell.name}", base, layers)


def merged(raw: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `raw` with `overrides` on top; their keys may be dotted."""
    result = copy.deepcopy(raw)
    for key, value in overrides.items():
        *way, last = key.split(".")
        inner = result
        for step in way:
            if not isinstance(inner.get(step), dict):
                inner[step] = {}
            inner = inner[step]
        if isinstance(value, Mapping) and "name" not in value:
            below = inner.get(last)
            inner[last] = merged(below if isinstance(below, dict) else {}, dict(value))
        else:
            inner[last] = copy.deepcopy(value)
    return result


def _validated(
    where: str, base: dict[str, Any], layers: Sequence[tuple[str, Overrides]]
) -> GeneratorRun:
    """The run that `layers` on `base` give. If that is none, the layer after which it is none is
    named."""
    raw = base
    for _, overrides in layers:
        raw = merged(raw, overrides)
    try:
        return GeneratorRun.model_validate(_judged(raw))
    except ValidationError as error:
        place, reason = layers[-1][0], explain(error)
    raw = base
    for label, overrides in layers:
        raw = merged(raw, overrides)
        try:
            GeneratorRun.model_validate(_judged(raw))
        except ValidationError as error:
            place, reason = label, explain(error)
            break
    raise UserError(f"{where}, {place}: {reason}")


def _judged(raw: dict[str, Any]) -> dict[str, Any]:
    """With a judge's place for curves, which only the plan knows."""
    return merged({"evaluate": {"probe": ""}}, raw) if raw.get("evaluate") else raw


def _matches(cell: Mapping[str, str], pattern: Mapping[str, str | tuple[str, ...]]) -> bool:
    return all(
        cell[axis] in ([values] if isinstance(values, str) else values)
        for axis, values in pattern.items()
    )
