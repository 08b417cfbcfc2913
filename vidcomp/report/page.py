"""The report: ``report.html`` for people, ``report.json`` for tools, ``report.md`` (a study's
tables) and ``grids/*.mp4`` to pass on.

The page is one file that needs nothing else: styles, plots and clips are inside it. It answers in
the order in which a reader asks: what came out, what it looks like, what was held out, how it
fails, how far to trust it, what it cost, how to make it again.
"""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor
from torch.nn import functional as F

from vidcomp.media import write_bytes, write_gif, write_video
from vidcomp.report import figures, judges, lengths, measures, tables
from vidcomp.report.collect import (
    MissingRun,
    ScoredRun,
    TrainedTokenizer,
    World,
    collect_run,
    collect_tokenizer,
    worlds,
)
from vidcomp.report.coverage import coverage_picture
from vidcomp.report.grids import PIXELS_PER_PAGE_PIXEL, LevelGrid, level_grid
from vidcomp.report.markdown import markdown
from vidcomp.report.questions import Questions
from vidcomp.report.reading import plain_name, read_json
from vidcomp.report.records import ReportRecord, ScoreRecord
from vidcomp.report.rule import RULE
from vidcomp.report.verdicts import claim_rows, compared
from vidcomp.runs import environment
from vidcomp.world.coverage import coverage_of_combinations, coverage_text

Accuracy = dict[str, dict[str, ScoreRecord]]
"""Of a judge, by source and factor."""


@dataclass(frozen=True)
class Film:
    """A grid on the page. Sizes are in pixels of the page; `file` lies beside it."""

    grid: LevelGrid
    source: str
    file: str

    @property
    def width(self) -> int:
        return self.grid.video.shape[2] // PIXELS_PER_PAGE_PIXEL

    @property
    def height(self) -> int:
        return self.grid.video.shape[1] // PIXELS_PER_PAGE_PIXEL


def write_report(
    out: Path,
    *,
    study: str,
    runs: Sequence[Path],
    tokenizers: Sequence[Path],
    probes: Sequence[Path],
    commands: Sequence[str],
    wall_s: float,
    questions: Questions | None = None,
) -> Path:
    """Write the report of run folders into `out`; returns the path of the page.

    `probes` are the folders of the judges. Runs without scores are named with the reason.
    """
    questions = questions or Questions()
    (out / "grids").mkdir(parents=True, exist_ok=True)
    collected = [collect_run(folder) for folder in runs]
    scored = [run for run in collected if isinstance(run, ScoredRun)]
    trained = [collect_tokenizer(folder) for folder in tokenizers]
    here = environment()
    records = [questions.record(run) for run in collected]
    record = ReportRecord(
        study=study,
        commit=here["commit"],
        device=here["device"],
        versions=here["versions"],
        wall_s=wall_s,
        runs=records,
        claims=questions.answer(records),
        tuning=list(questions.tuning),
        left_out=list(questions.left_out),
    )
    _write_text(out / "report.json", json.dumps(record.model_dump(), indent=1, allow_nan=False))
    if tables_of_cells := markdown(record):
        _write_text(out / "report.md", tables_of_cells)
    found = worlds(scored)
    first_seeds = [group.runs[0].folder for world in found for group in world.groups]
    judged = [p for folder in probes if (p := _probe_accuracy(folder))]
    page = _template().render(
        record=record,
        worlds=[_world_view(world, trained, judged, out, k) for k, world in enumerate(found)],
        claims=claim_rows(record.claims),
        rule=RULE,
        compared=compared(records),
        missing=[run for run in collected if isinstance(run, MissingRun)],
        costs=tables.costs(scored, trained),
        drawings=tables.drawings(scored),
        tokenizers=trained,
        tokenizer_pictures=[p for t in trained if (p := figures.reconstruction(t))],
        configs=_configs([*tokenizers, *probes, *first_seeds]),
        elsewhere=[run for run in scored if _made_elsewhere(run, record)],
        commands=commands,
    )
    _write_text(out / "report.html", page)
    return out / "report.html"


