"""The generator: objective's ends, conditioning and trunk joined into one network, and its uses.

Training calls `forward` and nothing else. Sampling asks for a `denoiser`, in which network and
guidance are closed over. Analyses ask for `hidden` states and for `predict`, the data prediction
with gradients.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, SerializeAsAny, model_validator
from torch import Tensor, nn

from vidcomp.config import Settings, UserError
from vidcomp.models.backbone import Backbone, BackboneConfig, Hidden
from vidcomp.models.conditioning import Condition, ConditionEmbedding, ConditioningConfig
from vidcomp.models.guidance import Guidance
from vidcomp.models.jepa import JepaConfig, JepaHead
from vidcomp.objectives import base as objectives
from vidcomp.seeding import Rng
from vidcomp.types import Corrupted, Latents, LatentSpec, Losses, Prediction, State
from vidcomp.world.factors import Factors


class GeneratorConfig(Settings):
    """What a generator is, beside the tokenizer's spec and the dataset's factors."""

    objective: Annotated[
        SerializeAsAny[objectives.Config], BeforeValidator(objectives.OBJECTIVES.config)
    ]
    backbone: BackboneConfig = BackboneConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    jepa: JepaConfig | None = None

    @model_validator(mode="after")
    def _tokens_need_joint_attention_without_windows(self) -> "GeneratorConfig":
        if self.conditioning.path != "adaln" and self.backbone.attention != "joint":
            raise ValueError(
                f"conditioning.path={self.conditioning.path} puts context tokens beside the clip, "
                "which needs backbone.attention=joint; or set conditioning.path=adaln"
            )
        if self.conditioning.path != "adaln" and self.backbone.has_windows:
            raise ValueError(
                f"conditioning.path={self.conditioning.path} puts context tokens beside the clip, "
                "a path around every window; set conditioning.path=adaln, or no backbone.window"
            )
        return self

    def build(self, spec: LatentSpec, factors: Factors) -> "Generator":
        return Generator(self, spec, factors)


class Network(nn.Module):
    """State and condition to the objective's output."""

    def __init__(self, config: GeneratorConfig, spec: LatentSpec, factors: Factors) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone)
        self.embedding = ConditionEmbedding(config.conditioning, factors, self.backbone.width)
        self.objective = config.objective.build(spec, self.backbone.width)

    def trunk(self, state: State, condition: Condition, *, layers: Sequence[int] = ()) -> Hidden:
        told = self.embedding(condition, state.level, state.latents.grid)
        return self.backbone(
            self.objective.embed(state),
            told.vector,
            told.tokens,
            local=told.local,
            level=state.level,
            layers=layers,
        )

    def forward(self, state: State, condition: Condition) -> Float[Tensor, "b T H W o"]:
        return self.objective.head(self.trunk(state, condition).out)


