"""The task of a tokenizer: reconstruct clips."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from vidcomp.datasets.base import Dataset
from vidcomp.runs import TokenizerRun, rows_for
from vidcomp.seeding import Rng, initial_weights, permutation
from vidcomp.tokenizers.base import Tokenizer, code_usage
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
        self.scoring_rows = rows_for("scoring", dataset)[:_MEASURED_CLIPS]
        self.num_clips = len(rows)
        size = (dataset.num_frames, dataset.height, dataset.width)
        self.tokens_per_clip = self.model.spec.grid(*size).size

    def batch(self, clips: Int64[Tensor, " b"]) -> VideoBatch:
        return VideoBatch(self.dataset.clips(self.rows[clips]).frames)

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
        training = self.rows[permutation(0, "measure", self.num_clips)[:_MEASURED_CLIPS]]
        device = model.latent_mean.device

        def video(rows: Tensor) -> Video:
            return video_from_frames(self.dataset.clips(rows).frames.to(device))

        model.measure_latents(video(rows) for rows in training.split(_CLIPS_AT_A_TIME))
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


def shown_psnr_db(made: Video, real: Video) -> Tensor:
    """As a person sees the clips: both as 8-bit pixels, peak 255. One value per clip."""
    error = frames_from_video(made).float() - frames_from_video(real).float()
    return 10 * torch.log10(255**2 / error.square().mean((1, 2, 3, 4)).clamp_min(1e-3))
