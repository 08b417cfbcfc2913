"""A network whose inside is known: what probes of it should find can be said in advance."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vidcomp.probes.base import ClipSet, Model, Score, Subject
from vidcomp.probes.base_network import NetworkProbe
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

FACTORS = choose(
    {"shape": ["circle", "square"], "colour": ["red", "blue"], "motion": ["up", "left"]}
)
TWO_FACTORS = choose({"shape": ["circle", "square"], "colour": ["red", "blue"]})
SPLIT = SplitConfig().build(FACTORS)


@dataclass
class Toy:
    """`inside` is the answer to every question; what was asked is noted."""

    inside: Tensor
    random: Tensor | None = None
    asked: list[tuple[str, float, bool]] = field(default_factory=list)

    def hidden(self, clips: ClipSet, level: float, *, told: bool) -> Tensor:
        return self._answer("hidden", clips, level, told)

    def hidden_told(
        self, clips: ClipSet, level: float, factors: Sequence[int], *, pooled: bool = True
    ) -> Tensor:
        """Nothing of `inside` but what `factors` are multiplied into."""
        seen = self._answer("hidden_told", clips, level, bool(factors))
        weights = noise(len(FACTORS), seen.shape[-1])[list(factors)]
        return seen + (signs(clips.classes)[:, list(factors)] @ weights)[:, None]

    def heads(self, clips: ClipSet, level: float, *, told: bool) -> Tensor:
        return self._answer("heads", clips, level, told)

    def influence(self, clips: ClipSet, level: float, *, told: bool) -> Tensor:
        return self._answer("influence", clips, level, told)

    def untrained(self) -> Model:
        return Toy(self.inside if self.random is None else self.random)

    def _answer(self, question: str, clips: ClipSet, level: float, told: bool) -> Tensor:
        assert len(clips.video) == len(self.inside)
        self.asked.append((question, level, told))
        return self.inside


def balanced(copies: int) -> Tensor:
    """Classes of clips: every combination so many times."""
    return FACTORS.combinations().repeat(copies, 1)


def clips_of(classes: Tensor) -> ClipSet:
    num_clips, num_factors = classes.shape
    return ClipSet(
        torch.zeros(num_clips, 3, 1, 2, 2), classes, torch.zeros(num_clips, num_factors, 3)
    )


def signs(classes: Tensor) -> Tensor:
    """-1 or 1 for each factor of two classes."""
    return 2.0 * classes - 1


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found_by(probe: NetworkProbe, toy: Toy, classes: Tensor) -> dict[str, Score]:
    """What is said of the network, without the prefix ``network/``."""
    subject = Subject({"real": clips_of(classes)}, SPLIT, model=toy)
    scores = probe.run(subject).scores
    return {k.removeprefix("network/"): s for k, s in scores.items() if k.startswith("network/")}
