"""The two tasks: a tokenizer learns to reconstruct clips, a generator learns latents of seen combinations.

`train` is what ``tools/train.py`` calls: it prepares what the run needs (a dataset that is not rendered
yet, a tokenizer that is not trained yet), trains, and leaves a run folder.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset, build, prepare
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.pipeline import ClipFormat, load_tokenizer
from vidcomp.runs import (
    GeneratorRun,
    Run,
    TokenizerRun,
    default_folder,
    environment,
    finished,
    load_run,
    open_folder,
    rows_for,
    weights_digest,
    write_json,
)
from vidcomp.seeding import Rng, initial_weights, permutation
from vidcomp.tokenizers.base import Tokenizer, code_usage
from vidcomp.training.curves import CurveHook
from vidcomp.training.trainer import Hooks, Task, fit
from vidcomp.types import Frames, Latents, Losses, frames_from_video, num_parameters, video_from_frames
from vidcomp.world.splits import Split

_MEASURED_CLIPS = 1024
"""Clips from which a tokenizer's latent statistics and its PSNR are measured."""


def train(run: Run, out: Path | None = None) -> Path:
    """Train `run` in the folder `out` (``runs/<name>``), or go on where it stopped. Returns the folder."""
    out = out or default_folder(run)
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():
        prepare(run.data)
        dataset, split = build(run.data)
    if isinstance(run, TokenizerRun):
        folder, task, hooks = None, TokenizerTask(run, dataset, split), None
        hooks = Hooks(evaluate=task.measure)
    else:
        folder = prepare_tokenizer(run.tokenizer)
        task = GeneratorTask(run, dataset, split, folder)
        hooks = task.hooks(dataset)
    if state.is_main_process:
        open_folder(run, out)
        record = environment(
            config_hash=run.digest,
            split_hash=split.digest,
            dataset=dataset.fingerprint,
            num_processes=state.num_processes,
            parameters=num_parameters(task.model),
            clips=ClipFormat.of(dataset).to_json(),
        )
        if folder is not None:
            record["tokenizer"] = {"folder": str(folder), "digest": weights_digest(folder)}
        write_json(out / "environment.json", record)
    state.wait_for_everyone()
    fit(task, run.train, out, seed=run.seed, hooks=hooks)
    return out


def prepare_tokenizer(tokenizer: str) -> Path:
    """The run folder of a tokenizer; given the YAML of one, it is trained first unless it is there."""
    path = Path(tokenizer)
    if path.suffix not in (".yaml", ".yml"):
        if not (path / "config.yaml").is_file():
            raise UserError(
                f"tokenizer={tokenizer} is neither a run folder nor a YAML; train one first, for example: "
                "python tools/train.py configs/tokenizers/fsq.yaml"
            )
        return path
    run, _ = load_run(path)
    if not isinstance(run, TokenizerRun):
        raise UserError(f"tokenizer={tokenizer} is a generator's config; name a tokenizer's")
    folder = default_folder(run)
    if not finished(run, folder):
        train(run, folder)
    return folder


def training_rows(dataset: Dataset, split: Split, combinations: str) -> Int64[Tensor, " n"]:
    """The clips that a run may train on: none that scores, and seen combinations only if it says so."""
    rows = rows_for("training", dataset)
    return rows[split.seen(dataset.classes()[rows])] if combinations == "seen" else rows


@dataclass(frozen=True)
class VideoBatch:
    """Clips for a tokenizer."""

    frames: Frames

    def to(self, device: torch.device) -> "VideoBatch":
        return type(self)(self.frames.to(device, non_blocking=True))


class TokenizerTask(Task):
    """Reconstruct clips, of all combinations or (an ablation) of the seen ones."""

    model: Tokenizer

    def __init__(self, run: TokenizerRun, dataset: Dataset, split: Split) -> None:
        super().__init__()
        with initial_weights(run.seed):
            self.model = run.tokenizer.build()
        self.dataset = dataset
        self.tokens_per_clip = self.model.spec.grid(dataset.num_frames, dataset.height, dataset.width).size
        self.rows = training_rows(dataset, split, run.combinations)
        self.num_clips = len(self.rows)

    def batch(self, clips: Int64[Tensor, " b"]) -> VideoBatch:
        return VideoBatch(self.dataset.clips(self.rows[clips]).frames)

    def forward(self, batch: VideoBatch, rng: Rng) -> Losses:
        return self.model.loss(video_from_frames(batch.frames), rng)

    def after_step(self) -> None:
        self.model.after_step()

    @torch.no_grad()
    def measure(self, step: int, model: nn.Module) -> dict[str, float]:
        """Set the latent statistics of the averaged `model`; its PSNR, and how many codes it uses."""
        assert isinstance(model, Tokenizer)
        device = model.latent_mean.device
        chosen = permutation(0, "measure", self.num_clips)[:_MEASURED_CLIPS].split(64)

        def videos():
            return (video_from_frames(self.batch(clips).frames.to(device)) for clips in chosen)

        model.measure_latents(videos())
        psnrs: list[Tensor] = []
        codes: list[Tensor] = []
        for video in videos():
            latents = model.encode(video)
            # As a user measures it: both clips as 8-bit pixels, peak 255.
            shown = frames_from_video(model.decode(latents)).float()
            error = (shown - frames_from_video(video).float()).square().mean((1, 2, 3, 4))
            psnrs.append(10 * torch.log10(255**2 / error.clamp_min(1e-3)))
            if latents.codes is not None:
                codes.append(latents.codes)
        found = {"eval/psnr_db": float(torch.cat(psnrs).mean())}
        for i, size in enumerate(model.spec.codebook_sizes or ()):
            usage = code_usage(torch.cat(codes)[..., i], size)
            found |= {f"eval/code_usage_{i}": usage.share, f"eval/code_perplexity_{i}": usage.perplexity}
        return found


