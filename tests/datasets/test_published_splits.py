"""The splits of the shipped configs of published videos: what a generator sees of them."""

import pytest
from tiny import ROOT

from vidcomp.datasets.base import DataRoot
from vidcomp.datasets.covla import MANOEUVRES, TIMES
from vidcomp.world.annotations import counted, happens, labelled
from vidcomp.world.factors import Factor, FactorClass, Factors


def seen(config: str, factors: Factors) -> set[str]:
    """The combinations to train on, in words."""
    split = DataRoot.load(ROOT / "configs" / "data" / f"{config}.yaml").data.split.build(factors)
    return {factors.describe(classes) for classes in split.combinations_of("seen")}


def test_covla_holds_out_what_the_paper_does() -> None:
    factors = Factors(
        tuple(
            Factor(name, tuple(map(FactorClass, classes)))
            for name, classes in (("time", TIMES), ("manoeuvre", MANOEUVRES))
        )
    )
    assert seen("covla", factors) == {"day left", "day straight", "night right", "night straight"}


@pytest.mark.parametrize(
    ("config", "event", "counts", "many"),
    [
        ("clevrer", "collision", range(1, 7), 5),
        ("movi", "collision", range(3, 11), 7),
        ("cater", "containment", range(5, 11), 8),
    ],
)
def test_events_among_many_objects_are_held_out(
    config: str, event: str, counts: range, many: int
) -> None:
    clips = [(count, what) for count in counts for what in (False, True)]
    factors, _ = labelled(
        counted("count", [count for count, _ in clips]), happens(event, [what for _, what in clips])
    )
    expected = {f"{n} {word}" for n in counts for word in ("none", "some")}
    assert seen(config, factors) == expected - {f"{n} some" for n in counts if n >= many}
