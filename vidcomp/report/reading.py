"""Small things that are read from run folders, by whoever reports on them."""

import json
import math
import re
from pathlib import Path
from typing import Any

from vidcomp.report.records import ScoreRecord, TrialRecord

FAILED = "failed.txt"
"""Where whoever runs many trainings leaves the reason why one of them ended, in its run folder."""

SCORES = "scores.json"

BESIDE = "beside.json"
"""What a study measures beside the scores: see `study.scoring`."""

Metrics = list[dict[str, float]]
"""The lines of ``metrics.jsonl``."""


def series(metrics: Metrics, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one of the numbers that a training logged."""
    lines = [line for line in metrics if key in line and math.isfinite(line[key])]
    return [line["step"] for line in lines], [line[key] for line in lines]


def plain_name(folder: Path) -> str:
    """A folder's name without the hash and kind that it has in a store: ``fsq`` of
    ``tokenizer-fsq-0123456789ab``."""
    stored = re.fullmatch(r"[a-z]+-(.+)-[0-9a-f]{12}", folder.name)
    return stored[1] if stored else folder.name


def read_metrics(folder: Path) -> Metrics:
    """The lines of ``metrics.jsonl``, without one that was cut off."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line, parse_int=float) for line in lines if line.endswith("}")]


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def trial_records(beside: dict[str, Any]) -> dict[str, TrialRecord]:
    """The trials in the content of `BESIDE`."""
    return {
        name: TrialRecord(
            settings=found["asked"]["set"],
            weights=found["asked"]["weights"],
            checkpoint=found["asked"].get("checkpoint"),
            joint={k: ScoreRecord.model_validate(s) for k, s in found["joint"].items()},
            scores={k: ScoreRecord.model_validate(s) for k, s in found.get("scores", {}).items()},
        )
        for name, found in beside.get("trials", {}).items()
    }
