"""A report says what the run folders say, in a page that needs nothing else."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from studio import Studio

from vidcomp.media import read_video
from vidcomp.report.collect import FAILED
from vidcomp.report.page import duration, number, percent, write_report
from vidcomp.report.records import ReportRecord

MakeStudio = Callable[..., Studio]
VOID = {"meta", "img", "br", "link", "input", "hr"}


def report(studio: Studio, runs: list[Path], **changes: Any) -> Path:
    """The report of `runs`, in a folder of its own."""
    settings: dict[str, Any] = {
        "study": "made up",
        "tokenizers": [],
        "probes": [],
        "commands": ["make demo"],
        "wall_s": 612.0,
    }
    return write_report(studio.root / "report", runs=runs, **(settings | changes))


def record_of(page: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(page.with_name("report.json").read_text(), parse_constant=refuse)


class Reader(HTMLParser):
    """Checks that tags are balanced; collects attributes and text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.text += " " * (tag in ("td", "th"))  # cells stand apart
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def test_json_has_the_shape_and_the_scores_of_the_runs(studio: MakeStudio) -> None:
    made = studio()
    runs = [made.generator("maskgit-s0"), made.generator("flow-s0", objective="flow", jepa=True)]
    record = record_of(report(made, runs))
    ReportRecord.model_validate(record)
    shape = "study commit device versions wall_s runs claims tuning left_out"
    assert list(record) == shape.split()
    assert record["claims"] == [] and record["wall_s"] == 612.0
    first, second = record["runs"]
    assert (first["objective"], first["jepa"], first["tokenizer"]) == ("maskgit", False, "fsq")
    assert (second["objective"], second["jepa"], second["seed"]) == ("flow", True, 0)
    assert (first["steps"], first["parameters"]) == (100, 1_234_567)
    assert (first["train_s"], first["sample_s"]) == (12.5, 3.25)
    assert set(first["scores"]) == {"seen", "level-1", "level-2"}
    truth = json.loads((runs[0] / "scores.json").read_text())["scores"]["factors"]
    level = first["scores"]["level-1"]
    assert level["joint"] == truth["samples/level-1/joint"]
    assert level["per_factor"]["colour"] == truth["samples/level-1/factor/colour"]
    assert level["per_frame"] == [truth[f"samples/level-1/frame/{k}"]["value"] for k in range(3)]
    assert set(first["ceilings"]) == {"real", "reconstruction"}
    ceiling = first["ceilings"]["reconstruction"]["level-2"]
    assert ceiling == {"joint": truth["reconstruction/level-2/joint"]}


def test_a_changed_score_changes_the_page(studio: MakeStudio) -> None:
    made = studio()
    run = made.generator("maskgit-s0")
    assert "12.3\u202f%" not in report(made, [run]).read_text()
    scores = json.loads((run / "scores.json").read_text())
    scores["scores"]["factors"]["samples/level-2/joint"]["value"] = 0.1234
    (run / "scores.json").write_text(json.dumps(scores))
    page = report(made, [run])
    assert "12.3\u202f%" in page.read_text()
    assert record_of(page)["runs"][0]["scores"]["level-2"]["joint"]["value"] == 0.1234