def _world_view(
    world: World,
    tokenizers: Sequence[TrainedTokenizer],
    judged: Sequence[Accuracy],
    out: Path,
    number: int,
) -> dict[str, Any]:
    """All that the page says of one world."""
    names = set(world.clips.factors.names)
    levels = world.split.level_names
    files = {level: f"grids/{level}{f'-{number + 1}' if number else ''}.mp4" for level in levels}
    grids = {level: level_grid(world, level) for level in levels}
    coverage = coverage_of_combinations(world.split)
    return {
        "world": world,
        "levels": levels,
        "counts": {level: len(world.split.combinations_of(level)) for level in levels},
        "colours": {level: figures.level_colour(level) for level in levels},
        "factors": world.clips.factors,
        "num_seeds": min(len(group.runs) for group in world.groups),
        "max_seeds": max(len(group.runs) for group in world.groups),
        "joint": tables.joint(world),
        "ceilings": tables.ceilings(world),
        "films": [_film(grid, out, files[level]) for level, grid in grids.items() if grid],
        "coverage": coverage_picture(coverage),
        "coverage_text": coverage_text(coverage),
        "per_factor": tables.per_factor(world),
        "frame_pictures": [figures.by_frame(group, levels) for group in world.groups],
        "training_pictures": [figures.training(group, levels) for group in world.groups],
        "courses": measures.courses(world),
        "products": measures.products(world),
        "compositions": measures.compositions(world),
        "in_space": measures.in_space(world),
        "recalls": lengths.recalls(world),
        "counted": min((recall for _, recall in lengths.ceiling(world)), default=None),
        "leakages": lengths.leakages(world),
        "together": lengths.together(world),
        "spaces": measures.spaces(world),
        "tokenizers": tables.tokenizer_rows(world, tokenizers),
        "probe": next((a for a in judged if set(next(iter(a.values()))) == names), {}),
        "sources": judges.SOURCES,
        "agreement": judges.agreement(world),
        "second_opinion": judges.second_opinion(world),
        "disagreements": judges.disagreements(world),
    }


def page_sized(video: UInt8[Tensor, "t H W 3"]) -> UInt8[Tensor, "t h w 3"]:
    """A grid at the size of the page: a quarter of the pixels, which a GIF hardly compresses."""
    pixels = rearrange(video.float(), "t h w c -> t c h w")
    smaller = F.avg_pool2d(pixels, PIXELS_PER_PAGE_PIXEL).round().to(torch.uint8)
    return rearrange(smaller, "t c h w -> t h w c")


def _film(grid: LevelGrid, out: Path, file: str) -> Film:
    """Write the grid as mp4 and GIF beside the page, and as WebM into it, which browsers play."""
    write_video(out / file, grid.video, fps=grid.fps, codec="h264")
    write_gif((out / file).with_suffix(".gif"), page_sized(grid.video), fps=grid.fps)
    with tempfile.TemporaryDirectory() as folder:
        webm = Path(folder) / "grid.webm"
        write_video(webm, grid.video, fps=grid.fps, codec="vp9")
        content = base64.b64encode(webm.read_bytes()).decode()
    return Film(grid, f"data:video/webm;base64,{content}", file)


def _probe_accuracy(folder: Path) -> Accuracy:
    """The judge's accuracy on held-out clips, by source and factor; empty if it is not known."""
    if not (folder / "probe.json").is_file():
        return {}
    accuracy: Mapping[str, Mapping[str, Any]] = read_json(folder / "probe.json")["accuracy"]
    return {
        _plain(source): {name: ScoreRecord.model_validate(score) for name, score in scores.items()}
        for source, scores in accuracy.items()
    }


def _plain(source: str) -> str:
    """``reconstruction by fsq``, where a store has a longer name for it."""
    head, by, folder = source.rpartition(" by ")
    return f"{head}{by}{plain_name(Path(folder))}" if by else source


def _configs(folders: Sequence[Path]) -> dict[str, str]:
    """The resolved configs, by folder."""
    paths = [folder / "config.yaml" for folder in folders]
    return {path.parent.name: path.read_text() for path in paths if path.is_file()}


def _made_elsewhere(run: ScoredRun, record: ReportRecord) -> bool:
    made = run.environment
    return (made["commit"], made["device"]) != (record.commit, record.device)


def _template():
    environment = Environment(
        loader=PackageLoader("vidcomp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, duration=duration, signed=signed)
    return environment.get_template("page.html.j2")


def percent(share: int | float | None) -> str:
    """``93.8 %``, ``100 %``, and a dash for what was not measured."""
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + "\u202f%"


def number(value: int | float | None, digits: int = 3) -> str:
    """A count with its thousands apart, or `digits` significant digits."""
    if value is None:
        return "–"
    if isinstance(value, int) or value >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """``+0.42``, ``−0.05``, and a dash for what was not measured."""
    return "–" if value is None else f"{value:+.3g}".replace("-", "\u2212")


def duration(seconds: int | float | None) -> str:
    """``8.2 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())
