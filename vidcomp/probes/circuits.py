"""Circuit overlap: do two combinations use the same neurons?

The first paper finds the most influential neurons of each combination and takes the Jaccard overlap
of two such sets (arXiv:2510.03075, on mechanisms); measure of influence and size of the
sets are not told. Here [OWN]:

* Neurons are the hidden units of all MLPs. The influence of neuron u on clip i is
  |sum over positions of a_u dQ_i/da_u|, activation x gradient, to first order what Q_i loses if the
  neuron is silenced. Q_i is the mean log-probability of the true codes at hidden positions, or
  minus the mean squared error of the predicted latents. For a combination it is the mean over
  clips that show it.
* Its circuit is the k neurons of largest influence: k = `share` (5 %) of all, at least 1.
* The overlap of two circuits is |A and B| / |A or B|. A is found on one half of the first
  combination's clips and B on the other half of the second one's, so that the overlap of a
  combination with itself is a ceiling: what noise leaves of 100 %.

Chance is the expected overlap of two random sets of k neurons, whose intersection is
hypergeometric. The network is told the factors, as at sampling. Keys: ``shared/<s>``, the mean
over pairs of combinations that share s factors (all of them: the ceiling), and ``pair/<f>+<g>``,
over those that agree in all other factors: a claim must hold in at least two of these rows. The
intervals take pairs of combinations for independent, which makes them too narrow.
"""

from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from scipy import stats
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Model, Score, mean_score
from vidcomp.probes.base_network import factor_pairs, refuse_one_pair
from vidcomp.world.factors import Factors


class Config(base_network.Config):
    """`share` of the neurons that is a circuit."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def build(self, factors: Factors) -> "Circuits":
        return Circuits(self, factors)


class Circuits(base_network.NetworkProbe[Config]):
    """See the module's text."""

    def look(self, model: Model, clips: ClipSet) -> dict[str, Score]:
        refuse_one_pair(self.factors, self.config.name)
        influence = model.influence(clips, self.config.level, told=True).flatten(1).abs()
        combinations, halves = means_of_halves(influence, clips.classes)
        num_neurons = influence.shape[1]
        k = max(1, round(self.config.share * num_neurons))
        one, other = (strongest(of_half, k) for of_half in halves)
        overlap = overlaps(one, other)
        overlap = (overlap + overlap.mT) / 2
        chance = chance_overlap(num_neurons, k)

        same = combinations[:, None] == combinations[None]  # n n f
        num_shared = same.sum(-1)
        once = torch.ones_like(overlap, dtype=torch.bool).triu()
        where = {f"shared/{s}": once & (num_shared == s) for s in range(len(self.factors) + 1)}
        for name, (f, g) in factor_pairs(self.factors).items():
            others = [i for i in range(len(self.factors)) if i not in (f, g)]
            where[f"pair/{name}"] = once.triu(1) & same[..., others].all(-1)
        return {
            key: mean_score(overlap[pairs])._replace(chance=chance)
            for key, pairs in where.items()
            if pairs.any()
        }


def means_of_halves(
    influence: Float[Tensor, "b n"], classes: Int64[Tensor, "b f"]
) -> tuple[Int64[Tensor, "m f"], Float[Tensor, "2 m n"]]:
    """The combinations that two clips or more show, and of each the mean influence in either half
    of its clips."""
    combinations, ids, counts = classes.unique(dim=0, return_inverse=True, return_counts=True)
    enough = (counts > 1).nonzero()[:, 0]
    if len(enough) < 2:
        raise UserError(
            f"circuits compares combinations that two clips or more show; {len(classes)} clips "
            f"show {len(enough)} of them: give it more"
        )
    rows = [(ids == i).nonzero()[:, 0] for i in enough.tolist()]
    halves = [torch.stack([influence[r[half::2]].mean(0) for r in rows]) for half in (0, 1)]
    return combinations[enough], torch.stack(halves)


def strongest(influence: Float[Tensor, "m n"], k: int) -> Bool[Tensor, "m n"]:
    """The `k` neurons of largest influence of each row."""
    if int((influence > 0).sum(1).min()) < k:
        raise UserError(
            f"circuits are {k} neurons, and fewer of this network have any influence; train it for "
            "longer, or name a smaller share"
        )
    return torch.zeros_like(influence, dtype=torch.bool).scatter_(
        1, influence.topk(k).indices, True
    )


def overlaps(one: Bool[Tensor, "m n"], other: Bool[Tensor, "m n"]) -> Float[Tensor, "m m"]:
    """|A and B| / |A or B| of each row of `one` with each of `other`."""
    both = one.double() @ other.double().mT
    return both / (one.sum(1)[:, None] + other.sum(1)[None] - both)


def chance_overlap(num_neurons: int, k: int) -> float:
    """E[x / (2k - x)], x hypergeometric: of two sets of `k` neurons that have nothing to do with
    each other."""
    x = np.arange(k + 1)
    return float((stats.hypergeom.pmf(x, num_neurons, k, k) * x / (2 * k - x)).sum())