def change_scores(run: Path, *path: str, value: Any) -> None:
    """Set one number in a run's scores."""
    content = json.loads((run / "scores.json").read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (run / "scores.json").write_text(json.dumps(content))


def words_of(page: Path) -> str:
    return " ".join(Reader(page).text.split())


def test_judges_that_differ_by_more_than_chance_are_named_below_the_table(
    studio: MakeStudio,
) -> None:
    made = studio()
    run = made.generator("flow-s0")
    joint = "samples/level-1/joint"
    first = json.loads((run / "scores.json").read_text())["scores"]["factors"][joint]
    change_scores(run, "scores", "oracle", joint, "value", value=first["high"])
    assert "judges disagree" not in words_of(report(made, [run]))
    change_scores(run, "scores", "oracle", joint, "value", value=0.1402)
    text = words_of(report(made, [run]))
    low, high, value = (percent(first[key]) for key in ("low", "high", "value"))
    found = re.search(r"The two judges disagree on (.*?)\. These", text)
    assert found is not None
    expected = f"flow-s0 at level-1 (factors {value}, 95 % interval {low} to {high}; oracle 14 %)"
    assert found[1] == " ".join(expected.split())
    assert text.index("Joint accuracy") < found.start() < text.index("What was held out")


def test_the_split_is_shown_as_a_picture_and_in_numbers(studio: MakeStudio) -> None:
    made = studio()
    page = Reader(report(made, [made.generator("flow-s0")]))
    said = "of 8 combinations: 4 seen, 3 level-1, 1 level-2"
    assert said in page.text and "seen/level-1/level-2" in page.text
    pictures = dict(zip(page.values("img", "alt"), page.values("img", "src"), strict=True))
    (picture,) = [source for alt, source in pictures.items() if said in alt]
    svg = base64.b64decode(picture.partition(",")[2]).decode()
    for colour in ("#1f77b4", "#ff69b4", "#d62728"):
        assert colour in svg


def test_agreement_of_the_judges_is_told_by_level(studio: MakeStudio) -> None:
    made = studio()
    run = made.generator("flow-s0")
    change_scores(run, "scores", "agreement", "samples/level-2", "value", value=0.4321)
    assert "flow-s0 " + "100 % " * 8 + "43.2 % Share of frames" in words_of(report(made, [run]))


def test_the_page_says_how_the_scored_samples_were_drawn(studio: MakeStudio) -> None:
    made = studio()
    run = made.generator("flow-s0", objective="flow")
    assert "the config says" not in words_of(report(made, [run]))
    change_scores(run, "sampling", "guidance_scale", value=3.25)
    change_scores(run, "sampling", "sampler", value={"name": "euler", "num_steps": 7})
    text = words_of(report(made, [run]))
    assert "flow-s0 3.25 1.0 euler 7 64 0 the config says guidance_scale: 2.0, sampler: " in text


def test_a_scored_run_whose_last_attempt_failed_says_so_beside_its_scores(
    studio: MakeStudio,
) -> None:
    made = studio()
    runs = [made.generator("flow-s0"), made.generator("flow-s1", seed=1)]
    assert "last attempt" not in words_of(report(made, runs))
    (runs[1] / FAILED).write_text("out of memory\nand its traceback")
    page = report(made, runs)
    text = words_of(page)
    assert "flow-s1: the last attempt failed: out of memory" in text and "traceback" not in text
    assert record_of(page)["runs"][1]["scores"] != {}


def test_the_configs_on_the_page_include_the_judges(studio: MakeStudio) -> None:
    made = studio()
    page = report(made, [made.generator("flow-s0")], probes=[made.probe()])
    assert "name: judge of this studio" in Reader(page).text


def test_the_page_is_balanced_accessible_and_needs_nothing_else(studio: MakeStudio) -> None:
    made = studio()
    runs = [made.generator("a&b-s0", examples=True), made.generator("flow-s0", objective="flow")]
    page = report(made, runs, tokenizers=[made.tokenizer()], probes=[made.probe()])
    reader = Reader(page)
    addresses = [v for _, name, v in reader.attributes if name in ("src", "href", "poster")]
    outside = [a for a in addresses if not a.startswith("data:")]
    assert outside and all((page.parent / a).is_file() for a in outside)
    assert not re.search(r"@import|url\(", page.read_text())
    assert len(reader.values("img", "alt")) == len(reader.values("img", "src")) > 0
    assert all(reader.values("img", "alt")) and all(reader.values("video", "aria-label"))
    assert "a&b" in reader.text  # escaped once, not twice and not never
    assert "nan" not in re.sub(r"data:[^\"]*", "", page.read_text()).lower()
    assert "99.9\u202f%" in reader.text and "28.0" in reader.text  # the judge's own, and PSNR
    assert "41.7\u202f%" in reader.text  # of the codebook


def test_grids_lie_beside_the_page_and_in_it(studio: MakeStudio) -> None:
    made = studio(num_frames=5)
    page = report(made, [made.generator("maskgit-s0", examples=True)])
    held = 6  # 0.75 s at 8 frames per second
    films = Reader(page).values("video", "src")
    assert len(films) == 3
    webm = made.root / "film.webm"
    for source in films:
        webm.write_bytes(base64.b64decode(source.removeprefix("data:video/webm;base64,")))
        assert len(read_video(webm)) == 5 + held
    names = sorted(path.name for path in (page.parent / "grids").iterdir())
    levels = ["level-1", "level-2", "seen"]
    assert names == [f"{level}.{kind}" for level in levels for kind in ("gif", "mp4")]
    shared = read_video(page.parent / "grids" / "level-2.mp4")
    embedded = read_video(webm)
    assert shared.shape == embedded.shape
    assert (shared.float() - embedded.float()).abs().mean() < 4


@pytest.mark.parametrize(
    "kind", ["stopped", "failed", "unscored", "absent", "broken", "tokenizer", "split"]
)
def test_a_run_without_scores_is_named_with_the_reason(studio: MakeStudio, kind: str) -> None:
    made = studio()
    run = made.root / "flow-s1"
    if kind == "tokenizer":
        made.tokenizer("flow-s1")
    elif kind != "absent":
        made.generator("flow-s1", scored=kind in ("unscored", "broken", "split"))
    if kind == "failed":
        (run / FAILED).write_text("10 steps in a row had a gradient that is not finite\ndetails")
    if kind == "unscored":
        (run / "scores.json").unlink()
    if kind == "broken":
        (run / "scores.json").write_text('{"judge": "factors", "scores": {"factors": {}}}')
    if kind == "split":
        known = json.loads((run / "environment.json").read_text())
        (run / "environment.json").write_text(json.dumps(known | {"split_hash": "of another"}))
    page = report(made, [made.generator("maskgit-s0"), run])
    reasons = {
        "split": "trained on split of another, its config gives ",
        "stopped": "stopped at step 40 of 100",
        "failed": "10 steps in a row had a gradient that is not finite",
        "unscored": "trained, but not scored",
        "absent": "not started",
        "broken": "its records lack 'sample_s'",
        "tokenizer": "a tokenizer's run",
    }
    assert reasons[kind] in Reader(page).text
    whole, missing = record_of(page)["runs"]
    assert (whole["name"], missing["name"]) == ("maskgit-s0", "flow-s1")
    assert missing["scores"] == {} and missing["ceilings"] == {"real": {}, "reconstruction": {}}


def test_a_study_without_any_score_is_still_a_report(studio: MakeStudio) -> None:
    made = studio()
    page = report(made, [made.generator("maskgit-s0", scored=False)], probes=[made.root / "none"])
    assert "No run has been scored yet" in Reader(page).text


def test_images_are_clips_of_one_frame(studio: MakeStudio) -> None:
    factors = {"shape": ["circle", "square"], "colour": ["red", "blue"]}
    made = studio(factors=factors, novel={"shape": ["square"], "colour": ["blue"]}, num_frames=1)
    page = report(made, [made.generator("maskgit-s0", examples=True)])
    assert record_of(page)["runs"][0]["scores"]["level-1"]["per_frame"] != []
    assert len(read_video(page.parent / "grids" / "seen.mp4")) == 1 + 6


def test_of_many_combinations_a_few_are_shown_and_the_caption_says_so(studio: MakeStudio) -> None:
    factors = {
        "shape": ["circle", "square", "triangle", "star"],
        "colour": ["red", "blue", "green"],
        "size": ["large", "small"],
    }
    novel = {"shape": ["star"], "colour": ["green"], "size": ["small"]}
    made = studio(factors=factors, novel=novel, num_frames=1)
    text = Reader(report(made, [made.generator("maskgit-s0", examples=True)])).text
    assert re.search(r"[5-8] of 17 seen combinations shown\. ", " ".join(text.split()))


def test_seeds_of_one_configuration_share_a_row(studio: MakeStudio) -> None:
    made = studio()
    one = [made.generator("flow-s0", objective="flow")]
    assert "ranks nothing" in Reader(report(made, one)).text
    page = report(made, [*one, made.generator("flow-s1", objective="flow", seed=1)])
    text = words_of(page)
    assert "mean of seeds 0, 1" in text and "ranks nothing" not in text
    assert "flow was trained on" in text
    assert [run["name"] for run in record_of(page)["runs"]] == ["flow-s0", "flow-s1"]
    assert "flow-s0 factors" in text and "flow-s1 factors" in text  # where runs stand alone


def test_runs_on_different_splits_stand_in_different_tables(studio: MakeStudio) -> None:
    made = studio()
    factors = {"shape": ["circle", "square"], "colour": ["red", "blue"]}
    other = studio(factors=factors, novel={"shape": ["square"]}, num_frames=1, root="other")
    runs = [made.generator("maskgit-s0"), other.generator("flow-s0", examples=True)]
    page = report(made, runs)
    assert Reader(page).text.count("What was held out") == 2
    assert (page.parent / "grids" / "seen-2.mp4").is_file()


def test_numbers_are_written_for_people() -> None:
    assert [percent(x) for x in (0.9375, 1.0, 0.0, None)] == [
        "93.8\u202f%",
        "100\u202f%",
        "0\u202f%",
        "–",
    ]
    assert [number(x) for x in (1_234_567, 0.012345, 12.34, 300.0, None)] == [
        "1\u202f234\u202f567",
        "0.0123",
        "12.3",
        "300",
        "–",
    ]
    assert [duration(x) for x in (8.21, 725, 12_000, None)] == [
        "8.2 s",
        "12 min 5 s",
        "3 h 20 min",
        "–",
    ]
