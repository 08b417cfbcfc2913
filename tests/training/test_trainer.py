"""The loop is AdamW on the mean of the global batch, however that is cut; bad steps are skipped."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from safetensors.torch import load_file
from tiny import TRAIN, generator_run, metrics, tokenizer_run
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.datasets.base import Portion, build
from vidcomp.runs import (
    TrainConfig,
    checkpoints,
    load_tokenizer,
    newest_checkpoint,
    rows_for,
)
from vidcomp.schedules import warmup_cosine
from vidcomp.seeding import Rng, stream_indices
from vidcomp.training.generator_task import GeneratorTask
from vidcomp.training.tasks import train, training_rows
from vidcomp.training.tokenizer_task import TokenizerTask, shown_psnr_db
from vidcomp.training.trainer import (
    Hooks,
    Task,
    due,
    fit,
    make_accelerator,
    micro_batch_size,
    parameter_groups,
)
from vidcomp.types import Losses, video_from_frames

NUM_CLIPS = 24


def config(**changed: Any) -> TrainConfig:
    return TrainConfig.model_validate(TRAIN | changed)


@dataclass(frozen=True)
class Rows:
    """Rows of a table of numbers, and which they are."""

    clips: Tensor
    x: Tensor

    def to(self, device: torch.device) -> "Rows":
        return Rows(self.clips.to(device), self.x.to(device))


class Regression(Task[nn.Linear]):
    """Linear regression with noise; steps whose number is in `bad` have a NaN in their batch."""

    def __init__(self, bad: tuple[int, ...] = (), batch_size: int = 8) -> None:
        super().__init__()
        self.model = nn.Linear(3, 1)
        with torch.no_grad():
            self.model.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
            self.model.bias.zero_()
        self.portions, self.tokens_per_clip = (Portion(torch.arange(NUM_CLIPS), 1.0, 1),), 1.0
        self.table = Rng.make(1, "table", torch.arange(NUM_CLIPS)).normal(3)
        self.bad, self.batch_size = bad, batch_size
        self.seen: list[int] = []
        self.skipped = 0

    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> Rows:
        return Rows(clips, self.table[clips])

    def forward(self, batch: Rows, rng: Rng) -> Losses:
        step = len(self.seen) // self.batch_size
        self.seen += batch.clips.tolist()
        noise = 0.1 * rng.normal(1)[:, 0]
        error = (self.model(batch.x)[:, 0] - batch.x.sum(1) - noise).square()
        return Losses.of({"error": error * (torch.nan if step in self.bad else 1.0)})

    def after_skipped_step(self) -> None:
        self.skipped += 1


def rng_of(items: Tensor, purpose: str = "draw") -> Rng:
    """What training gives to `Task.batch` for items of its stream."""
    return Rng.make(3, purpose, items)


def run(task: Task[Any], out: Path, hooks: Hooks | None = None, **changed: Any):
    settings = config(**changed)
    out.mkdir(parents=True, exist_ok=True)
    return fit(
        task, settings, out, accelerator=make_accelerator(settings, out), seed=3, hooks=hooks
    )


def test_the_loop_is_adamw_on_the_mean_of_the_batch(tmp_path: Path) -> None:
    """Against the same thing written down plainly, on torch's own AdamW."""
    task, plain = Regression(), Regression()
    ema = run(task, tmp_path, steps=7, grad_clip=0.5, ema_decay=0.9)
    settings = config(steps=7, grad_clip=0.5)
    average = [p.detach().clone() for p in plain.parameters()]
    weight, bias = plain.model.weight, plain.model.bias
    adam = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": 0.03}, {"params": [bias], "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.98),
    )
    for step in range(7):
        items = torch.arange(step * 8, step * 8 + 8)
        batch = plain.batch(stream_indices(3, NUM_CLIPS, step * 8, 8), rng_of(items))
        adam.zero_grad()
        plain(batch, Rng.make(3, "train", items)).total().mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in adam.param_groups:
            group["lr"] = 1e-3 * warmup_cosine(step, num_steps=settings.steps, warmup_steps=2)
        adam.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = [
            decay * a + (1 - decay) * p.detach()
            for a, p in zip(average, plain.parameters(), strict=True)
        ]
    torch.testing.assert_close(list(task.parameters()), list(plain.parameters()))
    torch.testing.assert_close(list(ema.model.parameters()), average)


def test_a_bad_step_is_skipped_and_counted(tmp_path: Path) -> None:
    task = Regression(bad=(1,))
    before: list[Tensor] = []

    def remember(step: int, model: nn.Module) -> dict[str, float]:
        before.append(torch.cat([p.detach().flatten() for p in task.model.parameters()]))
        before.append(torch.cat([p.flatten() for p in model.parameters()]))
        return {}

    run(task, tmp_path, Hooks(evaluate=remember, every=1), steps=3)
    first, averaged, second, averaged_2, third, _ = before
    assert torch.equal(first, second) and torch.equal(averaged, averaged_2)
    assert not torch.equal(second, third) and third.isfinite().all()
    assert task.skipped == 1
    assert '"skipped_steps": 1' in (newest_checkpoint(tmp_path) / "state.json").read_text()


