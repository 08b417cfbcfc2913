"""From a run's config to a trained run folder: what ``tools/train.py`` calls.

It prepares what the run needs (a dataset that is not rendered yet, a tokenizer that is not trained
yet), refuses what does not fit together before anything is written, and trains.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset, build
from vidcomp.pipeline import ClipFormat
from vidcomp.runs import (
    GeneratorRun,
    Run,
    TokenizerRun,
    checkpoints,
    default_folder,
    environment,
    finished,
    load_judge,
    load_run,
    note_tokenizer,
    open_folder,
    read_environment,
    refuse_changed_inputs,
    refuse_other_run,
    rows_for,
    write_json,
)
from vidcomp.seeding import initial_weights
from vidcomp.storage import prepare
from vidcomp.training import latents, untrained
from vidcomp.training.generator_task import GeneratorTask, refuse_unlocated
from vidcomp.training.order import portions_of
from vidcomp.training.tokenizer_task import TokenizerTask
from vidcomp.training.trainer import Hooks, fit, make_accelerator, micro_batch_size
from vidcomp.types import num_parameters
from vidcomp.world.splits import Split


def train(run: Run, out: Path | None = None) -> Path:
    """Train `run` in the folder `out` (``runs/<name>``), or go on where it stopped. Returns the
    folder."""
    out = out or default_folder(run)

    # Mistakes are found before anything is written.
    accelerator = make_accelerator(run.train, out)
    micro_batch_size(run.train, accelerator.num_processes)
    untrained.refuse_idle(run)
    refuse_other_run(run, out)
    if finished(run, out):
        accelerator.print(f"{out}: finished already, at step {run.train.steps}")
        return out

    with accelerator.main_process_first():
        prepare(run.data)
        dataset, split = build(run.data)
    rows = training_rows(run, dataset, split)
    inputs: dict[str, object] = {"split_hash": split.digest, "dataset": dataset.fingerprint}
    if isinstance(run, TokenizerRun):
        task = TokenizerTask(run, dataset, rows)
        hooks = Hooks(evaluate=task.measure, every=run.train.checkpoint_every)
    else:
        refuse_misfits(run, dataset, rows)
        tokenizer = prepare_tokenizer(run.tokenizer)
        task = GeneratorTask(run, dataset, split, rows, tokenizer)
        hooks = task.hooks()
        inputs["tokenizer"] = note_tokenizer(tokenizer, out)
    refuse_changed_inputs(out, inputs)

    accelerator.wait_for_everyone()  # all have looked before one writes
    if accelerator.is_main_process:
        open_folder(run, out)
        record = environment(
            config_hash=run.digest,
            num_processes=accelerator.num_processes,
            parameters=num_parameters(task.model),
            clips=ClipFormat.of(dataset).to_json(),
            decoders=dataset.decoders,
            **inputs,
        )
        write_json(out / "environment.json", with_resumption(out, record, inputs))
    accelerator.wait_for_everyone()
    if isinstance(task, GeneratorTask):
        task.encode_clips(accelerator)
    if run.train.steps:
        fit(task, run.train, out, accelerator=accelerator, seed=run.seed, hooks=hooks)
    else:
        untrained.keep(task, run.train, out, accelerator=accelerator, hooks=hooks)
    return out


def with_resumption(
    out: Path, record: dict[str, Any], inputs: Mapping[str, object]
) -> dict[str, Any]:
    """`record`; for a run that goes on, the first one with this resumption added to it. `inputs`
    are as they were, except that a tokenizer may have moved."""
    if not checkpoints(out):
        return record
    first = read_environment(out)
    step = int(checkpoints(out)[-1].name.removeprefix("checkpoint-"))
    now = {key: record[key] for key in ("commit", "command", "device", "num_processes")}
    return {**first, **inputs, "resumed": [*first.get("resumed", []), {**now, "step": step}]}


def training_rows(run: Run, dataset: Dataset, split: Split) -> Int64[Tensor, " n"]:
    """The clips that a run may train on: none that scores, and seen combinations only if it says
    so. Raises UserError if a generator's hold a held-out combination, or if there are none."""
    rows = rows_for("training", dataset)
    classes, values = dataset.classes(), dataset.values()
    if run.combinations == "seen":
        rows = rows[split.seen(classes[rows], values[rows])]
    if isinstance(run, GeneratorRun):
        split.refuse_held_out(classes[rows], values[rows])
    if len(rows) == 0:
        raise UserError(
            f"none of the {len(dataset)} clips is left to train on: a fifth is for scoring, and "
            f"combinations={run.combinations} leaves none of the others; add clips"
        )
    return rows


def refuse_misfits(run: GeneratorRun, dataset: Dataset, rows: Int64[Tensor, " n"]) -> None:
    """Raise UserError if tokenizer, generator, clips, cache and judge do not fit: it is built once,
    before hours may go into its tokenizer."""
    tokenizer, _ = described_tokenizer(run.tokenizer)
    with initial_weights(run.seed):
        spec = tokenizer.tokenizer.build().spec
        run.generator.build(spec, dataset.factors)
    portions = portions_of(dataset, rows)
    for portion in portions:
        spec.grid(portion.num_frames, dataset.height, dataset.width)
    latents.refuse_misfit(run.train, dataset, spec, portions)
    refuse_unlocated(run, dataset, rows)
    if run.evaluate is not None:
        load_judge(Path(run.evaluate.probe), dataset.factors)


def prepare_tokenizer(tokenizer: str) -> Path:
    """The run folder of a tokenizer; given the YAML of one, it is trained first unless it is
    there."""
    run, config = described_tokenizer(tokenizer)
    path = Path(tokenizer)
    if config == path:
        return train(run, default_folder(run))
    if not finished(run, path):
        done = checkpoints(path)[-1].name if checkpoints(path) else "no checkpoint"
        raise UserError(
            f"the tokenizer in {path} is not finished ({done} of {run.train.steps} steps); go on "
            f"with: python tools/train.py {config} out={path}"
        )
    return path


def described_tokenizer(tokenizer: str) -> tuple[TokenizerRun, Path]:
    """The run of a tokenizer, and the YAML that describes it: `tokenizer`, or one in that
    folder."""
    path = Path(tokenizer)
    is_yaml = path.suffix in (".yaml", ".yml")
    if not is_yaml and not (path / "config.yaml").is_file():
        raise UserError(
            f"tokenizer={tokenizer} is neither a run folder nor a YAML; train one first, for "
            "example: python tools/train.py configs/tokenizers/fsq.yaml"
        )
    config = path if is_yaml else path / "config.yaml"
    run, _ = load_run(config)
    if not isinstance(run, TokenizerRun):
        raise UserError(f"tokenizer={tokenizer} is a generator's; name that of a tokenizer")
    return run, config
