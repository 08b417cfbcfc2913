"""A generator opened up for the probes of its inside: `vidcomp.probes.base.Model`.

The trunk is as it is in training and sampling; what it does not return is caught by hooks on its
blocks, which are there for one forward pass.
"""

import contextlib
import copy
from collections import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.evaluation.beliefs import belief_of, reach_of
from vidcomp.evaluation.seen import as_in_training, on_path, state_at
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator
from vidcomp.nn.blocks import Attention, Block
from vidcomp.objectives.base import Objective
from vidcomp.objectives.maskgit import MaskGIT, codes_of
from vidcomp.pipeline import Pipeline
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Findings, Subject
from vidcomp.probes.base_locality import Belief, Reach, Seen
from vidcomp.runs import GeneratorRun, SamplingConfig, checkpoints, fill
from vidcomp.seeding import Rng
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import Latents, State, mean_where

_CLIPS_AT_A_TIME = 64


@dataclass(frozen=True)
class Shown:
    """What a batch of clips is for the network."""

    clean: Latents
    state: State
    condition: Condition


@dataclass(frozen=True)
class ModelAccess:
    """See the module's text. Clip i is hidden or noised the same whenever it is the i-th."""

    generator: Generator
    tokenizer: Tokenizer
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @torch.no_grad()
    def hidden(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers c"]:
        layers = range(len(self._blocks))
        parts: list[Tensor] = []
        for shown in self._batches(clips, level, told=told):
            found = self.generator.hidden(shown.state, shown.condition, layers)
            parts.append(torch.stack([h.mean(1) for h in found], dim=1).float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def hidden_told(
        self, clips: ClipSet, level: float, factors: Sequence[int], *, pooled: bool = True
    ) -> Float[Tensor, "b layers c"]:
        layers = range(len(self._blocks))
        parts: list[Tensor] = []
        for shown in self._batches(clips, level, told=True):
            # Nothing but these factors: no places of objects either.
            told = replace(shown.condition.null(), given=shown.condition.keep(factors).given)
            found = self.generator.hidden(shown.state, told, layers)
            states = [h.mean(1) if pooled else h.flatten(1) for h in found]
            parts.append(torch.stack(states, dim=1).float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def heads(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers h d"]:
        """Factorised attention has two sets of heads a layer: over space, then over time."""
        mixers = [[a.out for a in attentions(block)] for block in self._blocks]
        num_heads = self._blocks[0].attention.heads
        parts: list[Tensor] = []
        for shown in self._batches(clips, level, told=told):
            batch, size = len(shown.clean), shown.clean.grid.size
            with inputs_of([out for of_layer in mixers for out in of_layer]) as caught:
                self.generator.network.trunk(shown.state, shown.condition)
            # Positions after the clip's own axis, in any order; context tokens stand before them.
            flat = [x.reshape(batch, -1, x.shape[-1])[:, -size:].mean(1) for x in caught]
            heads = torch.stack(flat, dim=1).unflatten(-1, (num_heads, -1))  # b out h d
            parts.append(heads.reshape(batch, len(mixers), -1, heads.shape[-1]).float().cpu())
        return torch.cat(parts)

    def influence(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers n"]:
        after_mlp = [block.mlp[-1] for block in self._blocks]
        parts: list[Tensor] = []
        for shown in self._batches(clips, level, told=told):
            with torch.enable_grad(), inputs_of(after_mlp) as units:
                belief = self.generator.predict(shown.state, shown.condition)
                quality = quality_of(self.generator.objective, belief, shown)
                gradients = torch.autograd.grad(quality.sum(), units)
            added = [(a * g).sum(1) for a, g in zip(units, gradients, strict=True)]
            parts.append(torch.stack(added, dim=1).detach().float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def seen(self, clips: ClipSet, levels: Sequence[float]) -> list[Seen]:
        return as_in_training(self.generator.objective, self._clean(clips), levels)

    @torch.no_grad()
    def path(self, clips: ClipSet, levels: Sequence[float]) -> list[Seen]:
        grid, told = self.tokenizer.spec.grid(*clips.video.shape[2:]), self._told(clips)
        return on_path(self.generator, self.tokenizer, told, grid, self.sampling, levels)

    @torch.no_grad()
    def belief(self, clips: ClipSet, seen: Seen) -> Belief:
        return belief_of(self.generator, seen, self._told(clips))

    def global_paths(self) -> list[str]:
        return self.generator.global_paths()

    def reach(self, level: float) -> Reach:
        return reach_of(self.generator.config, level)

    @torch.no_grad()
    def untrained(self) -> "ModelAccess":
        """The entries of each weight tensor in a random order."""
        generator = copy.deepcopy(self.generator)
        for name, weights in generator.named_parameters():
            entries = torch.arange(weights.numel())
            order = Rng.make(0, f"untrained {name}", entries).keys.argsort().to(weights.device)
            weights.copy_(weights.flatten()[order].reshape(weights.shape))
        return replace(self, generator=generator)

    @property
    def _blocks(self) -> list[Block]:
        return [b for b in self.generator.network.backbone.blocks if isinstance(b, Block)]

    def _told(self, clips: ClipSet) -> Condition:
        assert clips.locations is not None
        clips.locations.refuse_outside()
        places, device = clips.locations.all_given(), next(self.generator.parameters()).device
        return Condition.of(clips.classes, clips.values, places).to(device)

    def _clean(self, clips: ClipSet) -> Latents:
        device = next(self.generator.parameters()).device
        parts = [self.tokenizer.encode(v.to(device)) for v in clips.video.split(_CLIPS_AT_A_TIME)]
        codes = [part.codes for part in parts if part.codes is not None]
        values = torch.cat([part.values for part in parts])
        return Latents(values, torch.cat(codes) if codes else None)

    def _batches(self, clips: ClipSet, level: float, *, told: bool) -> Iterator[Shown]:
        device = next(self.generator.parameters()).device
        for rows in torch.arange(len(clips.video)).split(_CLIPS_AT_A_TIME):
            with torch.no_grad():
                clean = self.tokenizer.encode(clips.video[rows].to(device))
            places = None
            if self.generator.config.conditioning.locations is not None:
                places = clips.locations and clips.locations[rows].all_given()
            asked = Condition.of(clips.classes[rows], clips.values[rows], places).to(device)
            draws = Rng.make(0, "look", rows.to(device))
            state = state_at(self.generator.objective, clean, level, draws)
            yield Shown(clean, state, asked if told else asked.null())


def attentions(block: Block) -> list[Attention]:
    """Those of a block, in the order in which they run."""
    return [a for a in (block.attention, block.temporal) if a is not None]


@contextlib.contextmanager
def inputs_of(modules: Sequence[nn.Module]) -> abc.Generator[list[Tensor], None, None]:
    """What each of `modules` is given, in the order in which they run; with gradients, if those are
    on."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        # The weights are frozen: where nothing before asks for a gradient, it begins here.
        caught.append(given[0].requires_grad_(torch.is_grad_enabled()))

    hooks = [module.register_forward_pre_hook(catch) for module in modules]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def quality_of(
    objective: Objective, belief: Float[Tensor, "b T H W o"], shown: Shown
) -> Float[Tensor, " b"]:
    """Of a prediction of what is hidden: the mean log-probability of the true codes, or minus the
    mean squared error of the latents."""
    if isinstance(objective, MaskGIT):
        codes = codes_of(shown.clean) + objective.offsets
        right = belief.gather(-1, codes).mean(-1)
    else:
        right = -(belief - shown.clean.values).square().mean(-1)
    return mean_where(right, ~shown.state.known)


def look_inside(
    pipeline: Pipeline,
    folder: Path,
    subject: Subject,
    probes: Sequence[base_network.Config],
) -> dict[str, Findings]:
    """What `probes` find in a run's network; in older checkpoints, of those that ask for all, under
    ``step-<n>/``. One that cannot look at these clips says why."""
    assert pipeline.generator is not None and isinstance(pipeline.run, GeneratorRun)
    found: dict[str, Findings] = {}
    newest, *older = reversed(checkpoints(folder))
    again = [p for p in probes if p.checkpoints == "all"]
    for checkpoint in [newest, *(older if again else [])]:
        generator = copy.deepcopy(pipeline.generator)
        fill(generator, load_file(checkpoint / "ema.safetensors"), folder)
        model = ModelAccess(generator, pipeline.tokenizer, pipeline.run.sampling)
        seen = replace(subject, model=model)
        step = checkpoint.name.removeprefix("checkpoint-")
        prefix = "" if checkpoint == newest else f"step-{step}/"
        for config in probes if checkpoint == newest else again:
            try:
                new = config.build(subject.split.factors).run(seen)
            except UserError as error:
                print(f"{checkpoint}: probe {config.name} was not asked: {error}")
                continue
            findings = found.setdefault(config.name, Findings())
            findings.scores.update({prefix + key: score for key, score in new.scores.items()})
            findings.tables.update({prefix + key: table for key, table in new.tables.items()})
    return found