def test_ten_bad_steps_in_a_row_end_the_run_with_its_checkpoints_intact(tmp_path: Path) -> None:
    nine_and_one = (*range(2, 11), 12)
    run(Regression(bad=nine_and_one), tmp_path / "nine", steps=14)
    with pytest.raises(
        UserError, match=r"10 steps in a row .* step 11; lower train\.learning_rate"
    ):
        run(Regression(bad=tuple(range(2, 12))), tmp_path / "ten", steps=14, checkpoint_every=2)
    assert checkpoints(tmp_path / "ten")[0].name == "checkpoint-8"


def test_a_codebook_forgets_the_step_that_was_not_taken() -> None:
    tokenizer = tokenizer_run("vq")
    dataset, _ = build(tokenizer.data)
    skipping, other = (TokenizerTask(tokenizer, dataset, torch.arange(16)).train() for _ in "ab")
    items = [torch.arange(i, i + 8) for i in (0, 8)]
    first, second = (skipping.batch(rows, rng_of(rows)) for rows in items)
    rngs = [rng_of(rows, "train") for rows in items]
    start = {name: b.clone() for name, b in skipping.model.named_buffers()}

    skipping(first, rngs[0])
    skipping.after_skipped_step()
    assert all(torch.equal(b, start[name]) for name, b in skipping.model.named_buffers())

    for task in (skipping, other):
        task(second, rngs[1])
        task.after_step()
    pairs = zip(skipping.model.buffers(), other.model.buffers(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    changed = dict(skipping.model.named_buffers())
    assert not torch.equal(changed["codebook"], start["codebook"])


def distance(one: Path, other: Path) -> float:
    """Between the weights of two runs, relative to how long they are."""
    ours, theirs = (load_file(newest_checkpoint(f) / "model.safetensors") for f in (one, other))
    gaps = torch.stack([(ours[k].double() - theirs[k].double()).norm() for k in ours])
    lengths = torch.stack([ours[k].double().norm() for k in ours])
    return float(gaps.norm() / lengths.norm())


@pytest.mark.parametrize("name", ["fsq", "vq", "kl", "maskgit", "flow"])
def test_accumulation_changes_nothing_but_rounding(name: str, fsq: Path, tmp_path: Path) -> None:
    for accumulate in (1, 2):
        if name in ("maskgit", "flow"):
            job = generator_run(fsq, name, jepa=True, accumulate=accumulate)
        else:
            job = tokenizer_run(name, accumulate=accumulate)
        train(job, tmp_path / str(accumulate))
    for one, two in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert one == pytest.approx(two, rel=2e-3, abs=1e-6)
    assert distance(tmp_path / "1", tmp_path / "2") < 1e-3


def test_workers_read_what_the_process_itself_reads(fsq: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        job = generator_run(fsq, steps=2, num_workers=workers, cache="none")
        train(job, tmp_path / str(workers))
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")


def test_bf16_trains_beside_full_precision(fsq: Path, tmp_path: Path) -> None:
    """One after the other in a process, and close to each other."""
    for precision in ("bf16", "no"):
        train(generator_run(fsq, steps=2, mixed_precision=precision), tmp_path / precision)
    bf16, full = (metrics(tmp_path / precision)[0]["loss"] for precision in ("bf16", "no"))
    assert bf16 != full and bf16 == pytest.approx(full, rel=0.02)


def test_live_latents_keep_full_precision_within_autocast(fsq: Path) -> None:
    job = generator_run(fsq, "flow", cache="none")
    dataset, split = build(job.data)
    task = GeneratorTask(job, dataset, split, training_rows(job, dataset, split), fsq)
    batch = task.batch(torch.arange(4), rng_of(torch.arange(4)))
    with torch.autocast("cpu", torch.bfloat16):
        inside = task._latents(batch)
    assert torch.equal(inside.values, task._latents(batch).values)


def test_a_held_out_clip_in_a_batch_is_refused(fsq: Path) -> None:
    """Whatever the table said when the rows were chosen."""
    job = generator_run(fsq)
    dataset, split = build(job.data)
    held_out = (~split.seen(dataset.classes(), dataset.values())).nonzero()[:, 0]
    task = GeneratorTask(job, dataset, split, held_out, fsq)
    for cached in (False, True):
        if cached:
            task.encode_clips(Accelerator(cpu=True))
        with pytest.raises(UserError, match="held-out combinations"):
            task.batch(torch.arange(2), rng_of(torch.arange(2)))


def test_who_trains_on_what(fsq: Path) -> None:
    dataset, split = build(tokenizer_run().data)
    scoring = set(rows_for("scoring", dataset).tolist())
    everything = training_rows(tokenizer_run(), dataset, split)
    seen = training_rows(generator_run(fsq), dataset, split)
    assert not scoring & set(everything.tolist())
    assert set(everything.tolist()) | scoring == set(range(len(dataset)))
    assert set(seen.tolist()) < set(everything.tolist())
    assert split.seen(dataset.classes()[seen], dataset.values()[seen]).all()
    assert not split.seen(dataset.classes()[everything], dataset.values()[everything]).all()
    ablation = tokenizer_run().model_copy(update={"combinations": "seen"})
    assert torch.equal(training_rows(ablation, dataset, split), seen)


def test_no_clip_to_train_on_is_said() -> None:
    job = tokenizer_run()
    data = {"dataset": job.data.dataset.model_dump() | {"num_clips": 1}, "split": {}}
    one = tokenizer_run(data=data)
    dataset, split = build(one.data)
    with pytest.raises(UserError, match="none of the 1 clips"):
        training_rows(one, dataset, split)


def test_what_is_due() -> None:
    assert [step for step in range(1, 8) if due(step, 3, 7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if due(step, 0, 7)] == [7]


def test_hooks_see_the_averages_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, nn.Module]] = []

    def hook(step: int, model: nn.Module) -> dict[str, float]:
        calls.append((step, model))
        return {"eval/x": float(step)}

    ema = run(Regression(), tmp_path, Hooks(evaluate=hook, every=2), steps=5)
    assert [step for step, _ in calls] == [2, 4, 5]
    assert all(model is ema.model for _, model in calls)
    found = [line["eval/x"] for line in metrics(tmp_path) if "eval/x" in line]
    assert found == [2, 4, 5]


def test_only_matrices_and_tables_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 2))
    module[0].weight.requires_grad_(False)
    decaying, plain = parameter_groups(module, 0.1)
    assert decaying["weight_decay"] == 0.1 and plain["weight_decay"] == 0
    assert [p.shape for p in decaying["params"]] == [(5, 2)]
    assert sorted(len(p) for p in plain["params"]) == [4, 4, 4]


