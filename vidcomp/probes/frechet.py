"""How far the samples of a level are from its real clips, as distributions of features.

``frechet`` is the Frechet distance of two Gaussians (arXiv:1706.08500; for clips arXiv:1812.01717):
|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). ``kernel`` is the squared maximum mean discrepancy with
the kernel (x y / d + 1)^3, unbiased (arXiv:1801.01401): near 0, and as often below it as above, for
samples of the same distribution. The Frechet distance is not unbiased: the fewer the samples, the
larger it is, so compare it only at equal counts. With fewer samples than dimensions a covariance
has not been measured at all: such a value is flagged.

The 95 % intervals come from groups of samples: of `frechet` by leaving one group out (jackknife),
of `kernel` from its values on disjoint groups. They do not contain the bias. For ``real``, one half
of the real clips is compared with the other: a floor, at half the count.
"""

import math

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_features
from vidcomp.probes.base import Findings, Score, Space, Subject, rows_by_level
from vidcomp.seeding import permutation
from vidcomp.world.factors import Factors

_GROUPS = 10
_LEAST_OF_A_GROUP = 2
_LEAST_CLIPS = 4


class Config(base_features.Config):
    """Nothing to set: other kernels would give other numbers under the same names."""

    def build(self, factors: Factors) -> "Frechet":
        return Frechet()


class Frechet(base_features.FeatureProbe):
    """``samples/<level>/frechet``, ``samples/<level>/kernel``."""

    def compare(self, subject: Subject, space: Space) -> Findings:
        real = space.points("real").double()
        real_rows = rows_by_level(subject.split, subject.sets["real"])
        findings = Findings()
        for source, clips in subject.sets.items():
            points = space.points(source).double()
            for level, rows in rows_by_level(subject.split, clips).items():
                of_level = points[rows]
                if level not in real_rows:
                    raise UserError(f"there is no real clip at {level} to compare {source} with")
                reference = real[real_rows[level]]
                if source == "real":
                    order = permutation(0, "halves", len(of_level))
                    of_level, reference = of_level[order].tensor_split(2)
                for name, count in (("real clips", len(reference)), (source, len(of_level))):
                    if count < _LEAST_CLIPS:
                        raise UserError(
                            f"{level}: {count} of {name} are too few for a distance, which takes "
                            f"{_LEAST_CLIPS}: raise sampling.clips_per_level, or the dataset's size"
                        )
                flag = _too_few(min(len(of_level), len(reference)), points.shape[1])
                at, n = f"{source}/{level}", int(rows.sum())
                for name, distance in (("frechet", leaving_out), ("kernel", in_groups)):
                    value, half = distance(of_level, reference)
                    low = value - half if name == "kernel" else max(0.0, value - half)
                    score = Score(value, low, value + half, n, flag=flag)
                    findings.scores[f"{at}/{name}"] = score
        return findings


def frechet_distance(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> float:
    """Of the Gaussians with the means and covariances of two samples, which may be degenerate.

    With C = F^T F, the trace of (C1 C2)^(1/2) is the sum of the singular values of F1 F2^T. So
    nothing is inverted, and no root is taken of what rounding made negative.
    """
    shift = (one.mean(0) - other.mean(0)).square().sum()
    first, second = _root(one), _root(other)
    common = torch.linalg.svdvals(first @ second.T).sum()
    return max(0.0, float(shift + first.square().sum() + second.square().sum() - 2 * common))


def kernel_distance(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Eq. 4 of arXiv:1801.01401)."""
    n, m = len(one), len(other)
    within_one, within_other = _kernel(one, one), _kernel(other, other)
    own = (within_one.sum() - within_one.trace()) / (n * (n - 1))
    others = (within_other.sum() - within_other.trace()) / (m * (m - 1))
    return float(own + others - 2 * _kernel(one, other).mean())


def leaving_out(
    points: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]
) -> tuple[float, float]:
    """The Frechet distance and half of its interval: `points` without one group at a time."""
    groups = _groups(len(points))
    keep = torch.ones(len(groups), len(points), dtype=torch.bool)
    for g, group in enumerate(groups):
        keep[g, group] = False
    left = torch.tensor([frechet_distance(points[rows], reference) for rows in keep])
    num = len(groups)
    deviation = math.sqrt((num - 1) / num * float((left - left.mean()).square().sum()))
    return frechet_distance(points, reference), _t(num) * deviation


def in_groups(points: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> tuple[float, float]:
    """The kernel distance and half of its interval, from as many groups of both as there can be."""
    num = min(len(_groups(len(points))), len(_groups(len(reference))))
    pairs = zip(_groups(len(points), num), _groups(len(reference), num), strict=True)
    values = torch.tensor([kernel_distance(points[a], reference[b]) for a, b in pairs])
    half = _t(num) * float(values.std()) / math.sqrt(num)
    return kernel_distance(points, reference), half


def _root(points: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """F with F^T F the covariance."""
    centred = (points - points.mean(0)) / math.sqrt(len(points) - 1)
    return torch.linalg.qr(centred, mode="r").R


def _kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _groups(count: int, num: int | None = None) -> list[Tensor]:
    """Rows in `num` groups, drawn: clips may stand in an order."""
    num = num or min(_GROUPS, count // _LEAST_OF_A_GROUP)
    return list(permutation(0, "groups", count).tensor_split(num))


def _t(num: int) -> float:
    return float(stats.t.ppf(0.975, num - 1))


def _too_few(count: int, dimensions: int) -> str:
    return f"{count} clips for {dimensions} dimensions" if count <= dimensions else ""
