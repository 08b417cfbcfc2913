"""Studies: shipped ones can be planned, wrong ones are refused, a tiny one runs to a report."""

import json
from pathlib import Path

import pytest
import tiny
from omegaconf import OmegaConf

from vidcomp.config import UserError
from vidcomp.study import StudyConfig, plan, run_study

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml")) + sorted((ROOT / "configs/studies").glob("*"))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    """A study of two objectives on a world that is rendered to disk, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    stored = {
        "dataset": {"name": "folder", "path": "clips"},
        "split": tiny.SPLIT,
        "render": tiny.SPRITES,
    }
    network = {"width": 16, "depth": 1, "strides": [2, 4, 4]}
    backbone = {"depth": 2, "width": 24, "heads": 2}
    sampler = {"num_steps": 2}
    yamls = {
        "data": {"data": stored},
        "codes": {"name": "codes", "tokenizer": {"name": "fsq", **network}, "train": tiny.TRAIN},
        "smooth": {
            "name": "smooth",
            "tokenizer": {"name": "kl", "channels": 4, **network},
            "train": tiny.TRAIN,
        },
        "judge": {
            "name": "judge",
            "clips": 60,
            "probe": {"name": "factors", "steps": 4, "width": 4},
        },
        "masked": {
            "name": "masked",
            "tokenizer": "codes.yaml",
            "generator": {"objective": {"name": "maskgit"}, "backbone": backbone, "jepa": {}},
            "train": tiny.TRAIN,
            "sampling": {"clips_per_level": 4, "sampler": {"name": "unmask", **sampler}},
        },
        "flow": {
            "name": "flow",
            "tokenizer": "smooth.yaml",
            "generator": {"objective": {"name": "flow"}, "backbone": backbone},
            "train": tiny.TRAIN,
            "sampling": {"clips_per_level": 4, "sampler": {"name": "euler", **sampler}},
        },
    }
    for name, content in yamls.items():
        OmegaConf.save(OmegaConf.create({"data": stored, **content}), f"{name}.yaml")
    return StudyConfig(
        name="tiny",
        data="data.yaml",
        tokenizers=("codes.yaml", "smooth.yaml"),
        probe="judge.yaml",
        generators=("masked.yaml", "flow.yaml"),
        evaluate_every=3,
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_studies_can_be_planned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    jobs = plan(StudyConfig.load(path), Path("runs/none"))
    names = [job.name for job in jobs]
    for k, job in enumerate(jobs):
        assert set(job.needs) <= set(names[:k]), "a job's needs come before it"
        assert (ROOT / job.command[1]).is_file()


def test_a_study_runs_to_a_report_and_a_second_call_runs_nothing(study: StudyConfig) -> None:
    page = run_study(study)
    report = json.loads((page.parent / "report.json").read_text())
    assert [run["objective"] for run in report["runs"]] == ["maskgit", "flow"]
    assert [run["jepa"] for run in report["runs"]] == [True, False]
    for run in report["runs"]:
        assert set(run["scores"]) == {"seen", "level-1", "level-2"}
        assert run["scores"]["level-2"]["joint"]["n"] == 4
        assert run["steps"] == tiny.TRAIN["steps"]
    assert "<video" in page.read_text()

    weights = {path: path.stat().st_mtime_ns for path in Path("runs/tiny").rglob("*.safetensors")}
    assert run_study(study) == page
    assert weights == {p: p.stat().st_mtime_ns for p in Path("runs/tiny").rglob("*.safetensors")}
    again = json.loads((page.parent / "report.json").read_text())
    assert again["wall_s"] >= report["wall_s"], "the time of all calls together"


def test_a_failed_run_is_a_row_and_the_others_are_kept(study: StudyConfig) -> None:
    broken = OmegaConf.load("masked.yaml")
    broken.train.batch_size = 9  # not a multiple of accumulate
    broken.train.accumulate = 2
    OmegaConf.save(broken, "masked.yaml")
    with pytest.raises(UserError, match=r"masked-s0.*multiple"):
        run_study(study)
    report = json.loads(Path("runs/tiny/report.json").read_text())
    assert report["runs"][0]["scores"] == {} and report["runs"][1]["scores"] != {}
    assert "multiple" in Path("runs/tiny/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizers": ("masked.yaml",)}, "belongs into the study's generators"),
        ({"generators": ("codes.yaml",)}, "belongs into the study's tokenizers"),
        ({"tokenizers": ("smooth.yaml",)}, "not among the study's: smooth.yaml"),
        ({"probe": "other.yaml"}, "other 'data'"),
    ],
)
def test_parts_that_do_not_go_together(
    study: StudyConfig, change: dict[str, object], says: str
) -> None:
    other = OmegaConf.load("judge.yaml")
    other.data.split.max_novel = 2
    OmegaConf.save(other, "other.yaml")
    with pytest.raises(UserError, match=says):
        plan(study.model_copy(update=change), Path("out"))
