"""The angles between mean shifts in a model of `diffusers`, with the weights that a user has.

What is measured is told in `probes.base_directions`. A thin adapter for two kinds of pipelines:
U-Nets that read text, as SDXL's (`UNet2DConditionModel`), and class-conditional transformers
(`DiTTransformer2DModel`), whose prompts are names of classes and whose background is the class of
no condition. z is what a block gives on, averaged over positions or of all of them (`per_token`),
for x_t from p_t(x | concept): DDIM without guidance goes from noise to the timestep that is asked
for. Each seed is one noise, from which every concept starts; seeds are what is resampled.
"""

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from tqdm import tqdm

from vidcomp.config import RootSettings, UserError, first_line
from vidcomp.pipeline import default_device
from vidcomp.probes.base_directions import FEWEST_GROUPS, NUM_GROUPS, Concepts, Measured
from vidcomp.seeding import Rng

_SEEDS_AT_A_TIME = 8
_BLOCKS = re.compile(r"(down_blocks|up_blocks|transformer_blocks)\.\d+|mid_block")

Told = Mapping[str, Any]
"""Arguments of a network beside latents and timestep: tensors of a batch of one, or dicts of
them."""


class Prompts(RootSettings):
    """What a model is asked for: prompts of each factor, and of none of them."""

    concepts: dict[str, tuple[str, ...]]
    background: str = "a photo"

    @property
    def named(self) -> Concepts:
        pairs = [(name, factor) for factor, names in self.concepts.items() for name in names]
        return Concepts(tuple(name for name, _ in pairs), tuple(factor for _, factor in pairs))


class Foreign(RootSettings):
    """`prompts`: the file of `Prompts`. `seeds`: noises for each prompt. `timestep`: where the
    sampler, of so many `steps` from 1000 to 0, is stopped. `blocks`: names of modules; without any,
    the network's blocks."""

    prompts: Path
    seeds: Annotated[int, Field(ge=FEWEST_GROUPS)] = 16
    timestep: Annotated[int, Field(ge=0, lt=1000)] = 500
    steps: PositiveInt = 20
    blocks: tuple[str, ...] = ()
    per_token: bool = False


def measure_foreign(model: str, asked: Foreign) -> Measured:
    """The cosines in each block of the pipeline in a folder, or of that name on the hub."""
    prompts = Prompts.load(asked.prompts)
    concepts = prompts.named
    pipeline = open_pipeline(model)
    network, told = network_and_conditions(pipeline, (prompts.background, *concepts.names))
    scheduler = importlib.import_module("diffusers").DDIMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False
    )
    return measure(network, scheduler, told, concepts, asked)


def measure(
    network: nn.Module, scheduler: Any, told: Sequence[Told], concepts: Concepts, asked: Foreign
) -> Measured:
    """`told`: the background's condition, then each concept's. `scheduler`: a DDIMScheduler."""
    group = torch.arange(asked.seeds) % min(NUM_GROUPS, asked.seeds)
    means: list[dict[str, Tensor]] = []
    for condition in tqdm(told, desc="prompts", disable=None):
        of_blocks = features(network, scheduler, condition, asked)
        means.append(
            {
                name: torch.stack([z[group == g].mean(0) for g in group.unique()])
                for name, z in of_blocks.items()
            }
        )
    background, *others = means
    measured = Measured(concepts)
    for name, origin in background.items():
        shifts = torch.stack([of_concept[name] - origin for of_concept in others], dim=1)
        measured.add(name, shifts, count=asked.seeds)
    return measured


@torch.no_grad()
def features(
    network: nn.Module, scheduler: Any, told: Told, asked: Foreign
) -> dict[str, Float[Tensor, "s c"]]:
    """What each block gives on for each seed, in the order in which they run."""
    parts: dict[str, list[Tensor]] = {}

    def catch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            parts.setdefault(name, []).append(flat(out, per_token=asked.per_token))

        return hook

    modules = blocks_of(network, asked.blocks)
    for seeds in torch.arange(asked.seeds).split(_SEEDS_AT_A_TIME):
        x, time = denoised(network, scheduler, told, seeds, asked)
        hooks = [module.register_forward_hook(catch(name)) for name, module in modules.items()]
        try:
            predicted(network, x, time, told)
        finally:
            for hook in hooks:
                hook.remove()
    return {name: torch.cat(of_block) for name, of_block in parts.items()}


