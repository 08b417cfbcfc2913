"""Studies: cells and their configs, the store, and a tiny study that runs to a report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from omegaconf import OmegaConf

from vidcomp.config import UserError
from vidcomp.datasets.base import DataConfig, build
from vidcomp.pipeline import Pipeline
from vidcomp.probes.base import ClipSet, Judge
from vidcomp.report import page
from vidcomp.runs import load_run
from vidcomp.study import StudyConfig, listing, make_plan, report_study, run_study
from vidcomp.study.cells import merged
from vidcomp.study.scoring import fallback
from vidcomp.study.work import jobs_of

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
SHIPPED = [*sorted(CONFIGS.glob("*.yaml")), *sorted((CONFIGS / "studies").glob("*.yaml"))]

STORED: dict[str, Any] = {
    "dataset": {"name": "folder", "path": "clips"},
    "split": tiny.SPLIT,
    "render": tiny.SPRITES,
}
NETWORK = {"width": 16, "depth": 1, "strides": [2, 4, 4]}

Write = Callable[..., StudyConfig]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the YAMLs of a study on a world that is rendered to disk. Its clips, tokenizers
    and judge are there, and one run: seed 0 of the base."""
    folder = tmp_path_factory.mktemp("made")
    codes = {"name": "fsq", **NETWORK}
    smooth = {"name": "kl", "channels": 4, **NETWORK}
    judge = {"name": "factors", "steps": 4, "width": 4}
    base = {
        "tokenizer": "codes",
        "generator": {
            "objective": {"name": "maskgit"},
            "backbone": {"depth": 2, "width": 24, "heads": 2},
        },
        "train": tiny.TRAIN,
        "sampling": {"clips_per_level": 4},
    }
    yamls: dict[str, dict[str, Any]] = {
        "data": {"data": STORED},
        "codes": {"data": STORED, "name": "codes", "tokenizer": codes, "train": tiny.TRAIN},
        "smooth": {"data": STORED, "name": "smooth", "tokenizer": smooth, "train": tiny.TRAIN},
        "judge": {"data": STORED, "name": "judge", "clips": 60, "probe": judge},
        "base": base,
    }
    for name, content in yamls.items():
        OmegaConf.save(OmegaConf.create(content), folder / f"{name}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(page, "level_grid", no_grid)
        run_study(study_of(axes={}))
    return folder


def no_grid(*_: object) -> None:
    """In place of `level_grid`: films take seconds, and test_report looks at them."""


def study_of(**changes: Any) -> StudyConfig:
    """A study of two objectives, with `changes`."""
    world = {
        "data": "data.yaml",
        "probe": "judge.yaml",
        "tokenizers": {"codes": "codes.yaml", "smooth": "smooth.yaml"},
    }
    flow = {"generator.objective": {"name": "flow"}, "sampling.sampler": {"name": "euler"}}
    raw: dict[str, Any] = {
        "name": "tiny",
        "worlds": {"motion": world},
        "base": "base.yaml",
        "axes": {"objective": {"maskgit": {}, "flow": flow}},
        "set": {"evaluate": {"every": 3, "clips_per_level": 2}},
        "executor": "here",
    }
    return StudyConfig.model_validate({**raw, **changes})


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`study_of`, in a copy of `made`."""
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    monkeypatch.chdir(tmp_path / "made")
    monkeypatch.setattr(page, "level_grid", no_grid)
    return study_of


def report_of(html: Path) -> dict[str, Any]:
    return json.loads((html.parent / "report.json").read_text())


def stamps() -> dict[Path, int]:
    """When each file of the store was written."""
    files = (path for path in Path("runs/store").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


def names(config: StudyConfig) -> list[str]:
    return [run.name for run in make_plan(config).runs]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_studies_can_be_planned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sizes = list(StudyConfig.load(path).sizes)
    for size in sizes if path.stem == "claims" else (sizes or [None])[:1]:
        config = StudyConfig.load(path, [f"size={size}"] if size else [])
        jobs = jobs_of(make_plan(config), Path("runs/none"))
        found = [job.name for job in jobs]
        assert len(set(found)) == len(found)
        for k, job in enumerate(jobs):
            assert set(job.needs) <= set(found[:k]), "a job's needs come before it"
            assert (ROOT / job.command[1]).is_file()


def test_a_study_runs_to_a_report_and_a_second_call_runs_nothing(study: Write) -> None:
    claim = {"text": "flow is better", "higher": ["flow"], "lower": ["maskgit"], "min_effect": 0.1}
    config = study(
        seeds=(0, 1),
        trials={"raw": {"weights": "raw", "set": {"clips_per_level": 3}}},
        claims={"1": claim},
    )
    html = run_study(config)
    report = report_of(html)
    assert [run["name"] for run in report["runs"]] == [
        "maskgit-s0",
        "flow-s0",
        "maskgit-s1",
        "flow-s1",
    ]
    for run in report["runs"]:
        assert set(run["scores"]) == set(run["fallback"]) == {"seen", "level-1", "level-2"}
        assert run["scores"]["level-2"]["joint"]["n"] == 4
        assert run["steps"] == tiny.TRAIN["steps"]
        assert [step for step, _ in run["curves"]["level-1"]] == [3, 6]
        assert run["trials"]["raw"]["joint"]["level-1"]["n"] == 3
        assert run["modules"]["trunk"] == report["runs"][0]["modules"]["trunk"]
        assert sum(run["modules"].values()) == run["parameters"]
    comparison = report["claims"][0]["comparisons"][0]
    assert comparison["seeds"] == [0, 1] and report["claims"][0]["verdict"] != ""
    assert "flow is better" in html.read_text()
    assert (Path("runs/tiny/flow-s1") / "scores.json").is_file(), "readable names lead to the runs"

    before = stamps()
    assert run_study(config) == html and stamps() == before
    assert all(line.startswith("finished") for line in listing(config)[:-1])
    assert "0 min of work left" in listing(config)[-1]


def test_studies_share_runs_whatever_they_call_them(study: Write) -> None:
    before = stamps()
    Path("moved.yaml").write_text(Path("base.yaml").read_text())
    html = run_study(study(name="two", base={"masked": "moved.yaml"}, axes={}))
    assert stamps() == before
    assert [run["name"] for run in report_of(html)["runs"]] == ["masked-s0"]


def test_pixels_join_a_world_and_leave_its_judge_and_runs_as_they_were(study: Write) -> None:
    """A tokenizer that loses nothing has no look that the judge must know."""
    pixels = {"name": "patches", "strides": NETWORK["strides"]}
    none = {"data": STORED, "name": "none", "tokenizer": pixels, "train": {"steps": 0}}
    OmegaConf.save(OmegaConf.create(none), "none.yaml")
    world = study().worlds["motion"].model_dump(mode="json")
    world["tokenizers"]["none"] = "none.yaml"
    flow = {"tokenizer": "none", "generator.objective": {"name": "flow"}}
    config = study(worlds={"motion": world}, axes={"tokenizer": {"codes": {}, "none": flow}})
    before = stamps()
    html = run_study(config)
    assert {path: stamp for path, stamp in stamps().items() if path in before} == before
    assert all(run["scores"] for run in report_of(html)["runs"])
    assert {job.name: job.progress() for job in jobs_of(make_plan(config), Path("x"))}[
        "motion none"
    ] == 0, "it took no step"


def test_a_failed_run_is_a_row_and_the_others_are_kept(study: Write) -> None:
    broken = {"train": {"batch_size": 9, "accumulate": 2}}  # no multiple
    config = study(axes={"batch": {"odd": broken, "even": {}}})
    with pytest.raises(UserError, match=r"2 of 8 jobs failed, first odd-s0.*multiple"):
        run_study(config)
    first, second = report_of(Path("runs/tiny/report.html"))["runs"]
    assert "multiple" in first["reason"] and first["scores"] == {} and first["cell"] == "odd"
    assert second["scores"] != {}
    assert "multiple" in Path("runs/tiny/report.html").read_text()
    before = stamps()
    with pytest.raises(UserError, match="multiple"):
        run_study(config)
    changed = {path for path, stamp in stamps().items() if before[path] != stamp}
    assert {path.name for path in changed} == {"failed.txt"}, "only the failure is tried again"


def test_a_slice_ends_in_time_and_the_next_goes_on(
    study: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    html = run_study(study(axes={}, seeds=(7,), time_limit_s=1e-3))
    assert report_of(html)["runs"][0]["reason"] in (
        "not started",
        "trained, but not scored (no scores.json)",
    )
    assert "same command goes on" in capsys.readouterr().out
    html = run_study(study(axes={}, seeds=(7,)))
    assert all(run["scores"] for run in report_of(html)["runs"])


def test_a_report_reads_a_store_that_came_without_its_weights(study: Write) -> None:
    config = study(axes={})
    whole = report_of(Path("runs/tiny/report.html"))
    for weights in Path("runs/store").glob("generator-*/checkpoint-*/*"):
        if weights.name != "state.json":
            weights.unlink()
    assert report_of(report_study(config))["runs"] == whole["runs"]
    before = stamps()
    assert report_of(run_study(config))["runs"] == whole["runs"] and stamps() == before


def test_scores_of_fewer_samples_are_made_again(study: Write) -> None:
    """Samples can be replaced by hand; what a study compares is what its config says."""
    config = study(axes={})
    scores = next(Path("runs/store").glob("generator-*/scores.json"))
    made = json.loads(scores.read_text())
    made["sampling"]["clips_per_level"] = 2
    scores.write_text(json.dumps(made))
    assert any(line.startswith("   30 s") for line in listing(config))


def test_tuning_takes_the_best_on_seen_and_another_study_uses_it(study: Write) -> None:
    rates = {"slow": {"train.learning_rate": 1e-4}, "fast": {"train.learning_rate": 5e-3}}
    axes = {"objective": {"maskgit": {}}, "rate": rates}
    trials = {"plain": {}, "cold": {"temperature": 0.5}}
    html = run_study(study(axes=axes, tune={"by": "objective", "trials": trials}))
    report = report_of(html)
    (row,) = report["tuning"]
    tried = dict(row["tried"])
    assert list(tried) == [
        "maskgit-slow, plain",
        "maskgit-slow, cold",
        "maskgit-fast, plain",
        "maskgit-fast, cold",
    ]
    assert row["seen"] == max(tried.values()) and row["num_trials"] == 4
    best = max(tried, key=lambda label: tried[label])
    rate = rates[best.split(",")[0].removeprefix("maskgit-")]["train.learning_rate"]
    assert row["chosen"]["train.learning_rate"] == rate
    for run in report["runs"]:
        assert set(run["trials"]["tune cold"]["joint"]) == {"seen"}, "held-out levels are not asked"
    assert "Fair tuning" in html.read_text()

    after = study(axes={"objective": {"maskgit": {}}}, tuned="runs/tiny/tuned.yaml", name="after")
    assert make_plan(after).runs[0].run.train.learning_rate == rate
    with pytest.raises(UserError, match="tuned by axis 'objective', which this study has not"):
        make_plan(study(axes={}, tuned="runs/tiny/tuned.yaml"))


class TestCells:
    """Which cells there are, and the configs that follow."""

    def test_a_full_cross_without_what_is_excluded(self, study: Write) -> None:
        axes = {"a": {"x": {}, "y": {}}, "b": {"1": {}, "2": {}, "3": {}}}
        config = study(axes=axes, exclude=({"a": "y", "b": ("1", "3")},), seeds=(4,))
        assert names(config) == ["x-1-s4", "x-2-s4", "x-3-s4", "y-2-s4"]

    def test_named_cells_have_first_values_elsewhere(self, study: Write) -> None:
        axes = {
            "steps": {"few": {"train.steps": 2}, "many": {"train.steps": 9}},
            "seed rate": {"a": {}, "b": {"train.learning_rate": 0.5}},
        }
        config = study(axes=axes, cells={"plain": {}, "long": {"steps": "many"}})
        plain, long = make_plan(config).runs
        assert (plain.run.train.steps, long.run.train.steps) == (2, 9)
        assert plain.run.train.learning_rate == long.run.train.learning_rate

    def test_seeds_come_one_after_the_other(self, study: Write) -> None:
        found = names(study(seeds=(0, 1)))
        assert found == ["maskgit-s0", "flow-s0", "maskgit-s1", "flow-s1"]

    def test_a_size_changes_settings_seeds_and_cells(self, study: Write) -> None:
        small = {"set": {"train.steps": 11}, "seeds": (7,), "leave_out": ("flow",)}
        config = study(size="small", sizes={"small": small, "large": {}})
        plan = make_plan(config)
        assert [(run.name, run.run.train.steps) for run in plan.runs] == [("maskgit-s7", 11)]
        assert plan.left_out == ("flow: left out at this size",)

    def test_a_variant_replaces_and_other_mappings_merge(self) -> None:
        raw = {"objective": {"name": "maskgit", "label_smoothing": 0.1}, "train": {"steps": 5}}
        changes = {"objective": {"name": "givt"}, "train": {"batch_size": 2}, "jepa.weight": 0.6}
        assert merged(raw, changes) == {
            "objective": {"name": "givt"},
            "train": {"steps": 5, "batch_size": 2},
            "jepa": {"weight": 0.6},
        }
        assert raw["train"] == {"steps": 5}, "what lies below is not changed"

    def test_the_hash_is_of_the_content(self, study: Write) -> None:
        def folders(config: StudyConfig) -> list[str]:
            return [run.folder.name for run in make_plan(config).runs]

        one = folders(study())
        assert one == folders(study(name="other"))
        assert len(set(one)) == 2
        assert not set(one) & set(folders(study(seeds=(1,))))
        judge = OmegaConf.load("judge.yaml")
        judge.clips = 61
        OmegaConf.save(judge, "judge.yaml")
        assert not set(one) & set(folders(study())), "the judge draws the curves"

    def test_the_resolved_config_is_what_the_command_reads(self, study: Write) -> None:
        (run,) = make_plan(study(axes={})).runs
        assert load_run(run.folder / "config.yaml")[0] == run.run
        assert run.folder.name == f"generator-maskgit-{run.run.digest}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"axes": {"path": {"a": {}, "b": {"generator.condtioning.path": "tokens"}}}},
            r"cell b, axis path=b: generator: unknown key 'condtioning'; did you mean "
            r"'conditioning'",
        ),
        (
            {"axes": {"width": {"w": {"generator.backbone.widht": 3}}}},
            r"axis width=w: generator\.backbone: unknown key 'widht'; did you mean 'width'",
        ),
        ({"set": {"train.stepz": 3}}, r"cell maskgit, set: train: unknown key 'stepz'"),
        (
            {"axes": {"objective": {"flow": {"generator.objective": {"name": "fow"}}}}},
            r"axis objective=flow: generator\.objective: no 'fow' in objectives",
        ),
        (
            {"axes": {"o": {"flow": {"sampling.sampler": {"name": "euler"}}}}},
            r"cell flow: sampler euler needs a continuous path",
        ),
        (
            {"axes": {"tokenizer": {"v": {"tokenizer": "vq"}}}},
            r"world motion has no tokenizer 'vq'; legal: codes, smooth",
        ),
        (
            {"axes": {"t": {"kl": {"tokenizer": "smooth"}}}},
            r"cell kl: objective maskgit needs",
        ),
        ({"cells": {"x": {"objectiv": "flow"}}}, r"axis 'objectiv' does not exist; did you mean"),
        (
            {"cells": {"x": {"objective": "flo"}}},
            r"value 'flo' does not exist; did you mean 'flow'",
        ),
        ({"exclude": ({"objective": ["maskgit", "flow"]},)}, r"'exclude' leaves no cell"),
        ({"axes": {"objective": {}}}, r"axis objective has no values"),
        ({"leave_out": ("flwo",)}, r"'flwo' does not exist; did you mean 'flow'"),
        ({"leave_out": ("motion",)}, r"nothing is left to run"),
        ({"size": "tniy", "sizes": {"tiny": {}}}, r"no size 'tniy'; did you mean 'tiny'"),
        ({"sizes": {"tiny": {}}}, r"no size None; legal: tiny"),
        ({"trials": {"t": {"set": {"temprature": 1}}}}, r"unknown key 'temprature'"),
        ({"trials": {"t": {"levels": ["level-3"]}}}, r"trial t: no clip .* 'level-3'.*legal: seen"),
        ({"tune": {"by": "objectiv", "trials": {}}}, r"tune\.by: axis 'objectiv' does not exist"),
        (
            {"claims": {"1": {"text": "", "higher": ["fow"], "min_effect": 0}}},
            r"claim 1: cell 'fow' does not exist; did you mean 'flow'",
        ),
        (
            {
                "claims": {
                    "1": {
                        "text": "",
                        "higher": ["flow"],
                        "min_effect": 0,
                        "measure": {"level": "level-9"},
                    }
                }
            },
            r"claim 1: no clip of world motion is at 'level-9'",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    study: Write, change: dict[str, Any], says: str
) -> None:
    before = stamps()
    with pytest.raises(UserError, match=says) as error:
        run_study(study(**change))
    assert "\n" not in str(error.value) and stamps() == before


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("judge", {"data": {"split": {"max_novel": 2}}}, "judge.yaml has other 'data'"),
        ("codes", {"data": {"split": {"max_novel": 2}}}, "codes.yaml has other 'data'"),
        ("base", {"data": {"split": {"max_novel": 2}}}, "base.yaml has other 'data'"),
        ("codes", {"generator": {"objective": "maskgit"}}, "codes.yaml"),
    ],
)
def test_parts_that_do_not_go_together(
    study: Write, file: str, change: dict[str, Any], says: str
) -> None:
    config = study()
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(f"{file}.yaml"), change), f"{file}.yaml")
    with pytest.raises(UserError, match=says):
        make_plan(config)


def test_a_linked_run_loads_from_anywhere(
    study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Path("runs/tiny/base-s0").absolute()
    monkeypatch.chdir(tmp_path)
    assert Pipeline.load(link, device="cpu").generator is not None


def test_a_folder_in_the_place_of_a_link_is_not_removed(study: Write) -> None:
    mine = Path("runs/tiny/flow-s0")
    mine.mkdir(parents=True)
    with pytest.raises(UserError, match=r"flow-s0 is in the way"):
        run_study(study())
    assert mine.is_dir() and not mine.is_symlink()


def test_fallback_counts_failures_that_show_a_trained_combination() -> None:
    """Four combinations of two bits, {00, 01, 10} trained; 11 is asked for five times."""
    dataset, split = build(DataConfig.model_validate(tiny.STILLS))
    asked = torch.ones(5, 2, dtype=torch.int64)
    read = torch.tensor(
        [
            [[1, 1], [1, 1]],  # right
            [[0, 1], [0, 1]],  # a trained one
            [[1, 0], [1, 0]],  # another
            [[0, 1], [1, 1]],  # not the same in every frame
            [[-1, 1], [-1, 1]],  # unreadable
        ]
    )
    video = torch.zeros(5, 3, 2, 16, 16)
    samples = ClipSet(video, asked, dataset.factors.prototypes(asked))
    found = fallback(Told(read), samples, split)
    assert list(found) == ["level-1"]
    assert (found["level-1"]["value"], found["level-1"]["n"]) == (1.0, 2)
    assert found["level-1"]["chance"] == 1.0, "all wrong combinations are trained here"


class Told(Judge):
    """Reads what it is told."""

    def __init__(self, verdicts: torch.Tensor) -> None:
        self.verdicts = verdicts

    def read(self, video: torch.Tensor) -> torch.Tensor:
        return self.verdicts
