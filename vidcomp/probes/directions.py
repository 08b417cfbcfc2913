"""Feature space: does every concept have directions of its own inside the network?

arXiv:2509.16447 holds that a generator which composes is local in some feature space if it is not
in pixels, and tests it by the angles between mean shifts (`base_directions`). Here a concept is one
class of one factor, z_i the hidden state after a layer, averaged over positions or of all of them
(`per_token`), of a clip that shows concept i, noised or hidden up to a level, when the network is
**told that concept and nothing else**; the background are all clips, told nothing. (Where factors
were never dropped in training, both are new to the network.) The clips are taken as they come: if
two concepts are shown together more often than others, their shifts have something in common.

Keys: ``level/<t>/layer/<l>/`` and ``within``, ``across``, ``gap``, ``auc``, ``minimum``, see
`base_directions`; and ``locality``, feature-space conditional locality [OWN]. For clip x and
factors j, k of it:

    B[j, k] = mean over x of |P_j(x) (z(x told all) - z(x told all but k))|

P_j(x) projects on the `components` largest principal directions of z(x told j alone) - z(x told
nothing), over other clips of the same concept. The score is the share trace(B) / sum(B): 1 if a
condition moves nothing but its own directions, 1 / F if directions and conditions have nothing to
do with each other (chance). Tables: ``cosines`` (concepts, factor by factor; those that no clip
shows are left out) and ``regions``, B.

Random directions of a wide network are nearly at right angles too: both measures may look better in
an untrained one, so read them beside each other. Intervals are those of other clips, not of other
concepts.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Findings, Model, refuse_no_factors
from vidcomp.probes.base_directions import (
    FEWEST_GROUPS,
    NUM_GROUPS,
    Concepts,
    Measured,
    components,
    deal,
    jackknife,
)
from vidcomp.world.factors import Factors


class Config(base_network.Config):
    """`also_at`: levels beside `level`. `per_token`, `components`: see the module's text."""

    clips: PositiveInt = 400
    also_at: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.1, 0.9)
    per_token: bool = False
    components: PositiveInt = 2

    def build(self, factors: Factors) -> "Directions":
        return Directions(self, factors)


class Directions(base_network.NetworkProbe[Config]):
    """See the module's text."""

    def look(self, model: Model, clips: ClipSet) -> Findings:
        found = self.measure(model, clips)
        tables = {f"{place}/cosines": table for place, table in found.cosines.items()}
        tables |= {f"{place}/regions": table for place, table in found.regions.items()}
        return Findings(found.scores, tables=tables)

    def measure(self, model: Model, clips: ClipSet) -> Measured:
        """Everything, at each level and layer."""
        refuse_no_factors(self.factors)
        shown = [
            (f, k) for f in range(len(self.factors)) for k in clips.classes[:, f].unique().tolist()
        ]
        items = self.factors.items
        names = tuple(f"{items[f].name}={items[f].class_names[k]}" for f, k in shown)
        measured = Measured(Concepts(names, tuple(items[f].name for f, _ in shown)))
        group = self._groups(clips.classes, shown)
        for level in sorted({self.config.level, *self.config.also_at}):
            self._at_level(measured, model, clips, level, shown, group)
        return measured

    def _groups(
        self, classes: Int64[Tensor, "b f"], shown: Sequence[tuple[int, int]]
    ) -> Int64[Tensor, " b"]:
        """As many as there may be with clips of every concept in each."""
        cells = self.factors.combination_ids(classes)
        for num_groups in range(NUM_GROUPS, FEWEST_GROUPS - 1, -1):
            group = deal(cells, num_groups)
            counts = [group[classes[:, f] == k].unique().numel() for f, k in shown]
            if min(counts) == num_groups:
                return group
        raise UserError(
            f"directions deals clips to {FEWEST_GROUPS} groups or more with every concept in each; "
            f"{len(classes)} clips are too few of some: give it more"
        )

    def _at_level(
        self,
        measured: Measured,
        model: Model,
        clips: ClipSet,
        level: float,
        shown: Sequence[tuple[int, int]],
        group: Int64[Tensor, " b"],
    ) -> None:
        columns = range(len(self.factors))

        def told(factors: Sequence[int]) -> Float[Tensor, "b layers c"]:
            return model.hidden_told(clips, level, factors, pooled=not self.config.per_token)

        nothing, everything = told(()), told(columns)
        alone = [told((f,)) for f in columns]
        without = [told([f for f in columns if f != k]) for k in columns]
        for layer in range(nothing.shape[1]):
            place = f"level/{level:g}/layer/{layer}"
            background, all_told = nothing[:, layer], everything[:, layer]
            states = [z[:, layer] for z in alone]
            shifts = mean_shifts(states, background, clips.classes, shown, group)
            measured.add(place, shifts, count=len(group))
            added = [z - background for z in states]
            removed = torch.stack([all_told - z[:, layer] for z in without], dim=1)
            moved = moves(added, removed, clips.classes, group % 2, self.config.components)
            measured.regions[place] = moved.mean(0)
            kept = [moved, *(moved[group != g] for g in range(int(group.max()) + 1))]
            share = torch.stack([diagonal_share(clips.mean(0)) for clips in kept])
            score = jackknife(share, count=len(group), chance=1 / len(self.factors))
            measured.scores[f"{place}/locality"] = score


def mean_shifts(
    states: Sequence[Float[Tensor, "b c"]],
    background: Float[Tensor, "b c"],
    classes: Int64[Tensor, "b f"],
    concepts: Sequence[tuple[int, int]],
    group: Int64[Tensor, " b"],
) -> Float[Tensor, "g n c"]:
    """d_i of each concept (factor, class) in each group of clips; `states` of each factor are those
    that were told of it."""
    of_groups: list[Tensor] = []
    for g in range(int(group.max()) + 1):
        here = group == g
        means = [states[f][here & (classes[:, f] == k)].mean(0) for f, k in concepts]
        of_groups.append(torch.stack(means) - background[here].mean(0))
    return torch.stack(of_groups)


def moves(
    added: Sequence[Float[Tensor, "b c"]],
    removed: Float[Tensor, "b f c"],
    classes: Int64[Tensor, "b f"],
    half: Int64[Tensor, " b"],
    num_components: int,
) -> Float[Tensor, "b f f"]:
    """How far removing condition k (last axis) moves clip x along the directions of its concept of
    factor j. `added`: what being told of each factor alone changes. Directions are found on the
    other half of the clips."""
    moved = removed.new_zeros(len(half), len(added), len(added))
    for j, change in enumerate(added):
        for k in classes[:, j].unique().tolist():
            shows = classes[:, j] == k
            for h in (0, 1):
                directions = components(change[shows & (half != h)], num_components)
                rows = shows & (half == h)
                moved[rows, j] = (removed[rows] @ directions.mT).norm(dim=-1)
    return moved


def diagonal_share(matrix: Float[Tensor, "f f"]) -> Float[Tensor, ""]:
    """Of the sum of all entries; as by chance if they are all zero."""
    total = matrix.sum()
    return torch.where(total > 0, matrix.trace() / total, 1 / len(matrix)).double()
