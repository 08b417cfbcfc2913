"""The plan of a study: every run, where it lies, and that all of it can be built.

Runs, tokenizers and judges lie in a store, in folders named after the hash of their resolved
config: ``runs/store/generator-maskgit-0123456789ab``. A generator's config names the folders of its
tokenizer and judge, so its hash stands for theirs too. What is there is never made again, whichever
study asks for it; a store can be copied together from several machines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidcomp.config import UserError, nearest, read_yaml
from vidcomp.datasets.base import DataConfig, DataRoot
from vidcomp.evaluation import ProbeFit
from vidcomp.evaluation.judge import judge_of
from vidcomp.models.backbone import BackboneConfig
from vidcomp.models.generator import Generator
from vidcomp.pipeline.sampling import default_sampler
from vidcomp.probes.base import PROBES
from vidcomp.report.claims import Asked
from vidcomp.runs import GeneratorRun, TokenizerRun, load_run
from vidcomp.study.cells import axes_of, cells_of, resolve
from vidcomp.study.checks import check_also, check_claims, check_trials
from vidcomp.study.config import Cell, StudyConfig, Trial, World, require_name
from vidcomp.study.scoring import Trials
from vidcomp.study.tuning import Tuned, load_tuned, trials_of
from vidcomp.world.factors import Factors
from vidcomp.world.splits import Split


@dataclass(frozen=True)
class PlannedTokenizer:
    yaml: str
    run: TokenizerRun
    folder: Path


@dataclass(frozen=True)
class PlannedJudge:
    fit: ProbeFit
    folder: Path


@dataclass(frozen=True)
class PlannedWorld:
    """A world with its folders. `tokenizers` by the names that generators use; `judge` is None if
    it needs no fitting."""

    name: str
    config: World
    data: DataConfig
    factors: Factors
    split: Split
    tokenizers: dict[str, PlannedTokenizer]
    judge: PlannedJudge | None

    @property
    def probe(self) -> str:
        """What scoring is told: the judge's folder, or the name of one that needs no fitting."""
        return self.config.probe if self.judge is None else str(self.judge.folder)

    def tokenizer(self, name: str, asker: str) -> PlannedTokenizer:
        """By name, or by the YAML that it has here."""
        of_yaml = {planned.yaml: planned for planned in self.tokenizers.values()}
        known = of_yaml | self.tokenizers
        if name not in known:
            raise UserError(
                f"{asker}: world {self.name} has no tokenizer {name!r}; "
                f"{nearest(name, self.tokenizers)}"
            )
        return known[name]


@dataclass(frozen=True)
class PlannedRun:
    """`name`: of its link in the study's folder."""

    name: str
    world: PlannedWorld
    cell: Cell
    run: GeneratorRun
    folder: Path
    tokenizer: PlannedTokenizer

    def build(self, backbone: BackboneConfig | None = None) -> Generator:
        """The generator with fresh weights, or with another trunk."""
        config = self.run.generator
        if backbone is not None:
            config = config.model_copy(update={"backbone": backbone})
        return config.build(self.tokenizer.run.tokenizer.build().spec, self.world.factors)


@dataclass(frozen=True)
class Plan:
    """A study, resolved. Runs come seed by seed, so that what is there early can be compared."""

    config: StudyConfig
    worlds: tuple[PlannedWorld, ...]
    cells: tuple[Cell, ...]
    runs: tuple[PlannedRun, ...]
    tuned: Tuned | None
    left_out: tuple[str, ...] = ()
    trials: Mapping[str, Trial] = field(default_factory=dict[str, Trial])

    def asked_of(self, cell: Cell) -> Trials:
        """What is asked of the runs of a cell beside their scores."""
        trials = {
            name: trial.model_copy(update={"cells": ()})
            for name, trial in self.trials.items()
            if not trial.cells or cell.name in trial.cells
        }
        also = self.config.also.items()
        probes = [(name, a.set) for name, a in also if not a.cells or cell.name in a.cells]
        named = tuple({"name": name, **settings} if settings else name for name, settings in probes)
        return Trials(trials=trials, also=named)

    @property
    def asked(self) -> dict[str, Asked]:
        """What the runs of each world should have, for claims."""
        cells = tuple(cell.name for cell in self.cells)
        clips = {run.world.name: run.run.sampling.clips_per_level for run in self.runs}
        return {world.name: Asked(clips[world.name], cells) for world in self.worlds}


