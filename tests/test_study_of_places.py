"""A study of a world of many objects, run to its report: a judge that needs no fitting, pixels for
latents, places as conditions, composed samples, and what the page says of lengths and locality.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from omegaconf import OmegaConf

from vidcomp.config import UserError
from vidcomp.report import page
from vidcomp.study import StudyConfig, listing, make_plan, run_study
from vidcomp.study.config import Trial
from vidcomp.study.scoring import Trials, score_run, tried_weights

DISCS: dict[str, Any] = {
    "dataset": {
        "name": "counting",
        "num_clips": 300,
        "height": 24,
        "width": 24,
        "counts": [0, 1, 2, 3],
    },
    "split": {"rule": "range", "seen": {"count": [1, 2]}},
}

QUICK: dict[str, Any] = {"clips": 2, "probes": 3, "perturbed": 2}


def write_yamls() -> None:
    base = {
        "tokenizer": "none",
        "generator": {
            "objective": {"name": "flow"},
            "backbone": {"depth": 2, "width": 24, "heads": 2},
            "conditioning": {"tell": [], "locations": {}},
        },
        "train": tiny.TRAIN,
        "sampling": {"clips_per_level": 6, "guidance_scale": 1.0, "sampler": {"name": "euler"}},
    }
    pixels = {"name": "patches", "strides": [1, 4, 4]}
    yamls: dict[str, dict[str, Any]] = {
        "data": {"data": DISCS},
        "none": {"data": DISCS, "name": "none", "tokenizer": pixels, "train": {"steps": 0}},
        "base": base,
    }
    for name, content in yamls.items():
        OmegaConf.save(OmegaConf.create(content), f"{name}.yaml")


def study_of(**changes: Any) -> StudyConfig:
    area = {"of": "probe", "score": "samples/n/area"}
    raw: dict[str, Any] = {
        "name": "places",
        "worlds": {
            "discs": {"data": "data.yaml", "probe": "counting", "tokenizers": {"none": "none.yaml"}}
        },
        "base": "base.yaml",
        "axes": {"told": {"all": {}, "one": {"data.dataset.label": "one"}}},
        "also": {
            "locality": {
                "cells": ["all"],
                "set": QUICK | {"also_at": [0.1], "checkpoints": "all"},
            }
        },
        "trials": {
            "composed": {"set": {"compose": "objects"}, "cells": ["all"]},
            "early": {"checkpoint": 4, "set": {"clips_per_level": 4}, "cells": ["all"]},
        },
        "claims": {
            "1": {
                "text": "told of all it generalises",
                "higher": ["all"],
                "min_effect": 0.9,
                "measure": {**area, "probe": "counting"},
            },
            "2": {
                "text": "and composed it does",
                "higher": ["all"],
                "min_effect": 0.9,
                "measure": {**area, "trial": "composed"},
            },
        },
        "seeds": (0, 1),
        "executor": "here",
    }
    return StudyConfig.model_validate({**raw, **changes})


def no_grid(*_: object) -> None:
    """In place of `level_grid`: films take seconds."""


def test_it_runs_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "level_grid", no_grid)
    write_yamls()
    html = run_study(study_of())
    text = html.read_text()
    assert "More objects than in training" in text and "How local the networks are" in text
    report = json.loads((html.parent / "report.json").read_text())
    for claim in report["claims"]:
        (comparison,) = claim["comparisons"]
        assert comparison["seeds"] == [0, 1] and len(comparison["differences"]) == 2
        assert all(0 <= value <= 1 for value in comparison["differences"])
    of_all = next(run for run in report["runs"] if run["cell"] == "all")
    composed = of_all["trials"]["composed"]["scores"]
    assert "samples/n/3/recall" in composed and "samples/n/area" in composed
    scores = json.loads((html.parent / of_all["name"] / "scores.json").read_text())
    assert scores["judge"] == "counting" and scores["judge_folder"] is None
    local = scores["scores"]["locality"]
    assert {"network/0.1/leakage", "untrained/0.1/leakage"} <= set(local)
    assert local["step-4/network/0.1/leakage"] != local["network/0.1/leakage"]
    early = of_all["trials"]["early"]
    of_area = [scores["samples/n/area"]["n"] for scores in (early["scores"], composed)]
    assert early["checkpoint"] == 4 and of_area == [2, 3], "half of a level's clips show three"
    assert "(n = 2 runs, 4 checkpoints;" in text and "2 in all; small ones are older" in text
    assert (html.parent / of_all["name"] / "locality.png").is_file()
    assert all(line.startswith("finished") for line in listing(study_of())[:-1])

    beside = html.parent / of_all["name"] / "beside.json"
    before = json.loads(beside.read_text())
    del before["trials"]["composed"]["asked"]["checkpoint"]  # as it was before there were any
    beside.write_text(json.dumps(before))
    assert all(line.startswith("finished") for line in listing(study_of())[:-1])
    with pytest.raises(UserError, match=r"no checkpoint of step 2 in .*; left are 4, 6: name one"):
        tried_weights(html.parent / of_all["name"], Trial(checkpoint=2))

    settings = QUICK | {"also_at": [], "level": 0.7}
    other = {"locality": {"cells": ["all"], "set": settings}}
    open_jobs = [line for line in listing(study_of(also=other))[:-1] if "finished" not in line]
    assert len(open_jobs) == 2, "the runs that were asked with other settings"
    asked = Trials(also=({"name": "locality"} | settings,))
    score_run(html.parent / of_all["name"], "counting", asked)
    again = json.loads((html.parent / of_all["name"] / "scores.json").read_text())
    levels = {key.split("/")[1] for key in again["scores"]["locality"]}
    assert levels == {"0.7"}, "each as it was asked last"


def test_what_a_judge_that_is_not_fitted_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_yamls()
    with pytest.raises(UserError, match="evaluate: curves take a fitted judge"):
        make_plan(study_of(set={"evaluate": {"every": 3}}))
    with pytest.raises(UserError, match="trial composed: cell 'some' does not exist"):
        make_plan(study_of(trials={"composed": {"cells": ["some"]}}))
    early = {"early": {"checkpoint": 2, "cells": ["one"]}}
    with pytest.raises(UserError, match=r"of cell one no checkpoint of step 2 .* legal: 4, 6, or"):
        make_plan(study_of(trials=early))
    assert make_plan(study_of(trials=early, set={"train.keep_checkpoints": 3}))
    with pytest.raises(UserError, match=r"unknown key .windw.; did you mean .window."):
        make_plan(study_of(also={"locality": {"set": {"windw": 3}}}))