@dataclass(frozen=True)
class LatentBatch:
    """Clean latents (or, where they are not cached, clips to encode) with what each clip shows."""

    content: Latents | Frames
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]

    def to(self, device: torch.device) -> "LatentBatch":
        return type(self)(self.content.to(device), self.classes.to(device), self.values.to(device))


class GeneratorTask(Task):
    """Generate latents of the seen combinations. Every batch passes `Split.refuse_held_out`."""

    model: Generator

    def __init__(self, run: GeneratorRun, dataset: Dataset, split: Split, tokenizer_folder: Path) -> None:
        super().__init__()
        tokenizer = load_tokenizer(tokenizer_folder)
        self.run = run
        with initial_weights(run.seed):
            self.model = run.generator.build(tokenizer.spec, dataset.factors)
        self.dataset, self.split = dataset, split
        # In a tuple, so that it is neither trained, nor moved, nor saved with the generator.
        self.frozen = (tokenizer,)
        grid = tokenizer.spec.grid(dataset.num_frames, dataset.height, dataset.width)
        self.tokens_per_clip = grid.size
        self.rows = training_rows(dataset, split, run.combinations)
        split.refuse_held_out(dataset.classes()[self.rows])
        self.num_clips = len(self.rows)
        num_codes = len(tokenizer.spec.codebook_sizes or ())
        clip_bytes = grid.size * (4 * tokenizer.spec.channels + 8 * num_codes)
        fits = self.num_clips * clip_bytes <= run.train.cache_gb * 1e9
        self.cache = self._encode_all() if fits else None

    def _encode_all(self) -> LatentBatch:
        """Every training clip, encoded once and kept in memory."""
        parts: list[LatentBatch] = []
        chunks = torch.arange(self.num_clips).split(64)
        for clips in tqdm(chunks, desc="encoding clips once", unit="batch", leave=False, disable=len(chunks) < 50):
            part = self._read(clips)
            parts.append(LatentBatch(self._encode(part), part.classes, part.values))
        codes = [p.content.codes for p in parts if isinstance(p.content, Latents) and p.content.codes is not None]
        values = torch.cat([p.content.values for p in parts if isinstance(p.content, Latents)])
        latents = Latents(values, torch.cat(codes) if codes else None)
        return LatentBatch(latents, torch.cat([p.classes for p in parts]), torch.cat([p.values for p in parts]))

    def _read(self, clips: Int64[Tensor, " b"]) -> LatentBatch:
        read = self.dataset.clips(self.rows[clips])
        return LatentBatch(read.frames, read.classes, read.values)

    @torch.no_grad()
    def _encode(self, batch: LatentBatch) -> Latents:
        if isinstance(batch.content, Latents):
            return batch.content
        tokenizer = self.frozen[0].to(batch.content.device)
        return tokenizer.encode(video_from_frames(batch.content))

    def batch(self, clips: Int64[Tensor, " b"]) -> LatentBatch:
        if self.cache is None:
            batch = self._read(clips)
        else:
            assert isinstance(self.cache.content, Latents)
            batch = LatentBatch(self.cache.content[clips], self.cache.classes[clips], self.cache.values[clips])
        self.split.refuse_held_out(batch.classes)
        return batch

    def forward(self, batch: LatentBatch, rng: Rng) -> Losses:
        return self.model(self._encode(batch), Condition.of(batch.classes, batch.values), rng)

    def after_step(self) -> None:
        self.model.after_step()

    def hooks(self, dataset: Dataset) -> Hooks:
        """Curves by level while training, if the run asks for them."""
        if self.run.evaluate is None:
            return Hooks()
        curves = CurveHook(self.run, self.frozen[0], ClipFormat.of(dataset), self.split)
        return Hooks(evaluate=curves, every=self.run.evaluate.every)
