"""Runs: what one training run is told, and the folder that it leaves."""

from vidcomp.runs.config import (
    EvaluateConfig,
    GeneratorRun,
    Run,
    SamplingConfig,
    TokenizerRun,
    TrainConfig,
    load_run,
    out_of,
)
from vidcomp.runs.folder import (
    checkpoints,
    default_folder,
    finished,
    load_judge,
    newest_checkpoint,
    open_folder,
    refuse_changed_inputs,
    refuse_other_run,
    require_run,
    rows_for,
    sampling_of,
    weights_digest,
)
from vidcomp.runs.provenance import commit, environment, read_environment, write_json
from vidcomp.runs.weights import fill, load_generator, load_tokenizer, refuse_changed_tokenizer

__all__ = [
    "EvaluateConfig",
    "GeneratorRun",
    "Run",
    "SamplingConfig",
    "TokenizerRun",
    "TrainConfig",
    "checkpoints",
    "commit",
    "default_folder",
    "environment",
    "fill",
    "finished",
    "load_generator",
    "load_judge",
    "load_run",
    "load_tokenizer",
    "newest_checkpoint",
    "open_folder",
    "out_of",
    "read_environment",
    "refuse_changed_inputs",
    "refuse_changed_tokenizer",
    "refuse_other_run",
    "require_run",
    "rows_for",
    "sampling_of",
    "weights_digest",
    "write_json",
]