def denoised(
    network: nn.Module, scheduler: Any, told: Told, seeds: Int64[Tensor, " s"], asked: Foreign
) -> tuple[Float[Tensor, "s c h w"], Tensor]:
    """x_t at the sampler's timestep that is next to the one that is asked for, and that."""
    about: Any = network.config
    weights = next(network.parameters())
    noise = Rng.make(0, "noise", seeds).normal(
        about.in_channels, about.sample_size, about.sample_size
    )
    x = noise.to(weights)
    scheduler.set_timesteps(asked.steps)
    times: Tensor = scheduler.timesteps.to(weights.device)
    last = int((times - asked.timestep).abs().argmin())
    for time in times[:last]:
        x = scheduler.step(predicted(network, x, time, told), time, x).prev_sample
    return x, times[last]


def predicted(
    network: nn.Module, x: Float[Tensor, "s c h w"], time: Tensor, told: Told
) -> Float[Tensor, "s c h w"]:
    """The network's prediction, without that of the variance where it makes one."""
    told = {name: repeated(value, len(x)) for name, value in told.items()}
    return network(x, timestep=time.expand(len(x)), **told).sample[:, : x.shape[1]]


def repeated(value: Any, times: int) -> Any:
    """A batch of one, or a dict of them, for each of a batch."""
    if isinstance(value, Mapping):
        return {name: repeated(part, times) for name, part in value.items()}
    return value.expand(times, *value.shape[1:])


def flat(out: Any, *, per_token: bool) -> Float[Tensor, "s c"]:
    """Of a block's output (b c h w, b n c, or a tuple that begins with one) a vector each."""
    z: Tensor = out if isinstance(out, Tensor) else out[0]
    z = z.flatten(2).mT if z.ndim == 4 else z  # b n c
    return (z.flatten(1) if per_token else z.mean(1)).float().cpu()


def blocks_of(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of these names; without names, those that `_BLOCKS` matches."""
    modules = dict(network.named_modules())
    names = names or [name for name in modules if _BLOCKS.fullmatch(name)]
    for name in names:
        if name not in modules:
            blocks = [block for block in modules if _BLOCKS.fullmatch(block)]
            raise UserError(
                f"blocks: the network has no module {name!r}; blocks: {', '.join(blocks)}, "
                "or any module inside them"
            )
    return {name: modules[name] for name in names}


def open_pipeline(model: str) -> Any:
    """The pipeline in a folder, or of that name on the hub."""
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError:
        raise UserError(
            f"{model} needs diffusers, which is not installed; pip install 'vidcomp[diffusers]'"
        ) from None
    try:
        pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(model)
    except (OSError, ValueError, ImportError, AttributeError) as error:
        # The last is what diffusers raises for a text encoder where transformers is missing.
        raise UserError(
            f"{model} cannot be opened as a pipeline of diffusers (a folder with model_index.json, "
            "or a name on the hub; text encoders need transformers: pip install "
            f"'vidcomp[diffusers]'): {first_line(error)}"
        ) from None
    return pipeline.to(default_device(None))


@torch.no_grad()
def network_and_conditions(pipeline: Any, prompts: Sequence[str]) -> tuple[nn.Module, list[Told]]:
    """The network that denoises, and what it is told for each prompt, of which the first is the
    background."""
    network: Any = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    match type(network).__name__:
        case "UNet2DConditionModel":
            return network, [_text(pipeline, network, prompt) for prompt in prompts]
        case "DiTTransformer2DModel":
            return network, _classes(pipeline, network, prompts[1:])
        case kind:
            raise UserError(
                f"directions can look into a UNet2DConditionModel or a DiTTransformer2DModel; "
                f"this {type(pipeline).__name__} has a {kind}"
            )


def _text(pipeline: Any, network: Any, prompt: str) -> Told:
    encoded = pipeline.encode_prompt(
        prompt,
        device=network.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    told: dict[str, Any] = {"encoder_hidden_states": encoded[0]}
    if network.config.addition_embed_type == "text_time":  # SDXL: pooled text, and sizes in pixels
        side = network.config.sample_size * pipeline.vae_scale_factor
        sizes = torch.tensor([[side, side, 0, 0, side, side]]).to(encoded[0])
        told["added_cond_kwargs"] = {"text_embeds": encoded[2], "time_ids": sizes}
    return told


def _classes(pipeline: Any, network: Any, names: Sequence[str]) -> list[Told]:
    for name in names:
        if name not in pipeline.labels:
            close = difflib.get_close_matches(name, pipeline.labels, n=3)
            raise UserError(
                f"the model has no class {name!r} among its {len(pipeline.labels)}; "
                f"the nearest: {', '.join(close) or 'none'}"
            )
    ids = [network.config.num_embeds_ada_norm, *pipeline.get_label_ids(list(names))]
    return [{"class_labels": torch.tensor([i], device=network.device)} for i in ids]
