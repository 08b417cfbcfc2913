"""What probes of a network's inside share: `heads`, `circuits`, `layers`, `directions`.

They look at real clips that nothing was trained on, and answer twice: for the ``network``, and for
an ``untrained`` one, the same with the entries of each weight tensor in a random order. A freshly
initialised network would be no baseline, because its gates are zero: its blocks do nothing.

They are slow and not about samples, so they are asked by name only.
"""

import itertools
from abc import ABC, abstractmethod
from typing import Annotated, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import ClipSet, Findings, Model, Probe, Score, Subject
from vidcomp.seeding import permutation
from vidcomp.world.factors import Factors

NUM_SHUFFLES = 5
"""Of the labels, to see what chance gives."""


class Config(base.Config, ABC):
    """`level`: how much of a clip is shown, on the schedule of the objective. `clips`: at most.
    `checkpoints`: the last one, or all that are left."""

    level: Annotated[float, Field(ge=0, lt=1)] = 0.5
    clips: PositiveInt = 800
    checkpoints: Literal["last", "all"] = "last"


AnyConfig = TypeVar("AnyConfig", bound=Config)


class NetworkProbe(Probe, ABC, Generic[AnyConfig]):
    """A question about a network."""

    def __init__(self, config: AnyConfig, factors: Factors) -> None:
        self.config = config
        self.factors = factors

    @abstractmethod
    def look(self, model: Model, clips: ClipSet) -> dict[str, Score] | Findings:
        """Scores; `Findings` if there are tables too."""

    def run(self, subject: Subject) -> Findings:
        name = self.config.name
        if subject.model is None:
            raise UserError(f"{name} looks inside a network, and none was given")
        if "real" not in subject.sets:
            raise UserError(f"{name} looks at what a network makes of real clips; there are none")
        clips = spread_out(subject.sets["real"], self.config.clips)
        findings = Findings()
        models = {"network": subject.model, "untrained": subject.model.untrained()}
        for source, model in models.items():
            seen = self.look(model, clips)
            found = seen if isinstance(seen, Findings) else Findings(seen)
            findings.scores.update({f"{source}/{key}": s for key, s in found.scores.items()})
            findings.tables.update({f"{source}/{key}": t for key, t in found.tables.items()})
        return findings


def spread_out(clips: ClipSet, most: int) -> ClipSet:
    """At most so many clips, evenly over all of them: they may be sorted."""
    rows = torch.linspace(0, len(clips.video) - 1, min(most, len(clips.video))).round().long()
    return clips[rows]


def factor_pairs(factors: Factors) -> dict[str, tuple[int, int]]:
    """The columns of each pair of factors, by name: ``shape+colour``."""
    columns = itertools.combinations(range(len(factors)), 2)
    return {f"{factors.names[f]}+{factors.names[g]}": (f, g) for f, g in columns}


def refuse_one_pair(factors: Factors, probe: str) -> None:
    """Raise UserError unless there are two pairs of factors."""
    if len(factors) < 3:
        raise UserError(
            f"{probe} must hold across two pairs of factors or more, which takes three factors; "
            f"these clips have {len(factors)}"
        )


def shuffled(classes: Int64[Tensor, "b f"]) -> list[Int64[Tensor, "b f"]]:
    """The same labels on other clips, several times."""
    names = [f"shuffle {i}" for i in range(NUM_SHUFFLES)]
    return [classes[permutation(0, name, len(classes))] for name in names]


def one_hot(ids: Int64[Tensor, " b"], size: int) -> Float[Tensor, "b k"]:
    """Rows of the identity, in double precision."""
    return torch.eye(size, dtype=torch.float64)[ids]
