"""The shape of ``report.json``, which tools read.

Unusual: JSON has no NaN. A number that was not measured is ``null`` there, None here, and a dash
on the page.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

REAL, RECONSTRUCTION, SAMPLES = "real", "reconstruction", "samples"
"""The sources of clips that a judge scores."""


def _finite(number: int | float | None) -> int | float | None:
    return number if number is not None and math.isfinite(number) else None


Number = Annotated[float | None, BeforeValidator(_finite)]


class Record(BaseModel):
    """A part of ``report.json``. Its fields are frozen: tools read them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoreRecord(Record):
    """A number with its 95 % interval, the count behind it, and what guessing would give. `flag`:
    why it should not be believed."""

    value: Number
    low: Number
    high: Number
    n: int
    chance: Number = None
    flag: str = ""


class LevelRecord(Record):
    """How the samples of a level were judged; `per_frame` by index; `unreadable`: the share of
    frames in which nothing could be read, None in scores from before it was counted."""

    joint: ScoreRecord
    per_factor: dict[str, ScoreRecord]
    per_frame: list[Number]
    unreadable: ScoreRecord | None = None


class CeilingRecord(Record):
    """What the judge says of clips that no generator made."""

    joint: ScoreRecord


class TrialRecord(Record):
    """Samples beside a run's own: drawn with other settings, from the weights as trained, or from
    an older `checkpoint`. `scores`: all of a judge that needs no fitting."""

    settings: dict[str, Any]
    weights: str
    checkpoint: int | None = None
    joint: dict[str, ScoreRecord]
    scores: dict[str, ScoreRecord] = {}


class RunRecord(Record):
    """One generator run; `scores` by level, `ceilings` by source and level; empty if none.

    `reason`: why there are no scores. `cell`, `world`: its place in a study. `modules`: parameters
    of trunk, ends (heads and embeddings) and training_only. All scores are of averaged weights and
    of the last checkpoint; `trials` may have others. `curves` by level: steps and joint accuracy of
    few samples; `best` is their maximum, which is a lucky one. `fallback` by level: see
    `report.claims`. `probes`: what claims ask of other probes.
    """

    name: str
    reason: str = ""
    cell: str | None = None
    world: str | None = None
    modules: dict[str, int] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    best: dict[str, tuple[float, float]] = {}
    fallback: dict[str, ScoreRecord] = {}
    trials: dict[str, TrialRecord] = {}
    probes: dict[str, dict[str, ScoreRecord]] = {}
    config_hash: str | None = None
    split_hash: str | None = None
    seed: int | None = None
    objective: str | None = None
    tokenizer: str | None = None
    jepa: bool | None = None
    steps: int | None = None
    parameters: int | None = None
    train_s: Number = None
    sample_s: Number = None
    scores: dict[str, LevelRecord] = {}
    ceilings: dict[str, dict[str, CeilingRecord]] = {REAL: {}, RECONSTRUCTION: {}}


Verdict = Literal["reproduced", "not reproduced", "not decided"]


class ComparisonRecord(Record):
    """Two cells, paired by seed; `lower` is None for a comparison with zero."""

    higher: str
    lower: str | None
    seeds: list[int]
    differences: list[float]
    mean: Number
    low: Number
    high: Number
    verdict: Verdict
    notes: list[str]


class ClaimRecord(Record):
    """A claim in one world."""

    id: str
    text: str
    paper: str
    own: bool
    world: str
    measure: str
    min_effect: float
    after_steps: int
    verdict: Verdict
    comparisons: list[ComparisonRecord]


class TuningRecord(Record):
    """What was chosen for one value of an axis, of how many trials, and how the best did on seen
    combinations."""

    world: str
    value: str
    chosen: dict[str, Any]
    seen: Number
    num_trials: int
    tried: list[tuple[str, Number]] = []


class ReportRecord(Record):
    """``report.json``."""

    study: str
    commit: str
    device: str
    versions: dict[str, str]
    wall_s: Number
    runs: list[RunRecord]
    claims: list[ClaimRecord] = []
    tuning: list[TuningRecord] = []
    left_out: list[str] = []
