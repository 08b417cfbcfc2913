"""Mistakes in what is asked of a study's runs beside their training, found before anything runs."""

from collections.abc import Mapping

from pydantic import ValidationError

from vidcomp.config import UserError, explain
from vidcomp.evaluation import Scoring
from vidcomp.runs import GeneratorRun, TrainConfig
from vidcomp.study.config import Cell, StudyConfig, Trial, require_name
from vidcomp.study.scoring import tried_sampling
from vidcomp.world.splits import Split


def check_trials(
    trials: Mapping[str, Trial], *, cell: str, run: GeneratorRun, world: str, split: Split
) -> None:
    """Raises UserError if a trial cannot be drawn from the run of a cell."""
    left = steps_left(run.train)
    for name, trial in trials.items():
        tried_sampling(run.sampling, trial)
        asked = not trial.cells or cell in trial.cells
        if asked and trial.checkpoint not in (None, *left):
            raise UserError(
                f"trial {name}: of cell {cell} no checkpoint of step {trial.checkpoint} will be "
                f"left; legal: {', '.join(map(str, left))}, or others by train.checkpoint_every "
                "and train.keep_checkpoints"
            )
        for level in trial.levels:
            require_level(level, world, split, f"trial {name}")


def steps_left(train: TrainConfig) -> list[int]:
    """The steps of the checkpoints that a finished training leaves."""
    every = train.checkpoint_every
    return [*range(every, train.steps, every), train.steps][-train.keep_checkpoints :]


def check_also(config: StudyConfig, cells: Mapping[str, Cell]) -> None:
    """Raises UserError if there is no such probe or cell."""
    try:
        asked = [{"name": name, **also.set} for name, also in config.also.items()]
        Scoring.model_validate({"probe": "", "also": asked})
    except ValidationError as error:
        raise UserError(f"study {config.name}: {explain(error)}") from None
    looked = {f"also {probe}": also.cells for probe, also in config.also.items()}
    tried = {f"trial {name}": trial.cells for name, trial in config.trials.items()}
    for asker, looked_at in {**looked, **tried}.items():
        for cell in looked_at:
            require_name(cell, cells, f"{asker}: cell")


def check_claims(
    config: StudyConfig, cells: Mapping[str, Cell], splits: Mapping[str, Split]
) -> None:
    """Raises UserError if a claim names a cell, world or level that there is not; `splits` are
    those of the worlds that are not left out."""
    for name, claim in config.claims.items():
        for cell in (*claim.higher, *claim.lower):
            require_name(cell, cells, f"claim {name}: cell")
        for world in claim.worlds:
            require_name(world, config.worlds, f"claim {name}: world")
        for world, split in splits.items():
            if claim.measure.of != "probe" and world in (claim.worlds or (world,)):
                require_level(claim.measure.level, world, split, f"claim {name}")


def require_level(level: str, world: str, split: Split, asker: str) -> None:
    """Raise UserError if no clip of a world can be at `level`."""
    if level not in split.level_names:
        raise UserError(
            f"{asker}: no clip of world {world} is at {level!r} of its split; "
            f"legal: {', '.join(split.level_names)}"
        )
