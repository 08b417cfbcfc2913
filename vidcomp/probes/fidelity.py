"""How faithful reconstructions are: PSNR, SSIM and flicker of ``reconstruction`` against ``real``.

All three are computed for each clip, with pixels in [0, 1], and averaged over clips with a
Student-t interval. The PSNR is the mean of the clips' PSNRs, not the PSNR of their mean error.

SSIM follows Wang et al. 2004 (doi:10.1109/TIP.2003.819861): 11 x 11 Gaussian windows of 1.5 pixels,
only those that lie wholly inside the frame, K1 = 0.01, K2 = 0.03, on each colour channel.
Flicker is ours and simple: the mean over pixels of |(y_k - y_{k-1}) - (x_k - x_{k-1})|, what
changes in the reconstruction y and not in the clip x, or the other way round; 0 for one frame.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base
from vidcomp.probes.base import Findings, Subject, mean_score, rows_by_level
from vidcomp.types import Video
from vidcomp.world.factors import Factors

_WINDOW_PX = 11
_WINDOW_SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # (K L)^2, the range L of the pixels being 1
_LEAST_MSE = 1e-10
"""Equal clips have 100 dB, not infinitely many."""

_CLIPS_AT_A_TIME = 64


class Config(base.Config):
    """Nothing to set: other windows would give other numbers under the same names."""

    def build(self, factors: Factors) -> "Fidelity":
        return Fidelity()


class Fidelity(base.Probe):
    """``reconstruction/<level>/psnr_db``, ``.../ssim``, ``.../flicker``."""

    @torch.no_grad()
    def run(self, subject: Subject) -> Findings:
        missing = [source for source in ("real", "reconstruction") if source not in subject.sets]
        if missing:
            raise UserError(
                "fidelity compares 'reconstruction' with 'real', row by row; "
                f"the subject lacks {missing[0]!r}"
            )
        real, made = subject.sets["real"], subject.sets["reconstruction"]
        if made.video.shape != real.video.shape:
            raise UserError(
                f"row i of 'reconstruction' is row i of 'real', but their shapes are "
                f"{tuple(made.video.shape)} and {tuple(real.video.shape)}"
            )
        measures = {"psnr_db": psnr_db, "ssim": ssim, "flicker": flicker}
        findings = Findings()
        for name, measure in measures.items():
            pairs = zip(
                made.video.split(_CLIPS_AT_A_TIME), real.video.split(_CLIPS_AT_A_TIME), strict=True
            )
            values = torch.cat([measure(y, x) for y, x in pairs])
            findings.arrays[f"reconstruction/{name}"] = values
            for level, rows in rows_by_level(subject.split, real).items():
                findings.scores[f"reconstruction/{level}/{name}"] = mean_score(values[rows])
        return findings


def psnr_db(made: Video, real: Video) -> Float[Tensor, " b"]:
    """10 log10(1 / MSE) of each clip, pixels in [0, 1]."""
    mse = ((made - real) / 2).square().mean((1, 2, 3, 4))
    return -10 * mse.clamp_min(_LEAST_MSE).log10()


def ssim(made: Video, real: Video) -> Float[Tensor, " b"]:
    """Mean structural similarity of each clip; 1 for equal clips."""
    if min(real.shape[3:]) < _WINDOW_PX:
        raise UserError(
            f"SSIM needs frames of at least {_WINDOW_PX} x {_WINDOW_PX} pixels, "
            f"got {real.shape[3]} x {real.shape[4]}; leave 'fidelity' out for smaller ones"
        )
    x, y = ((video.double() + 1) / 2 for video in (real, made))
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x = _smooth(x * x) - mean_x.square()
    var_y = _smooth(y * y) - mean_y.square()
    covariance = _smooth(x * y) - mean_x * mean_y
    similarity = (  # Eq. 13
        (2 * mean_x * mean_y + _C1)
        * (2 * covariance + _C2)
        / ((mean_x.square() + mean_y.square() + _C1) * (var_x + var_y + _C2))
    )
    return similarity.mean((1, 2, 3, 4)).float()


def flicker(made: Video, real: Video) -> Float[Tensor, " b"]:
    """Mean absolute difference between the temporal differences of two clips; see the module."""
    error = ((made - real) / 2).diff(dim=2).abs()  # the difference of differences, in another order
    return error.sum((1, 2, 3, 4)) / max(error[0].numel(), 1)


def _smooth(video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t i j"]:
    """Weighted means over the windows that lie inside the frame, by rows and then by columns."""
    offset = torch.arange(_WINDOW_PX, device=video.device) - _WINDOW_PX // 2
    line = torch.exp(-offset.to(video).square() / (2 * _WINDOW_SIGMA_PX**2))
    line = (line / line.sum())[None, None]
    b, c, t, h, _ = video.shape
    rows = torch.nn.functional.conv1d(rearrange(video, "b c t h w -> (b c t h) 1 w"), line)
    columns = rearrange(rows, "(b c t h) 1 j -> (b c t j) 1 h", b=b, c=c, t=t, h=h)
    smooth = torch.nn.functional.conv1d(columns, line)
    return rearrange(smooth, "(b c t j) 1 i -> b c t i j", b=b, c=c, t=t)
