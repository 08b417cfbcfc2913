"""The probe `directions` asked of a run without a judge: what ``tools/directions.py RUN`` shows."""

from pathlib import Path

from vidcomp.config import RootSettings
from vidcomp.datasets.base import build
from vidcomp.evaluation.clips import clip_set
from vidcomp.evaluation.model_access import ModelAccess
from vidcomp.evaluation.samples import generator_of
from vidcomp.probes.base_directions import Measured
from vidcomp.probes.base_network import spread_out
from vidcomp.probes.directions import Config
from vidcomp.storage import prepare

_MAX_CLIPS = 2000
"""From which those that are looked at are taken evenly."""


class RunDirections(RootSettings):
    """The probe's settings."""

    probe: Config = Config()


def measure_run(folder: Path, asked: RunDirections) -> dict[str, Measured]:
    """In the last checkpoint's network, and in the same untrained."""
    pipeline, run = generator_of(folder)
    assert pipeline.generator is not None
    prepare(run.data)
    dataset, split = build(run.data)
    clips = spread_out(clip_set(dataset, "scoring", _MAX_CLIPS), asked.probe.clips)
    model = ModelAccess(pipeline.generator, pipeline.tokenizer)
    probe = asked.probe.build(split.factors)
    models = {"network": model, "untrained": model.untrained()}
    return {source: probe.measure(network, clips) for source, network in models.items()}
