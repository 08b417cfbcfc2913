"""Studies: many runs from one YAML, compared over seeds, and claims judged by them."""

from vidcomp.study.config import StudyConfig
from vidcomp.study.plan import make_plan
from vidcomp.study.run import listing, report_study, run_study
from vidcomp.study.scoring import Trials, score_run

__all__ = [
    "StudyConfig",
    "Trials",
    "listing",
    "make_plan",
    "report_study",
    "run_study",
    "score_run",
]
