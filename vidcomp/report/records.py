"""The shape of ``report.json``, which tools read.

Unusual: JSON has no NaN. A number that was not measured is ``null`` there, None here, and a dash
on the page.
"""

import math
from typing import Annotated, Any

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
    """A number with its 95 % interval, the count behind it, and what guessing would give."""

    value: Number
    low: Number
    high: Number
    n: int
    chance: Number = None


class LevelRecord(Record):
    """How the samples of a level were judged; `per_frame` by index."""

    joint: ScoreRecord
    per_factor: dict[str, ScoreRecord]
    per_frame: list[Number]


class CeilingRecord(Record):
    """What the judge says of clips that no generator made."""

    joint: ScoreRecord


class RunRecord(Record):
    """One generator run; `scores` by level, `ceilings` by source and level; empty if none."""

    name: str
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


class ReportRecord(Record):
    """``report.json``."""

    study: str
    commit: str
    device: str
    versions: dict[str, str]
    wall_s: Number
    runs: list[RunRecord]
    claims: list[dict[str, Any]] = []
