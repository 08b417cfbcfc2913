"""MaskGIT: predict masked codes from the visible ones (arXiv:2202.04200), in space and time.

Cross-entropy on the masked positions. With several codes at a position (q > 1) each is predicted on
its own given the rest of the clip, and a position is revealed as a whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.objectives import base
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State, mean_where


class Config(base.MaskedConfig):
    """`label_smoothing` of the cross-entropy."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self, spec: LatentSpec, width: int) -> "MaskGIT":
        sizes = base.require_codes(spec, self.name)
        return MaskGIT(self, sizes, width, Categorical(sizes, width, self.label_smoothing))


class CodeHead(nn.Module, ABC):
    """From the trunk's hidden vectors to the probabilities of codes, and what it costs if they are
    wrong. The codes of all codebooks stand one codebook after the other.
    """

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]: ...

    @abstractmethod
    def log_p(self, out: Float[Tensor, "b T H W o"]) -> Float[Tensor, "b T H W k"]:
        """Log-probabilities of all codes."""

    @abstractmethod
    def cross_entropy(
        self, out: Float[Tensor, "b T H W o"], codes: Int64[Tensor, "b T H W q"]
    ) -> Float[Tensor, "b T H W"]:
        """Averaged over the codes at a position."""

    def learn_codes(self, lookup: base.Lookup) -> None:
        """See `Objective.learn_codes`."""
        return


class Categorical(CodeHead):
    """All wrong codes are equally wrong."""

    def __init__(self, sizes: tuple[int, ...], width: int, label_smoothing: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.label_smoothing = label_smoothing
        self.to_logits = nn.Linear(width, sum(sizes))

    def forward(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]:
        return self.to_logits(hidden)

    def log_p(self, out: Float[Tensor, "b T H W o"]) -> Float[Tensor, "b T H W k"]:
        return torch.cat([p.log_softmax(-1) for p in out.split(self.sizes, dim=-1)], dim=-1)

    def cross_entropy(
        self, out: Float[Tensor, "b T H W o"], codes: Int64[Tensor, "b T H W q"]
    ) -> Float[Tensor, "b T H W"]:
        entropies = [
            F.cross_entropy(
                logits.flatten(0, 3),
                codes[..., i].flatten(),
                label_smoothing=self.label_smoothing,
                reduction="none",
            )
            for i, logits in enumerate(out.split(self.sizes, dim=-1))
        ]
        return torch.stack(entropies).mean(0).reshape(codes.shape[:-1])


class MaskGIT(base.Masked):
    """Masked, discrete; `code_head` says what the probabilities of codes are, and the loss."""

    offsets: Tensor

    def __init__(
        self,
        config: base.MaskedConfig,
        codebook_sizes: tuple[int, ...],
        width: int,
        code_head: CodeHead,
    ) -> None:
        super().__init__(config)
        self.codebook_sizes = codebook_sizes
        # One table for all codebooks, one after the other, and the mask token at its end.
        offsets = torch.tensor([0, *codebook_sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.mask_id = sum(codebook_sizes)
        self.embedding = nn.Embedding(self.mask_id + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.code_head = code_head

    def learn_codes(self, lookup: base.Lookup) -> None:
        self.code_head.learn_codes(lookup)

    def embed(self, state: State) -> Float[Tensor, "b T H W c"]:
        tokens = codes_of(state.latents) + self.offsets  # b T H W q
        tokens = torch.where(state.known[..., None], tokens, self.mask_id)
        return self.embedding(tokens).sum(-2)

    def head(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]:
        return self.code_head(hidden)

    def loss(self, out: Float[Tensor, "b T H W o"], corrupted: Corrupted, rng: Rng) -> Losses:
        assert isinstance(corrupted.target, Latents)
        codes = codes_of(corrupted.target)
        entropy = mean_where(self.code_head.cross_entropy(out.float(), codes), corrupted.predict)
        hits: list[Tensor] = []
        with torch.no_grad():
            for i, log_p in enumerate(self.log_p(out).split(self.codebook_sizes, dim=-1)):
                # Not argmax, which is ten times slower on a CPU.
                of_truth = log_p.gather(-1, codes[..., i : i + 1]).squeeze(-1)
                hits.append((of_truth >= log_p.amax(-1)).float())
        accuracy = mean_where(torch.stack(hits).mean(0), corrupted.predict)
        return Losses.of({"cross_entropy": entropy}, code_accuracy=accuracy)

    def log_p(self, out: Float[Tensor, "b T H W o"]) -> Float[Tensor, "b T H W k"]:
        """Log-probabilities of all codes, one codebook after the other."""
        return self.code_head.log_p(out.float())

    def read(
        self,
        outs: Sequence[Float[Tensor, "b T H W o"]],
        weights: Sequence[float],
        state: State,
        *,
        temperature: float,
        rng: Rng,
    ) -> Prediction:
        """Codes drawn at `temperature`; 0 takes the likeliest. The confidence is that at 1.

        Guidance adds log-probabilities, as scores are added elsewhere.
        """
        log_p = base.combine([self.log_p(out) for out in outs], weights)
        codes: list[Tensor] = []
        confidence = torch.zeros(state.known.shape, device=log_p.device)
        for i, of_codebook in enumerate(log_p.split(self.codebook_sizes, dim=-1)):
            of_codebook = of_codebook.log_softmax(-1)
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
    ) -> Float[Tensor, "b T H W k"]:
        """Log-probabilities of codes."""
        return self.log_p(out)


def codes_of(latents: Latents) -> Int64[Tensor, "b T H W q"]:
    """The codes that latents of a discrete tokenizer have."""
    assert latents.codes is not None, "the objective was built for a discrete tokenizer"
    return latents.codes
