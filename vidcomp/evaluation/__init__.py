"""What comes after training: samples on disk, the judge that reads them, and scores with their
ceilings."""

from vidcomp.evaluation.judge import ProbeFit, fit_probe, judge_digest
from vidcomp.evaluation.samples import sample_run, write_samples
from vidcomp.evaluation.scores import Scoring, probe_run, summary

__all__ = [
    "ProbeFit",
    "Scoring",
    "fit_probe",
    "judge_digest",
    "probe_run",
    "sample_run",
    "summary",
    "write_samples",
]
