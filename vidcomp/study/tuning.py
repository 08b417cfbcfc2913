"""Fair tuning: the best settings of each value of an axis, chosen on seen combinations alone.

A study with a `tune` block runs the cross of its other axes (learning rates, say) and draws samples
of seen combinations from each run with several settings. Its ``tuned.yaml`` holds the best for each
world and value; another study names that file, and has the same values of the same axis.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vidcomp.config import RootSettings, Settings, UserError
from vidcomp.report.records import RunRecord, TuningRecord
from vidcomp.study.config import Cell, StudyConfig, Trial, require_name

SEEN = "seen"
_PREFIX = "tune "  # of the trials' names


class Choice(Settings):
    """`set`: keys of a run's config. `seen`: joint accuracy of the best of `trials` trials."""

    set: dict[str, Any]
    seen: float
    trials: int


class Tuned(RootSettings):
    """What a tuning study found, by world and value of the axis `by`."""

    by: str
    chosen: dict[str, dict[str, Choice]] = {}

    def of(self, world: str, value: str) -> dict[str, Any]:
        """Nothing for what was not tuned: it has the base's settings."""
        found = self.chosen.get(world, {}).get(value)
        return {} if found is None else found.set

    def records(self, worlds: Iterable[str], values: Sequence[str]) -> list[TuningRecord]:
        """For a report; what was not tuned is told as such, by having no trials."""
        rows: list[TuningRecord] = []
        for world in worlds:
            for value in values:
                choice = self.chosen.get(world, {}).get(value)
                rows.append(
                    TuningRecord(
                        world=world,
                        value=value,
                        chosen={} if choice is None else choice.set,
                        seen=None if choice is None else choice.seen,
                        num_trials=0 if choice is None else choice.trials,
                    )
                )
        return rows


@dataclass(frozen=True)
class Candidate:
    """A cell and a trial of it: `settings` are what would be chosen."""

    label: str
    cell: str
    trial: str
    settings: Mapping[str, Any]


def trials_of(config: StudyConfig, cells: Sequence[Cell]) -> dict[str, Trial]:
    """The trials of the `tune` block, which look at seen combinations alone. Raises UserError if
    it is not fair."""
    if config.tune is None:
        return {}
    counts = {value: len(found) for value, found in candidates(config, cells).items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"tune: each value of {config.tune.by} needs as many trials: {counts}")
    return {
        f"{_PREFIX}{name}": Trial(set=overrides, levels=(SEEN,))
        for name, overrides in config.tune.trials.items()
    }


def candidates(config: StudyConfig, cells: Sequence[Cell]) -> dict[str, list[Candidate]]:
    """What is chosen from, for each value of the axis that is tuned by."""
    assert config.tune is not None
    by, found = config.tune.by, dict[str, list[Candidate]]()
    for cell in cells:
        require_name(by, cell.values, "tune.by: axis")
        settings: dict[str, Any] = {}
        for axis, value in cell.values.items():
            if axis != by:
                settings |= config.axes.get(axis, {}).get(value, {})
        for name, overrides in config.tune.trials.items():
            drawn = {f"sampling.{key}": value for key, value in overrides.items()}
            candidate = Candidate(
                f"{cell.name}, {name}", cell.name, f"{_PREFIX}{name}", settings | drawn
            )
            found.setdefault(cell.values[by], []).append(candidate)
    return found


def choose(
    found: Mapping[str, Sequence[Candidate]], runs: Sequence[RunRecord]
) -> list[TuningRecord]:
    """The candidate of the highest mean over seeds, for each world and value; the first of several
    equals. One without any score is out."""
    rows: list[TuningRecord] = []
    for world in dict.fromkeys(run.world for run in runs if run.world is not None):
        for value, of_value in found.items():
            tried = [(c.label, _seen(c, world, runs)) for c in of_value]
            scores = [-math.inf if seen is None else seen for _, seen in tried]
            best = scores.index(max(scores))
            rows.append(
                TuningRecord(
                    world=world,
                    value=value,
                    chosen=dict(of_value[best].settings) if tried[best][1] is not None else {},
                    seen=tried[best][1],
                    num_trials=len(tried),
                    tried=tried,
                )
            )
    return rows


def save(by: str, rows: Sequence[TuningRecord], path: Path) -> None:
    """Write what another study reads with ``tuned: PATH``."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.seen is not None:
            choice = {"set": row.chosen, "seen": row.seen, "trials": row.num_trials}
            chosen.setdefault(row.world, {})[row.value] = choice
    OmegaConf.save(OmegaConf.create({"by": by, "chosen": chosen}), path)


def load_tuned(path: str | None, axes: Mapping[str, Any]) -> Tuned | None:
    """Raises UserError if it was tuned by an axis that there is not."""
    if path is None:
        return None
    tuned = Tuned.load(path)
    if tuned.by not in axes:
        raise UserError(
            f"{path} was tuned by axis {tuned.by!r}, which this study has not; "
            f"its axes: {', '.join(axes)}"
        )
    return tuned


def _seen(candidate: Candidate, world: str, runs: Sequence[RunRecord]) -> float | None:
    scores = [
        run.trials[candidate.trial].joint[SEEN].value
        for run in runs
        if (run.world, run.cell) == (world, candidate.cell) and candidate.trial in run.trials
    ]
    found = [score for score in scores if score is not None]
    return math.fsum(found) / len(found) if found else None