def make_plan(config: StudyConfig) -> Plan:
    """Raises UserError at the first thing in any cell that cannot be."""
    every_cell = cells_of(config)
    names = {cell.name: cell for cell in every_cell}
    for name in config.omitted:
        require_name(name, {**names, **config.worlds}, "leave_out: cell or world")
    cells = [cell for cell in every_cell if cell.name not in config.omitted]
    world_names = [name for name in config.worlds if name not in config.omitted]
    if not cells or not world_names or not config.run_seeds:
        raise UserError(f"study {config.name}: nothing is left to run; see leave_out and seeds")
    tuned = load_tuned(config.tuned, axes_of(config))
    trials = {**config.trials, **trials_of(config, cells)}
    check_also(config, names)
    worlds = [plan_world(name, config.worlds[name], Path(config.store)) for name in world_names]
    planned = [plan_cell(config, cell, world, tuned) for world in worlds for cell in cells]
    for p in planned:
        check_trials(trials, cell=p.cell.name, run=p.run, world=p.world.name, split=p.world.split)
    several = len(worlds) > 1
    runs = [with_seed(p, seed, config, several) for seed in config.run_seeds for p in planned]
    check_claims(config, names, {world.name: world.split for world in worlds})
    left_out = [f"{name}: left out at this size" for name in dict.fromkeys(config.omitted)]
    return Plan(config, tuple(worlds), tuple(cells), tuple(runs), tuned, tuple(left_out), trials)


def plan_world(name: str, config: World, store: Path) -> PlannedWorld:
    """Raises UserError if its YAMLs are of the wrong kind or of other data."""
    root = DataRoot.load(config.data)
    tokenizers: dict[str, PlannedTokenizer] = {}
    for called, path in config.tokenizers.items():
        run, _ = load_run(path)
        if not isinstance(run, TokenizerRun):
            raise UserError(f"world {name}: {path} is a generator's, not a tokenizer's")
        _refuse_other_data(run.data, root.data, path, config.data)
        folder = store / f"tokenizer-{run.name}-{run.digest}"
        tokenizers[called] = PlannedTokenizer(path, run, folder)
    dataset = (root.data.render or root.data.dataset).build()
    split = root.data.split.build(dataset.factors)
    known = (name, config, root.data, dataset.factors, split, tokenizers)
    if config.probe in PROBES.names():
        judge_of(config.probe, dataset)  # raises if it has to be fitted
        return PlannedWorld(*known, None)
    fit = ProbeFit.load(config.probe)
    _refuse_other_data(fit.data, root.data, config.probe, config.data)
    # Pixels themselves look as the clips do, and the judge stays that of studies without them.
    lossy = [planned for planned in tokenizers.values() if not planned.run.tokenizer.is_lossless]
    looks = tuple(str(planned.folder) for planned in lossy)
    fit = fit.model_copy(update={"tokenizers": looks})
    return PlannedWorld(*known, PlannedJudge(fit, store / f"judge-{fit.name}-{fit.digest}"))


def plan_cell(
    config: StudyConfig, cell: Cell, world: PlannedWorld, tuned: Tuned | None
) -> PlannedRun:
    """One run of a cell, built once to see that it can be, with a narrow trunk: that is quick."""
    where = f"study {config.name}, world {world.name}, cell {cell.name}"
    data: dict[str, Any] = read_yaml(world.config.data)["data"]
    run = resolve(config, cell, world.name, data, tuned)
    tokenizer = world.tokenizer(run.tokenizer, where)
    jepa = "_jepa" if run.generator.jepa else ""
    changes: dict[str, Any] = {
        "name": f"{run.generator.objective.name}{jepa}",  # of content alone: studies share runs
        "tokenizer": str(tokenizer.folder),
    }
    if run.evaluate is not None:
        if world.judge is None:
            raise UserError(f"{where}: evaluate: curves take a fitted judge; set evaluate: null")
        changes["evaluate"] = run.evaluate.model_copy(update={"probe": world.probe})
    planned = PlannedRun("", world, cell, run.model_copy(update=changes), Path(), tokenizer)
    depth = run.generator.backbone.dimensions[0]
    try:
        objective = planned.build(BackboneConfig(depth=depth, width=16, heads=2)).objective
        sampler = run.sampling.sampler or default_sampler(objective.schedule)
        sampler.build(objective.schedule)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return planned


def with_seed(planned: PlannedRun, seed: int, config: StudyConfig, several: bool) -> PlannedRun:
    """`several`: there is more than one world, so the name tells which."""
    run = planned.run.model_copy(update={"seed": seed})
    prefix = f"{planned.world.name}-" if several else ""
    return replace(
        planned,
        name=f"{prefix}{planned.cell.name}-s{seed}",
        run=run,
        folder=Path(config.store) / f"generator-{run.name}-{run.digest}",
    )


def _refuse_other_data(theirs: DataConfig, ours: DataConfig, path: str, data: str) -> None:
    if theirs != ours:
        raise UserError(f"{path} has other 'data' than {data}; a world has one")
