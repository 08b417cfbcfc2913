"""Polysemantic heads: the share of attention heads that respond to several factors at once.

The first paper counts a head "when the feature similarity difference exceeds a threshold"
(arXiv:2510.03075, on mechanisms) and says neither which similarity nor which threshold; a
reviewer asked that it hold across several pairs of factors. Our definition [OWN]:

* z_i: what the head writes for clip i, averaged over positions, less its mean over clips;
  s_ij = cos(z_i, z_j).
* The similarity difference of factor f, which has K_f classes:
  D_f = (1 - 1/K_f) (E[s_ij | i and j show the same combination]
  - E[s_ij | they differ in f and in nothing else]).
  It is 1 for a head that writes one vector for each class of f and sees nothing else, 0 for one
  that does not see f; in between it is about the share of the head's variance that f makes.
* The head responds to f if D_f > `threshold` (0.2), is polysemantic in the pair (f, g) if it
  responds to both, and **polysemantic** if it is so in at least two pairs.

The network is told the factors, as at sampling. Chance is the same share with shuffled labels; of
an untrained network most heads are polysemantic, since it mixes whatever it is told.
Keys: ``layer/<l>``, ``overall``, ``pair/<f>+<g>``, ``factor/<f>`` (heads that respond to it).
"""

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Model, Score, proportion
from vidcomp.probes.base_network import factor_pairs, refuse_one_pair, shuffled
from vidcomp.world.factors import Factors

_LEAST_PAIRS = 2


class Config(base_network.Config):
    """`threshold`: see the module's text."""

    clips: PositiveInt = 400
    threshold: PositiveFloat = 0.2

    def build(self, factors: Factors) -> "Heads":
        return Heads(self, factors)


class Heads(base_network.NetworkProbe[Config]):
    """See the module's text."""

    def look(self, model: Model, clips: ClipSet) -> dict[str, Score]:
        refuse_one_pair(self.factors, self.config.name)
        written = model.heads(clips, self.config.level, told=True)
        similar = [similarities(of_layer) for of_layer in written.unbind(1)]
        found = self._shares(similar, clips.classes)
        by_chance = [self._shares(similar, labels) for labels in shuffled(clips.classes)]
        return {
            key: proportion(
                hits,
                chance=float(torch.stack([c[key].float().mean() for c in by_chance]).mean()),
            )
            for key, hits in found.items()
        }

    def _shares(
        self, similar: list[Float[Tensor, "h b b"]], classes: Int64[Tensor, "b f"]
    ) -> dict[str, Bool[Tensor, " n"]]:
        """For every key, which of the heads that it is about are counted."""
        sizes = torch.tensor(self.factors.sizes)
        differ = torch.stack([differences(s, classes) for s in similar]) * (1 - 1 / sizes)
        responds = differ > self.config.threshold  # layers h f
        shares: dict[str, Tensor] = {}
        num_pairs = torch.zeros(responds.shape[:2])  # layers h
        for name, (f, g) in factor_pairs(self.factors).items():
            both = responds[..., f] & responds[..., g]
            shares[f"pair/{name}"] = both.flatten()
            num_pairs += both
        polysemantic = num_pairs >= _LEAST_PAIRS
        shares["overall"] = polysemantic.flatten()
        for layer, of_layer in enumerate(polysemantic):
            shares[f"layer/{layer}"] = of_layer
        for f, name in enumerate(self.factors.names):
            shares[f"factor/{name}"] = responds[..., f].flatten()
        return shares


def similarities(written: Float[Tensor, "b h d"]) -> Float[Tensor, "h b b"]:
    """s_ij of each head."""
    z = F.normalize(written - written.mean(0), dim=-1).transpose(0, 1)  # h b d
    return z @ z.mT


def differences(
    similar: Float[Tensor, "h b b"], classes: Int64[Tensor, "b f"]
) -> Float[Tensor, "h f"]:
    """D_f of each head and factor, before it is scaled."""
    differs = classes[:, None] != classes[None]  # b b f
    alone = differs.sum(-1) == 1
    same = (differs.sum(-1) == 0).fill_diagonal_(False)
    columns = [same, *(alone & differs[..., f] for f in range(classes.shape[1]))]
    if not all(pairs.any() for pairs in columns):
        raise UserError(
            f"heads compares clips of one combination, and clips that differ in one factor alone; "
            f"among {len(classes)} clips there are none for some factor: give it more"
        )
    means = [similar[:, pairs].mean(1) for pairs in columns]
    return torch.stack([means[0] - of_factor for of_factor in means[1:]], dim=-1)
