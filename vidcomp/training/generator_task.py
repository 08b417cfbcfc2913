"""The task of a generator: the latents of seen combinations, made by a frozen tokenizer.

Clips are encoded once, as ``train.cache`` says (`training.latents`), or each batch is when it is
asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.pipeline import ClipFormat
from vidcomp.runs import GeneratorRun, load_tokenizer
from vidcomp.seeding import Rng, initial_weights
from vidcomp.training.curves import CurveHook
from vidcomp.training.latents import (
    CACHE,
    Kept,
    KeptClips,
    LatentCache,
    cache_key,
    in_memory,
    on_disk,
    shard_plan,
)
from vidcomp.training.order import mean_over, portions_of
from vidcomp.training.trainer import Hooks, Task
from vidcomp.types import Frames, Latents, Losses, video_from_frames
from vidcomp.world.locations import Locations
from vidcomp.world.splits import Split


@dataclass(frozen=True)
class LatentBatch:
    """Latents (or, where they are not cached, clips to encode) with what each clip shows, and
    where, if the generator is told of places."""

    content: Kept | Frames
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    locations: Locations | None = None

    def to(self, device: "torch.device | str") -> "LatentBatch":
        return LatentBatch(
            self.content.to(device),
            self.classes.to(device),
            self.values.to(device),
            None if self.locations is None else self.locations.to(device),
        )


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
        if tokenizer.spec.codebook_sizes is not None:
            self.model.objective.learn_codes(tokenizer.lookup)
        self.run, self.dataset, self.split, self.rows = run, dataset, split, rows
        self.tokenizer_folder = tokenizer_folder
        # In a tuple, so that it is neither trained, nor saved with the generator.
        self.frozen = (tokenizer,)
        self.portions = portions_of(dataset, rows)
        self.tokens_per_clip = mean_over(
            self.portions,
            lambda num_frames: tokenizer.spec.grid(num_frames, dataset.height, dataset.width).size,
        )
        self.cache: LatentCache | None = None

    def encode_clips(self, accelerator: Accelerator) -> None:
        """Encode every clip before training, if ``train.cache`` asks for it."""
        plan = shard_plan(self.portions)

        def encode(clips: Tensor) -> KeptClips:
            batch = self._read(clips, None).to(accelerator.device)
            kept = Kept.of(self._latents(batch), self.frozen[0].spec)
            kept, batch = kept.to("cpu"), batch.to("cpu")
            return KeptClips(kept, batch.classes, batch.values, batch.locations)

        if self.run.train.cache == "memory":
            self.cache = in_memory(plan, encode)
        elif self.run.train.cache == "latents":
            rows = [self.rows[clips] for clips in plan]
            key = cache_key(
                self.tokenizer_folder, self.dataset, rows, with_locations=self._tells_places
            )
            self.cache = on_disk(CACHE / key, plan, encode, accelerator)

    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> LatentBatch:
        if self.cache is None:
            batch = self._read(clips, rng)
        else:
            found = self.cache[clips]
            batch = LatentBatch(found.kept, found.classes, found.values, found.locations)
        self.split.refuse_held_out(batch.classes, batch.values)
        return batch

    def forward(self, batch: LatentBatch, rng: Rng) -> Losses:
        condition = Condition.of(batch.classes, batch.values, batch.locations)
        return self.model(self._latents(batch), condition, rng)

    def averaged(self) -> Generator:
        return self.model.without_jepa()

    def averages_are(self, averages: Generator) -> None:
        self.model.share_average(averages)

    def after_step(self) -> None:
        self.model.after_step()

    def hooks(self) -> Hooks:
        """Curves by level while training, if the run asks for them."""
        if self.run.evaluate is None:
            return Hooks()
        if self._tells_places:
            raise UserError(
                "evaluate: curves while training ask for factors, and this generator is told of "
                "places; drop evaluate, and score it afterwards with tools/probe.py"
            )
        curves = CurveHook(self.run, self.frozen[0], ClipFormat.of(self.dataset), self.split)
        return Hooks(evaluate=curves, every=self.run.evaluate.every)

    @property
    def _tells_places(self) -> bool:
        return self.run.generator.conditioning.locations is not None

    def _read(self, clips: Int64[Tensor, " b"], rng: Rng | None) -> LatentBatch:
        """The clips, with the random crops of `rng` if it is given."""
        rows = self.rows[clips]
        read = self.dataset.clips(rows) if rng is None else self.dataset.draw(rows, rng)
        places = read.locations if self._tells_places else None
        return LatentBatch(read.frames, read.classes, read.values, places)

    @torch.no_grad()
    def _latents(self, batch: LatentBatch) -> Latents:
        """The latents of a batch, in full precision also within autocast."""
        tokenizer = self.frozen[0].to(batch.classes.device)
        with torch.autocast(batch.classes.device.type, enabled=False):
            if isinstance(batch.content, Kept):
                return batch.content.latents(tokenizer)
            return tokenizer.encode(video_from_frames(batch.content))


def refuse_unlocated(run: GeneratorRun, dataset: Dataset, rows: Int64[Tensor, " n"]) -> None:
    """Raise UserError if the generator is to be told of places that the clips do not bring."""
    if run.generator.conditioning.locations is not None and (
        dataset.clips(rows[:1]).locations is None
    ):
        raise UserError(
            "conditioning.locations: these clips do not say where a generator is told that objects "
            f"are; take a dataset that does (counting), or drop it ({run.data.dataset.name} here)"
        )
