"""Trained networks back from run folders, with their averaged weights."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from vidcomp.config import UserError, first_line
from vidcomp.models.generator import Generator
from vidcomp.runs.config import GeneratorRun, TokenizerRun, load_run
from vidcomp.runs.folder import newest_checkpoint, weights_digest
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.types import LatentSpec
from vidcomp.world.factors import Factors


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run folder with its EMA weights, frozen. Raises UserError if there is
    none."""
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"no tokenizer in {folder} (it has no config.yaml); restore that folder, or train again"
        )
    run, _ = load_run(folder / "config.yaml")
    if not isinstance(run, TokenizerRun):
        raise UserError(f"{folder} is the run of a generator, not of a tokenizer")
    tokenizer = run.tokenizer.build()
    fill(tokenizer, load_file(newest_checkpoint(folder) / "ema.safetensors"), folder)
    return tokenizer.requires_grad_(False).eval()


def refuse_changed_tokenizer(run: GeneratorRun, folder: Path, digest: str) -> None:
    """Raise UserError if the tokenizer in `folder` is not the one that a generator learned from."""
    found = weights_digest(folder)
    if found != digest:
        raise UserError(
            f"the tokenizer in {folder} has weights {found}, generator {run.name!r} was "
            f"trained on {digest}; restore those weights, or train the generator again elsewhere"
        )


def load_generator(
    run: GeneratorRun, folder: Path, spec: LatentSpec, factors: Factors
) -> Generator:
    """A generator with its EMA weights, frozen, and without its JEPA head: sampling needs none."""
    generator = run.generator.model_copy(update={"jepa": None}).build(spec, factors)
    weights = load_file(newest_checkpoint(folder) / "ema.safetensors")
    fill(generator, weights, folder)
    return generator.requires_grad_(False).eval()


def fill(network: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Raise UserError unless `weights` are those of such a network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the weights in {folder} are not those of this config and code ({first_line(error)}); "
            "use the commit in its environment.json, or train it again in another out=DIR"
        ) from None
