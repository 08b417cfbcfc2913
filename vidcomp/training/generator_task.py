"""The task of a generator: the latents of seen combinations, made by a frozen tokenizer.

Latents are encoded once and kept in memory if they fit in ``train.cache_gb``; otherwise each batch
is encoded when it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from vidcomp.datasets.base import Dataset
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.pipeline import ClipFormat, default_device
from vidcomp.runs import GeneratorRun, load_tokenizer
from vidcomp.seeding import Rng, initial_weights
from vidcomp.training.curves import CurveHook
from vidcomp.training.trainer import Hooks, Task
from vidcomp.types import Frames, Latents, Losses, video_from_frames
from vidcomp.world.splits import Split

_CLIPS_AT_A_TIME = 64


@dataclass(frozen=True)
class LatentBatch:
    """Clean latents (or, where they are not cached, clips to encode) with what each clip shows."""

    content: Latents | Frames
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]

    def to(self, device: "torch.device | str") -> "LatentBatch":
        moved = self.content.to(device)
        return LatentBatch(moved, self.classes.to(device), self.values.to(device))


class GeneratorTask(Task[Generator]):
    """Generate what the clips `rows` show. Every batch passes `Split.refuse_held_out`."""

    def __init__(
        self,
        run: GeneratorRun,
        dataset: Dataset,
        split: Split,
        rows: Int64[Tensor, " n"],
        tokenizer_folder: Path,
    ) -> None:
        super().__init__()
        tokenizer = load_tokenizer(tokenizer_folder)
        with initial_weights(run.seed):
            self.model = run.generator.build(tokenizer.spec, dataset.factors)
        self.run, self.dataset, self.split, self.rows = run, dataset, split, rows
        # In a tuple, so that it is neither trained, nor saved with the generator.
        self.frozen = (tokenizer,)
        grid = tokenizer.spec.grid(dataset.num_frames, dataset.height, dataset.width)
        self.num_clips = len(rows)
        self.tokens_per_clip = grid.size
        num_codes = len(tokenizer.spec.codebook_sizes or ())
        clip_bytes = grid.size * (4 * tokenizer.spec.channels + 8 * num_codes)
        fits = self.num_clips * clip_bytes <= run.train.cache_gb * 1e9
        self.cache = self._encoded_clips() if fits else None

    def batch(self, clips: Int64[Tensor, " b"]) -> LatentBatch:
        if self.cache is None:
            batch = self._read(clips)
        else:
            latents, cache = self._latents(self.cache), self.cache
            batch = LatentBatch(latents[clips], cache.classes[clips], cache.values[clips])
        self.split.refuse_held_out(batch.classes)
        return batch

    def forward(self, batch: LatentBatch, rng: Rng) -> Losses:
        condition = Condition.of(batch.classes, batch.values)
        return self.model(self._latents(batch), condition, rng)

    def averaged(self) -> Generator:
        return self.model.without_jepa()

    def after_step(self) -> None:
        self.model.after_step()

    def hooks(self) -> Hooks:
        """Curves by level while training, if the run asks for them."""
        if self.run.evaluate is None:
            return Hooks()
        curves = CurveHook(self.run, self.frozen[0], ClipFormat.of(self.dataset), self.split)
        return Hooks(evaluate=curves, every=self.run.evaluate.every)

    def _read(self, clips: Int64[Tensor, " b"]) -> LatentBatch:
        read = self.dataset.clips(self.rows[clips])
        return LatentBatch(read.frames, read.classes, read.values)

    @torch.no_grad()
    def _latents(self, batch: LatentBatch) -> Latents:
        """The latents of a batch, in full precision also within autocast."""
        if isinstance(batch.content, Latents):
            return batch.content
        tokenizer = self.frozen[0].to(batch.content.device)
        with torch.autocast(batch.content.device.type, enabled=False):
            return tokenizer.encode(video_from_frames(batch.content))

    def _encoded_clips(self) -> LatentBatch:
        """Every training clip, encoded on the device and kept on the CPU."""
        chunks = torch.arange(self.num_clips).split(_CLIPS_AT_A_TIME)
        device = default_device(None)
        parts: list[LatentBatch] = []
        for clips in tqdm(chunks, desc="encode", unit="batch", leave=False, disable=None):
            part = self._read(clips).to(device)
            parts.append(replace(part, content=self._latents(part)).to("cpu"))
        return LatentBatch(
            _joined([self._latents(part) for part in parts]),
            torch.cat([part.classes for part in parts]),
            torch.cat([part.values for part in parts]),
        )


def _joined(parts: Sequence[Latents]) -> Latents:
    codes = [part.codes for part in parts if part.codes is not None]
    values = torch.cat([part.values for part in parts])
    return Latents(values, torch.cat(codes) if codes else None)
