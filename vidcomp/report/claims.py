"""Claims: what a paper says of several configurations, and whether these runs bear it out.

A claim is some comparisons of two cells, each decided by the one `report.rule`; here is what is
measured, and where there is nothing to decide on. "As good as" is a comparison with a negative
effect, and "alike" is two of those.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, model_validator

from vidcomp.config import Settings
from vidcomp.report.records import ClaimRecord, ComparisonRecord, RunRecord
from vidcomp.report.rule import MIN_PAIRS, decide, t_interval, together

EMERGED = 0.5
"""Joint accuracy above which a level has emerged, if it stays there."""

_OF_RUN = "\0"  # between a run's name and what it lacks


class Measure(Settings):
    """A number of a run.

    ``end``: joint accuracy of the scored samples. From the curve over training:
    ``peak_minus_last``; ``emergence``, the share of training after which it is above 50 % for good;
    ``jump``, the largest rise from one evaluation to the next. ``fallback``: of the failures that
    show one combination in every frame, the share that show a trained one, less its chance.
    ``probe``: the score `score` of the probe `probe`, or of the judge on the samples of `trial`.
    """

    of: Literal["end", "peak_minus_last", "emergence", "jump", "fallback", "probe"] = "end"
    level: str = "level-2"
    probe: str = ""
    trial: str = ""
    score: str = ""

    @model_validator(mode="after")
    def _names_a_score(self) -> "Measure":
        named = bool(self.probe) != bool(self.trial) and bool(self.score)
        if (self.of == "probe") != named or (self.trial and self.of != "probe"):
            raise ValueError(
                "of: probe takes 'score', and 'probe' or 'trial'; nothing else takes them"
            )
        return self


class Claim(Settings):
    """Every cell of `higher` against every other of `lower`; without `lower`, against zero.

    `paper`: its numbers, to be read. `min_effect`: the smallest difference that counts. `floor`:
    the mean that one of the compared cells must reach. `after_steps`: training steps below which
    nothing is said. `worlds`: all, if none is named. `own`: not the paper's, but a control of it.
    """

    text: str
    paper: str = ""
    higher: tuple[str, ...]
    lower: tuple[str, ...] = ()
    min_effect: float
    measure: Measure = Measure()
    floor: float | None = None
    after_steps: NonNegativeInt = 0
    worlds: tuple[str, ...] = ()
    own: bool = False

    @property
    def pairs(self) -> list[tuple[str, str | None]]:
        """Cells, and those that they should exceed."""
        if not self.lower:
            return [(cell, None) for cell in self.higher]
        return [(a, b) for a, b in itertools.product(self.higher, self.lower) if a != b]


@dataclass(frozen=True)
class Asked:
    """What the runs should have: `clips` samples of each level, and these cells at this size."""

    clips: int
    cells: tuple[str, ...]


def judge_claims(
    claims: Mapping[str, Claim], runs: Sequence[RunRecord], worlds: Mapping[str, Asked]
) -> list[ClaimRecord]:
    """A record for each claim and world."""
    found: list[ClaimRecord] = []
    for name, claim in claims.items():
        for world in claim.worlds or tuple(worlds):
            if world not in worlds:
                continue
            here = [run for run in runs if run.world == world]
            compared = [judge(claim, pair, here, worlds[world]) for pair in claim.pairs]
            found.append(
                ClaimRecord(
                    id=name,
                    text=claim.text,
                    paper=claim.paper,
                    own=claim.own,
                    world=world,
                    measure=_in_words(claim.measure),
                    min_effect=claim.min_effect,
                    after_steps=claim.after_steps,
                    verdict=together(c.verdict for c in compared),
                    comparisons=compared,
                )
            )
    return found


def judge(
    claim: Claim, pair: tuple[str, str | None], runs: Sequence[RunRecord], asked: Asked
) -> ComparisonRecord:
    """One comparison, in one world."""
    cells = [cell for cell in pair if cell is not None]
    notes: list[str] = []
    values: dict[str, dict[int, float]] = {cell: {} for cell in cells}
    for cell in cells:
        if cell not in asked.cells:
            notes.append(f"{cell} is not part of this study at this size")
        for run in (r for r in runs if r.cell == cell and r.seed is not None):
            value = measured(run, claim, asked)
            if isinstance(value, str):
                notes.append(f"{run.name}{_OF_RUN}{value}")
            else:
                assert run.seed is not None
                values[cell][run.seed] = value
    ours = values[cells[0]]
    theirs = values[cells[1]] if len(cells) > 1 else dict.fromkeys(ours, 0.0)
    seeds = sorted(ours.keys() & theirs.keys())
    differences = [ours[s] - theirs[s] for s in seeds]
    interval = t_interval(differences)
    verdict = decide(interval, claim.min_effect)
    if len(seeds) < MIN_PAIRS:
        verdict = "not decided"
        notes.insert(0, f"{len(seeds)} pair{'' if len(seeds) == 1 else 's'} of seeds")
    best = max((math.fsum(v.values()) / len(v) for v in values.values() if v), default=math.nan)
    if claim.floor is not None and not best >= claim.floor:
        verdict = "not decided"
        if not math.isnan(best):
            notes.append(f"the best mean is {best:.3g}, below the floor of {claim.floor:g}")
    return ComparisonRecord(
        higher=pair[0],
        lower=pair[1],
        seeds=seeds,
        differences=differences,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        verdict=verdict,
        notes=_shortened(notes),
    )


def measured(run: RunRecord, claim: Claim, asked: Asked) -> float | str:
    """The number that a claim is about, or why there is none."""
    if run.reason:
        return run.reason
    if (run.steps or 0) < claim.after_steps:
        return f"trained {run.steps:,} steps, the claim is about {claim.after_steps:,} and more"
    measure = claim.measure
    if measure.of == "probe":
        trial = run.trials.get(measure.trial)
        scores = trial.scores if trial else run.probes.get(measure.probe, {})
        score = scores.get(measure.score)
        asked_as = f"probe {measure.probe}" if measure.probe else f"trial {measure.trial}"
        missing = f"not measured in these runs ({asked_as})"
        return missing if score is None or score.value is None else score.value
    scored = run.scores.get(measure.level)
    if scored is None:
        return f"not scored on {measure.level}"
    if scored.joint.n < asked.clips:
        return f"{scored.joint.n} samples of {measure.level}, {asked.clips} were asked for"
    if measure.of == "end":
        return "no number" if scored.joint.value is None else scored.joint.value
    if measure.of == "fallback":
        score = run.fallback.get(measure.level)
        if score is None or score.value is None or score.chance is None:
            return f"no failure on {measure.level} to look at"
        return score.value - score.chance
    return _of_curve(measure, run)


def _of_curve(measure: Measure, run: RunRecord) -> float | str:
    curve = run.curves.get(measure.level, [])
    if len(curve) < 2:
        return f"no curve of {measure.level}"
    values = [value for _, value in curve]
    match measure.of:
        case "peak_minus_last":
            return max(values) - values[-1]
        case "jump":
            return max(after - before for before, after in itertools.pairwise(values))
        case _:
            step = emerged_at(curve)
            if step is None:
                return f"{measure.level} does not stay above {EMERGED:.0%}"
            return step / curve[-1][0]


def emerged_at(curve: Sequence[tuple[float, float]]) -> float | None:
    """The first step from which on joint accuracy stays above `EMERGED`; None if it does not."""
    below = [k for k, (_, value) in enumerate(curve) if value <= EMERGED]
    first = below[-1] + 1 if below else 0
    return None if first == len(curve) else curve[first][0]


def _in_words(measure: Measure) -> str:
    match measure.of:
        case "end":
            return f"joint accuracy on {measure.level}"
        case "peak_minus_last":
            return f"peak minus end of {measure.level} over training"
        case "emergence":
            return f"share of training until {measure.level} stays above {EMERGED:.0%}"
        case "jump":
            return f"largest rise of {measure.level} between evaluations"
        case "fallback":
            return (
                f"share of failures on {measure.level} that show a trained combination, less chance"
            )
        case "probe":
            return f"{measure.score} of {measure.probe or f'samples as in {measure.trial}'}"


def _shortened(notes: Sequence[str]) -> list[str]:
    """A reason that several runs have is told once, with their number."""
    runs: dict[str, list[str]] = {}
    for note in notes:
        name, _, reason = note.rpartition(_OF_RUN)
        runs.setdefault(reason, []).append(name)
    return [
        f"{reason} ({len(names)} runs)"
        if len(names) > 1
        else ": ".join(filter(None, (*names, reason)))
        for reason, names in runs.items()
    ]
