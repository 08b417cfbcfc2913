"""Curves by level while training: sample a few clips of each level from the averaged weights, and
judge them.

Seeds are fixed, so that a curve moves because the model does, and a resumed run draws the same
curve.
"""

from pathlib import Path

import torch
from torch import nn

from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.pipeline import ClipFormat, sample_clips
from vidcomp.probes.base import score_verdicts
from vidcomp.runs import GeneratorRun, load_judge
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.world.splits import Split


class CurveHook:
    """``eval/<level>/joint`` and ``eval/<level>/frames`` for a generator, as `Hooks` asks for
    them."""

    def __init__(
        self, run: GeneratorRun, tokenizer: Tokenizer, clips: ClipFormat, split: Split
    ) -> None:
        assert run.evaluate is not None
        self.run, self.tokenizer, self.clips = run, tokenizer, clips
        self.judge = load_judge(Path(run.evaluate.probe), clips.factors)
        num_clips = run.evaluate.clips_per_level
        self.requests = {level: split.requests(level, num_clips) for level in split.level_names}

    def __call__(self, step: int, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Generator)
        classes, values = (torch.cat(x) for x in zip(*self.requests.values(), strict=True))
        video = sample_clips(
            model,
            self.tokenizer.to(next(model.parameters()).device),
            Condition.of(classes, values),
            self.clips.size,
            self.run.sampling,
            Rng.make(self.run.seed, "curves", torch.arange(len(classes))),
        )
        sizes = [len(asked.classes) for asked in self.requests.values()]
        verdicts = self.judge.read(video).split(sizes)
        found: dict[str, float] = {}
        for (level, asked), read in zip(self.requests.items(), verdicts, strict=True):
            scores = score_verdicts(read, asked.classes, self.clips.factors)
            found |= {f"eval/{level}/{key}": scores[key].value for key in ("joint", "frames")}
        return found