class Generator(nn.Module):
    """See the module's text."""

    def __init__(self, config: GeneratorConfig, spec: LatentSpec, factors: Factors) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.network = Network(config, spec, factors)
        depth, width, heads = config.backbone.dimensions
        self.jepa = None
        if config.jepa is not None:
            if config.jepa.block and not isinstance(self.objective, objectives.Masked):
                raise UserError(
                    f"jepa.block hides positions, which objective {config.objective.name} does "
                    "not; drop it, or use a masked objective (maskgit, soft_maskgit, givt, mar)"
                )
            self.jepa = JepaHead(
                config.jepa,
                self.network,
                depth=depth,
                width=width,
                heads=heads,
                channels=spec.channels,
            )

    @property
    def factors(self) -> Factors:
        return self.network.embedding.factors

    @property
    def objective(self) -> objectives.Objective:
        return self.network.objective

    def forward(self, clean: Latents, condition: Condition, rng: Rng) -> Losses:
        """The loss of each clip of a batch of clean latents, whose conditions are complete."""
        conditioning = self.config.conditioning
        condition = condition.dropped(conditioning, rng).with_prefix(conditioning, clean.grid, rng)
        given = condition.given_positions(clean.grid)
        corrupted = self.objective.corrupt(clean, given, rng.fold("corrupt"))
        if self.jepa and self.jepa.config.block:
            block = self.jepa.hidden_block(clean.grid, rng.fold("jepa")) & ~given
            corrupted = corrupted.hiding(block)
        layers = self.jepa.layers if self.jepa else ()
        hidden = self.network.trunk(corrupted.state, condition, layers=layers)
        losses = self.objective.loss(self.objective.head(hidden.out), corrupted, rng.fold("loss"))
        if self.jepa is None:
            return losses
        return losses.plus(self._jepa_loss(self.jepa, clean, condition, corrupted, hidden))

    def _jepa_loss(
        self,
        jepa: JepaHead,
        clean: Latents,
        condition: Condition,
        corrupted: Corrupted,
        hidden: Hidden,
    ) -> Losses:
        context, where = hidden.layers, ~corrupted.state.known
        if jepa.config.control == "no_masking":
            state = self.objective.clean(clean)
            context = self.network.trunk(state, condition, layers=jepa.layers).layers
        if jepa.config.loss_on == "all" or jepa.config.control == "no_masking":
            where = torch.ones_like(where)
        if jepa.config.control == "regression":
            goals = (clean.values.flatten(1, 3),) * len(jepa.layers)
            return jepa.loss(context, goals, where)
        teacher = jepa.target
        assert isinstance(teacher, Network)
        with torch.no_grad():
            target = teacher.trunk(self.objective.clean(clean), condition, layers=jepa.layers)
        return jepa.loss(context, target.layers, where)

    def without_jepa(self) -> "Generator":
        """A copy with what sampling needs."""
        return copy.deepcopy(self, {id(self.jepa): None})

    def share_average(self, average: "Generator") -> None:
        """`average` is what sampling will use; a JEPA head may take it for its target."""
        if self.jepa is not None and self.jepa.config.target == "shared":
            self.jepa.shared = (average.network,)

    def after_step(self) -> None:
        """After an optimiser step: the JEPA target follows."""
        if self.jepa is not None:
            self.jepa.update(self.network)

    def denoiser(
        self, guidance: Guidance, *, temperature: float = 1.0
    ) -> Callable[[State, Rng], Prediction]:
        """A function from a state (and randomness) to what should stand at each position."""

        def denoise(state: State, rng: Rng) -> Prediction:
            # Samplers take all clips through the same levels. All terms go in one forward pass.
            terms = guidance.at(float(state.level.amax()))
            conditions = Condition.cat([condition for condition, _ in terms])
            weights = [weight for _, weight in terms]
            outs = self.network(repeated(state, len(terms)), conditions).chunk(len(terms))
            return self.objective.read(outs, weights, state, temperature=temperature, rng=rng)

        return denoise

    def predict(self, state: State, condition: Condition) -> Float[Tensor, "b T H W *_"]:
        """The objective's belief about the clean clip; differentiable."""
        return self.objective.data_prediction(self.network(state, condition), state)

    def global_paths(self, *, in_time: bool = False) -> list[str]:
        """The ways by which an output learns of what lies outside its window, each with the way
        out; of none is locality enforced. `in_time`: from other frames as well as other places.

        A position is told of objects up to ``conditioning.locations.reach`` away, so with tokens
        and gaussian maps an output sees objects that much further than its window reaches.
        """
        trunk, told = self.config.backbone, self.config.conditioning
        ways: list[str] = []
        if trunk.window is None:
            ways.append("backbone.window=null (set an odd window)")
        if trunk.global_blocks:
            ways.append(f"backbone.global_blocks={trunk.global_blocks} (set 0)")
        if in_time and trunk.window_frames is None:
            ways.append("backbone.window_frames=null (set an odd window)")
        if columns := told.told(self.factors):
            names = ", ".join(self.factors.names[column] for column in columns)
            ways.append(f"conditioning.tell: every position is told of {names} (set [])")
        return (
            ways if told.locations is None else ways + told.locations.global_paths(in_time=in_time)
        )

    def hidden(
        self, state: State, condition: Condition, layers: Sequence[int]
    ) -> tuple[Float[Tensor, "b n c"], ...]:
        """Hidden states after the 0-indexed `layers`, in the order of depth; differentiable."""
        depth = len(self.network.backbone.blocks)
        if wrong := [layer for layer in layers if not 0 <= layer < depth]:
            raise UserError(f"no layers {wrong} in a trunk of {depth}; legal: 0 to {depth - 1}")
        return self.network.trunk(state, condition, layers=layers).layers


def repeated(state: State, times: int) -> State:
    """`state` stacked `times` times along the batch."""
    if times == 1:
        return state
    codes = state.latents.codes
    latents = Latents(
        torch.cat([state.latents.values] * times),
        None if codes is None else torch.cat([codes] * times),
    )
    return State(latents, torch.cat([state.known] * times), torch.cat([state.level] * times))
