"""MaskGIT: predict masked codes from the visible ones (arXiv:2202.04200), in space and time.

Cross-entropy on the masked positions. With several codes at a position (q > 1) each is predicted on
its own given the rest of the clip, and a position is revealed as a whole.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.objectives import base
from vidcomp.schedules import MaskKind, MaskSchedule
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where


class Config(base.Config):
    """`schedule`: the share that is masked, in training and sampling alike."""

    schedule: MaskKind = "cosine"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self, spec: LatentSpec, width: int) -> "MaskGIT":
        return MaskGIT(self, base.require_codes(spec, self.name), width)


class MaskGIT(base.Objective):
    """Masked, discrete."""

    offsets: Tensor

    def __init__(self, config: Config, codebook_sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.schedule = self.masking = MaskSchedule(config.schedule)
        self.label_smoothing = config.label_smoothing
        self.codebook_sizes = codebook_sizes
        # One table for all codebooks, one after the other, and the mask token at its end.
        offsets = torch.tensor([0, *codebook_sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.mask_id = sum(codebook_sizes)
        self.embedding = nn.Embedding(self.mask_id + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.to_logits = nn.Linear(width, sum(codebook_sizes))

    def corrupt(self, clean: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> Corrupted:
        level = rng.fold("level").uniform()
        free = ~given.flatten(1)  # b n
        num_free = free.sum(1)
        num_masked = (self.masking.share(level) * num_free).ceil().long().clamp_min(1)
        # The masked positions are the first ones in a random order of the free ones.
        order = rng.fold("mask").uniform(free.shape[1]).masked_fill(~free, torch.inf)
        rank = order.argsort(dim=1, stable=True).argsort(1)
        masked = ((rank < num_masked[:, None]) & free).reshape(given.shape)
        return Corrupted(State(clean, ~masked, level), target=clean, predict=masked)

    def start(self, known: Latents, given: Bool[Tensor, "b T H W"], rng: Rng) -> State:
        return State(known, given, known.values.new_zeros(len(known)))

    def embed(self, state: State) -> Float[Tensor, "b T H W c"]:
        tokens = _codes(state.latents) + self.offsets  # b T H W q
        tokens = torch.where(state.known[..., None], tokens, self.mask_id)
        return self.embedding(tokens).sum(-2)

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]:
        return self.to_logits(hidden)

    def loss(self, out: Float[Tensor, "b T H W o"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Latents)
        codes = _codes(corrupted.target)
        entropies: list[Tensor] = []
        hits: list[Tensor] = []
        for i, logits in enumerate(out.float().split(self.codebook_sizes, dim=-1)):
            truth = codes[..., i]
            entropy = F.cross_entropy(
                logits.flatten(0, 3),
                truth.flatten(),
                label_smoothing=self.label_smoothing,
                reduction="none",
            )
            entropies.append(mean_where(entropy.reshape(truth.shape), corrupted.predict))
            # Not argmax, which is ten times slower on a CPU.
            scores = logits.detach()
            right = scores.gather(-1, truth[..., None]).squeeze(-1) >= scores.amax(-1)
            hits.append(mean_where(right.float(), corrupted.predict))
        return Losses.of(
            {"cross_entropy": torch.stack(entropies).mean(0)},
            code_accuracy=torch.stack(hits).mean(0),
        )

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W o"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """Codes drawn at `temperature`; 0 takes the likeliest. The confidence is that at 1."""
        log_p = self.data_prediction(base.combine(outs, weights), state)
        codes: list[Tensor] = []
        confidence = torch.zeros(state.known.shape, device=log_p.device)
        for i, of_codebook in enumerate(log_p.split(self.codebook_sizes, dim=-1)):
            if temperature > 0:
                probabilities = (of_codebook / temperature).softmax(-1)
                chosen = rng.fold(f"codebook {i}").categorical(probabilities)
            else:
                chosen = of_codebook.argmax(-1)
            codes.append(chosen)
            confidence = confidence + of_codebook.gather(-1, chosen[..., None]).squeeze(-1)
        return Prediction(codes=torch.stack(codes, dim=-1), confidence=confidence)

    def data_prediction(
        self, out: Float[Tensor, "b T H W o"], state: State
    ) -> Float[Tensor, "b T H W o"]:
        """Log-probabilities, one codebook after the other."""
        parts = [p.log_softmax(-1) for p in out.float().split(self.codebook_sizes, dim=-1)]
        return torch.cat(parts, dim=-1)


def _codes(latents: Latents) -> Int64[Tensor, "b T H W q"]:
    assert latents.codes is not None, "the objective was built for a discrete tokenizer"
    return latents.codes
