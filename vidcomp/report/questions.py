"""What a study asks of its runs: where each belongs, the claims, and what was left out.

A report can be written without: then it says what the runs are, and compares nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidcomp.report.claims import Asked, Claim, judge_claims
from vidcomp.report.collect import MissingRun, ScoredRun
from vidcomp.report.records import ClaimRecord, RunRecord, ScoreRecord, TuningRecord


@dataclass(frozen=True)
class Place:
    """Of a run in a study. `modules`: its parameters, by what they are for."""

    world: str
    cell: str
    seed: int
    modules: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Questions:
    """`places` by the names of the runs' folders, `asked` by world."""

    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    claims: Mapping[str, Claim] = field(default_factory=dict[str, Claim])
    asked: Mapping[str, Asked] = field(default_factory=dict[str, Asked])
    tuning: Sequence[TuningRecord] = ()
    left_out: Sequence[str] = ()

    def record(self, run: ScoredRun | MissingRun) -> RunRecord:
        """A run with its place, and with the scores of other probes that claims ask for."""
        place = self.places.get(run.name)
        known = run.record()
        if place is None:
            return known
        place_of = {"world": place.world, "cell": place.cell, "seed": place.seed}
        if isinstance(run, MissingRun):
            return known.model_copy(update=place_of)
        probes: dict[str, dict[str, ScoreRecord]] = {}
        for measure in (claim.measure for claim in self.claims.values()):
            score = run.scores.get(measure.probe, {}).get(measure.score)
            if score is not None:
                probes.setdefault(measure.probe, {})[measure.score] = score
        return known.model_copy(
            update={**place_of, "modules": dict(place.modules), "probes": probes}
        )

    def answer(self, runs: Sequence[RunRecord]) -> list[ClaimRecord]:
        """The claims, judged."""
        return judge_claims(self.claims, runs, self.asked)
