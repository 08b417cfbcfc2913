"""What each layer knows of each factor, and whether factors are added up there.

z_i is the hidden state after a layer for clip i, averaged over positions, of the network that is
shown the clip up to `level` and is **told nothing**: told the factors, every layer would know them.
(Where factors were never dropped in training, being told nothing is new to the network.)

``layer/<l>/factor/<f>``: accuracy of a linear probe on held-out clips. Half of the clips, at
random, fit a ridge regression on one-hot classes, W = (X^T X + lambda n I)^-1 X^T Y with X
standardised and lambda = 0.01; the other half is read, by the largest output. Chance is the
accuracy of the same with shuffled labels in the fit.

``layer/<l>/additivity/<f>+<g>``: how far m_ab = E[z | f = a, g = b] is from m_a + m_b - m, the sum
of the factors' own directions:

    sum_ab |m_ab - m_a - m_b + m|^2 / sum_ab |m_ab - m|^2

where m_a, m_b and m are means of m_ab: 0 if factors add up, 1 if only their interaction is there
(XOR). Noise counts as interaction, the more the fewer clips; chance, with shuffled labels, says how
much. The interval is the jackknife's over ten groups of clips. A pair of factors with a pair of
classes that fewer than two clips show is left out; a claim must hold for two pairs or more.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from pydantic import PositiveInt
from scipy import stats
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Model, Score, proportion, refuse_no_factors
from vidcomp.probes.base_network import factor_pairs, one_hot, shuffled
from vidcomp.seeding import permutation
from vidcomp.world.factors import Factors

_RIDGE = 0.01
_GROUPS = 10


class Config(base_network.Config):
    """Nothing more to set."""

    clips: PositiveInt = 1000

    def build(self, factors: Factors) -> "Layers":
        return Layers(self, factors)


class Layers(base_network.NetworkProbe[Config]):
    """See the module's text."""

    def look(self, model: Model, clips: ClipSet) -> dict[str, Score]:
        refuse_no_factors(self.factors)
        if len(clips.classes) < 4:
            raise UserError(f"layers fits and checks on {len(clips.classes)} clips; give it more")
        hidden = model.hidden(clips, self.config.level, told=False).double()
        scores: dict[str, Score] = {}
        for layer, z in enumerate(hidden.unbind(1)):
            for name, score in self._linear(z, clips.classes).items():
                scores[f"layer/{layer}/factor/{name}"] = score
            for name, (f, g) in factor_pairs(self.factors).items():
                sizes = (self.factors.sizes[f], self.factors.sizes[g])
                score = interaction(z, clips.classes[:, [f, g]], sizes)
                if score is not None:
                    scores[f"layer/{layer}/additivity/{name}"] = score
        return scores

    def _linear(self, z: Float[Tensor, "b c"], classes: Int64[Tensor, "b f"]) -> dict[str, Score]:
        order = permutation(0, "layers", len(z))
        fitted, held_out = order[::2], order[1::2]
        labels = [classes[fitted], *shuffled(classes[fitted])]
        sizes = self.factors.sizes
        goals = [one_hot(c[:, f], size) for c in labels for f, size in enumerate(sizes)]
        read = ridge(z[fitted], torch.cat(goals, 1), z[held_out]).split(sizes * len(labels), dim=1)
        right = [out.argmax(1) == classes[held_out, i % len(sizes)] for i, out in enumerate(read)]
        scores: dict[str, Score] = {}
        for f, name in enumerate(self.factors.names):
            chance = torch.stack(right[f + len(sizes) :: len(sizes)]).float().mean()
            scores[name] = proportion(right[f], chance=float(chance))
        return scores


def ridge(
    x: Float[Tensor, "n c"], y: Float[Tensor, "n k"], fresh: Float[Tensor, "m c"]
) -> Float[Tensor, "m k"]:
    """What ridge regression of `y` on standardised `x` says of `fresh`."""
    mean, std = x.mean(0), x.std(0).clamp_min(1e-9)
    x, fresh = (x - mean) / std, (fresh - mean) / std
    penalty = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(x.mT @ x + penalty, x.mT @ (y - y.mean(0)))
    return fresh @ weights + y.mean(0)


def interaction(
    z: Float[Tensor, "b c"], classes: Int64[Tensor, "b 2"], sizes: tuple[int, int]
) -> Score | None:
    """The share of the variance between cells of two factors that is not additive."""
    cells = classes[:, 0] * sizes[1] + classes[:, 1]
    if int(torch.bincount(cells, minlength=sizes[0] * sizes[1]).min()) < 2:
        return None
    value, without = _with_jackknife(z, cells, sizes)
    by_chance = [_with_jackknife(z, labels[:, 0], sizes)[0] for labels in shuffled(cells[:, None])]
    error = ((_GROUPS - 1) / _GROUPS * (without - without.mean()).square().sum()).sqrt()
    half = float(stats.t.ppf(0.975, _GROUPS - 1) * error)
    found = float(value)
    chance = float(torch.stack(by_chance).mean())
    return Score(found, max(0.0, found - half), min(1.0, found + half), len(z), chance)


def _with_jackknife(
    z: Float[Tensor, "b c"], cells: Int64[Tensor, " b"], sizes: tuple[int, int]
) -> tuple[Float[Tensor, ""], Float[Tensor, " groups"]]:
    """The share with all clips, and without each tenth of them."""
    num_cells = sizes[0] * sizes[1]
    # Clips of a cell are dealt out to the groups in turn, so no cell loses its last one.
    group = torch.empty_like(cells)
    group[cells.argsort(stable=True)] = torch.arange(len(cells)) % _GROUPS
    member = one_hot(group * num_cells + cells, _GROUPS * num_cells)  # b (groups cells)
    counts = member.sum(0).unflatten(0, (_GROUPS, num_cells))[..., None]
    sums = (member.mT @ z).unflatten(0, (_GROUPS, num_cells))
    kept = torch.cat([sums.sum(0)[None], sums.sum(0) - sums])
    means = kept / torch.cat([counts.sum(0)[None], counts.sum(0) - counts])
    shares = _not_additive(means.unflatten(1, sizes))
    return shares[0], shares[1:]


def _not_additive(means: Float[Tensor, "g A B c"]) -> Float[Tensor, " g"]:
    centred = means - means.mean((1, 2), keepdim=True)
    residual = centred - centred.mean(1, keepdim=True) - centred.mean(2, keepdim=True)
    axes: Any = (1, 2, 3)
    return residual.square().sum(axes) / centred.square().sum(axes).clamp_min(1e-300)
