"""The task of a tokenizer: reconstruct clips."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset
from vidcomp.runs import TokenizerRun, rows_for
from vidcomp.seeding import Rng, initial_weights, permutation
from vidcomp.tokenizers.base import Tokenizer, code_usage
from vidcomp.training.order import mean_over, portions_of
from vidcomp.training.trainer import Task
from vidcomp.types import Frames, Losses, Video, frames_from_video, video_from_frames

_MEASURED_CLIPS = 512
"""Clips from which the latent statistics are measured, and the PSNR, at most."""

_CLIPS_AT_A_TIME = 64


@dataclass(frozen=True)
class VideoBatch:
    """Clips for a tokenizer."""

    frames: Frames

    def to(self, device: torch.device) -> "VideoBatch":
        return VideoBatch(self.frames.to(device))


class TokenizerTask(Task[Tokenizer]):
    """Reconstruct the clips `rows` of a dataset; it is measured on its scoring clips."""

    def __init__(self, run: TokenizerRun, dataset: Dataset, rows: Int64[Tensor, " n"]) -> None:
        super().__init__()
        with initial_weights(run.seed):
            self.model = run.tokenizer.build()
        self.dataset, self.rows = dataset, rows
        scoring = rows_for("scoring", dataset)
        self.scoring_rows = scoring[torch.isin(scoring, dataset.longest())][:_MEASURED_CLIPS]
        if not len(self.scoring_rows):
            raise UserError(
                f"no clip of {dataset.num_frames} frames is left for scoring; add such clips"
            )
        self.portions = portions_of(dataset, rows)
        spec = self.model.spec
        self.tokens_per_clip = mean_over(
            self.portions,
            lambda num_frames: spec.grid(num_frames, dataset.height, dataset.width).size,
        )

    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> VideoBatch:
        return VideoBatch(self.dataset.draw(self.rows[clips], rng).frames)

    def forward(self, batch: VideoBatch, rng: Rng) -> Losses:
        return self.model.loss(video_from_frames(batch.frames), rng)

    def after_step(self) -> None:
        self.model.after_step()

    @torch.no_grad()
    def after_skipped_step(self) -> None:
        # What a codebook gathered is used up, and its effect undone: such state lies in buffers.
        kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        self.model.after_step()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(kept[name])

    @torch.no_grad()
    def measure(self, step: int, model: nn.Module) -> dict[str, float]:
        """Set the latent statistics of the averaged `model`, from clips that it trains on; find its
        PSNR and how many codes it uses, on clips that nothing trains on, of all combinations."""
        assert isinstance(model, Tokenizer)
        device = model.latent_mean.device

        def video(rows: Tensor) -> Video:
            return video_from_frames(self.dataset.clips(rows).frames.to(device))

        model.measure_latents(video(rows) for rows in self._measured_rows())
        psnrs: list[Tensor] = []
        codes: list[Tensor] = []
        for rows in self.scoring_rows.split(_CLIPS_AT_A_TIME):
            real = video(rows)
            latents = model.encode(real)
            psnrs.append(shown_psnr_db(model.decode(latents), real))
            if latents.codes is not None:
                codes.append(latents.codes)
        found = {"eval/psnr_db": float(torch.cat(psnrs).mean())}
        for i, size in enumerate(model.spec.codebook_sizes or ()):
            usage = code_usage(torch.cat(codes)[..., i], size)
            found[f"eval/code_usage_{i}"] = usage.share
            found[f"eval/code_perplexity_{i}"] = usage.perplexity
        return found

    def _measured_rows(self) -> Iterator[Int64[Tensor, " b"]]:
        """Clips of every portion, as many as its weight says, one length at a time."""
        whole = sum(portion.weight for portion in self.portions)
        for portion in self.portions:
            count = math.ceil(_MEASURED_CLIPS * portion.weight / whole)
            chosen = portion.rows[permutation(0, "measure", len(portion.rows))[:count]]
            yield from self.rows[chosen].split(_CLIPS_AT_A_TIME)


def shown_psnr_db(made: Video, real: Video) -> Tensor:
    """As a person sees the clips: both as 8-bit pixels, peak 255. One value per clip."""
    error = frames_from_video(made).float() - frames_from_video(real).float()
    return 10 * torch.log10(255**2 / error.square().mean((1, 2, 3, 4)).clamp_min(1e-3))