def test_the_global_batch_divides() -> None:
    assert micro_batch_size(config(batch_size=12, accumulate=3), 2) == 2
    with pytest.raises(UserError, match=r"multiple of 2 processes x train\.accumulate=3"):
        micro_batch_size(config(batch_size=8, accumulate=3), 2)


def test_the_last_line_says_how_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Regression(), tmp_path)
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 1
    for words in ("6 steps", "steps/s", "tokens/s", "waiting for data", "0 steps skipped"):
        assert words in printed[0]


def event_files(out: Path) -> list[Path]:
    return list(out.rglob("events.out.tfevents.*"))


def test_tensorboard_is_the_default_and_none_is_none(tmp_path: Path) -> None:
    assert TrainConfig(steps=1).tracker == "tensorboard"
    run(Regression(), tmp_path / "default", tracker="tensorboard")
    run(Regression(), tmp_path / "none", tracker="none")
    assert len(event_files(tmp_path / "default")) == 1
    assert event_files(tmp_path / "none") == []


def test_an_unknown_tracker_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.tracker=tensorbord: .*tensorboard.*'none'"):
        make_accelerator(config(tracker="tensorbord"), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.tracker=wandb: its package is not installed"):
        make_accelerator(config(tracker="wandb"), tmp_path)


def test_a_finished_tokenizer_knows_its_latents(fsq: Path, kl: Path) -> None:
    """Zero mean and unit variance on the clips that it was measured on; its PSNR on fresh ones."""
    for folder in (fsq, kl):
        tokenizer = load_tokenizer(folder)
        job = tokenizer_run(folder.name)
        dataset, split = build(job.data)
        task = TokenizerTask(job, dataset, training_rows(job, dataset, split))
        (portion,) = task.portions
        frames = task.batch(portion.rows, rng_of(portion.rows)).frames
        flat = tokenizer.encode(video_from_frames(frames)).values.flatten(0, 3)
        torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1]), atol=1e-4, rtol=0)
        std = flat.std(0, correction=0)
        assert ((std - 1).abs() < 1e-3).logical_or(std < 1e-3).all()  # or a channel never changes
        last = metrics(folder)[-1]
        assert last["step"] == 60 and last["eval/psnr_db"] > 10
        video = video_from_frames(dataset.clips(rows_for("scoring", dataset)).frames)
        fresh = shown_psnr_db(tokenizer.decode(tokenizer.encode(video)), video).mean()
        assert last["eval/psnr_db"] == pytest.approx(float(fresh), abs=1e-3)
    assert 0 < metrics(fsq)[-1]["eval/code_usage_0"] <= 1
