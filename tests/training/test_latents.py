"""Latents that are made once are those that are made each time, and those of nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from safetensors.torch import load_file
from tiny import DATA, generator_run, metrics, tokenizer_run
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Clips, Dataset, build
from vidcomp.models.locations import LocationsConfig
from vidcomp.runs import EvaluateConfig, newest_checkpoint
from vidcomp.seeding import Rng
from vidcomp.training import latents
from vidcomp.training.generator_task import GeneratorTask, LatentBatch, refuse_unlocated
from vidcomp.training.latents import CACHE, Kept, code_type
from vidcomp.training.tasks import refuse_misfits, train, training_rows
from vidcomp.types import Grid, LatentSpec

SPRITES = {
    "name": "sprites",
    "num_clips": 60,
    "num_frames": 5,
    "height": 16,
    "width": 16,
    "factors": {"shape": ["circle", "triangle"], "colour": ["red", "blue"]},
}
MIXTURE = {
    "dataset": {
        "name": "mixture",
        "parts": [{"dataset": SPRITES | {"num_frames": 1}}, {"dataset": SPRITES | {"seed": 1}}],
    },
    "split": {"novel": {"shape": ["triangle"], "colour": ["blue"]}, "max_novel": 1},
}

OBJECTS = {
    "name": "counting",
    "num_clips": 60,
    "num_frames": 5,
    "height": 16,
    "width": 16,
    "counts": [0, 1, 2, 3],
    "radius_px": 1.5,
    "gap_px": 1.0,
    "label": "one",
}
COUNTED = {"dataset": OBJECTS, "split": {"rule": "range", "seen": {"count": [1, 2]}}}
STILLS = OBJECTS | {"num_frames": 1, "seed": 1, "clutter": [1, 1]}
COUNTED_MIXTURE = {
    "dataset": {"name": "mixture", "parts": [{"dataset": OBJECTS}, {"dataset": STILLS}]},
    "split": COUNTED["split"],
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache lies in the working directory; shards are small, so that there are several."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latents, "_SHARD_CLIPS", 16)


def task_of(tokenizer: Path, objective: str = "maskgit", **train: Any) -> GeneratorTask:
    data, places = train.pop("data", DATA), train.pop("places", None)
    job = generator_run(tokenizer, objective, data=data, **train)
    if places is not None:
        told = job.generator.conditioning.model_copy(update={"locations": places, "tell": ()})
        generator = job.generator.model_copy(update={"conditioning": told})
        job = job.model_copy(update={"generator": generator})
    dataset, split = build(job.data)
    task = GeneratorTask(job, dataset, split, training_rows(job, dataset, split), tokenizer)
    task.encode_clips(Accelerator(cpu=True))
    return task


def read(task: GeneratorTask, clips: Int64[Tensor, " b"]) -> LatentBatch:
    return task.batch(clips, Rng.make(0, "draw", clips))


def shards() -> dict[Path, int]:
    """The shards on disk, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in CACHE.rglob("*.safetensors")}


@pytest.mark.parametrize("data", [DATA, MIXTURE], ids=["one length", "two"])
@pytest.mark.parametrize("name", ["fsq", "kl"])
def test_cached_latents_are_those_encoded_live(
    name: str, data: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Codes are equal; values, which are matrix products of other batch sizes, to rounding."""
    folder = request.getfixturevalue(name)
    memory, disk, live = (
        task_of(folder, "flow", data=data, cache=kind) for kind in ("memory", "latents", "none")
    )
    assert live.cache is None and len(shards()) == len(disk.cache.shards) > 2
    rng = Rng.make(0, "train", torch.arange(6))
    for portion in live.portions:
        clips = portion.rows[torch.randperm(len(portion.rows))[:6]]
        ours, stored, fresh = (read(task, clips) for task in (memory, disk, live))
        found = [t._latents(b) for t, b in ((memory, ours), (disk, stored), (live, fresh))]
        assert torch.equal(found[0].values, found[1].values)
        torch.testing.assert_close(found[1].values, found[2].values, rtol=0, atol=1e-5)
        for batch, latent in zip((ours, stored), found, strict=False):
            assert torch.equal(batch.classes, fresh.classes)
            assert torch.equal(batch.values, fresh.values)
            if name == "fsq":
                assert torch.equal(latent.codes, found[2].codes)
                assert torch.equal(latent.values, found[2].values)
        losses = [task(batch, rng).total() for task, batch in ((disk, stored), (live, fresh))]
        torch.testing.assert_close(*losses)


@pytest.mark.parametrize("data", [COUNTED, COUNTED_MIXTURE], ids=["one length", "two"])
def test_places_come_out_of_a_cache_as_they_went_in(data: dict[str, Any], fsq: Path) -> None:
    memory, disk, again, live = (
        task_of(fsq, data=data, cache=kind, places=LocationsConfig())
        for kind in ("memory", "latents", "latents", "none")
    )
    rng = Rng.make(0, "train", torch.arange(6))
    for portion in live.portions:
        clips = portion.rows[torch.randperm(len(portion.rows))[:6]]
        fresh = read(live, clips)
        assert fresh.locations is not None and fresh.locations.given.sum(1).eq(1).all()
        assert fresh.locations.points.shape[1] == portion.num_frames
        for task in (memory, disk, again):
            kept = read(task, clips)
            assert kept.locations is not None
            room = max(x.present.shape[1] for x in (kept.locations, fresh.locations))
            ours, theirs = (x.padded(room).tensors() for x in (kept.locations, fresh.locations))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
            losses = [t(b.to("cpu"), rng).total() for t, b in ((task, kept), (live, fresh))]
            torch.testing.assert_close(*losses)


def test_places_are_kept_for_who_is_told_of_them_alone(fsq: Path) -> None:
    plain = task_of(fsq, data=COUNTED, cache="latents")
    assert read(plain, torch.arange(3)).locations is None
    without = {path.parent for path in shards()}
    told = task_of(fsq, data=COUNTED, cache="latents", places=LocationsConfig())
    assert read(told, torch.arange(3)).locations is not None
    assert len({path.parent for path in shards()} - without) == 1
    live = task_of(fsq, data=COUNTED, cache="none")
    assert read(live, torch.arange(3)).locations is None


def test_who_is_told_of_places_needs_clips_that_have_them(fsq: Path) -> None:
    words = (
        r"conditioning\.locations: these clips do not say .*; take .* or drop it \(sprites here\)"
    )
    blind = task_of(fsq, places=LocationsConfig())
    with pytest.raises(UserError, match=words) as error:
        refuse_unlocated(blind.run, blind.dataset, blind.rows)
    assert "\n" not in str(error.value)
    task = task_of(fsq, data=COUNTED, cache="none", places=LocationsConfig())
    curves = EvaluateConfig(every=1, probe="anywhere")
    task.run = task.run.model_copy(update={"evaluate": curves})
    with pytest.raises(UserError, match=r"evaluate: .* told of places; drop evaluate"):
        task.hooks()


def test_training_reads_the_same_from_memory_and_disk(fsq: Path, tmp_path: Path) -> None:
    """To the last bit, also with loader workers; and the second run finds what the first made."""
    train(generator_run(fsq), tmp_path / "memory")
    made: list[dict[Path, int]] = []
    for workers in (0, 2):
        train(generator_run(fsq, cache="latents", num_workers=workers), tmp_path / f"{workers}")
        made.append(shards())
        assert metrics(tmp_path / f"{workers}") == metrics(tmp_path / "memory")
        ours, theirs = (
            load_file(newest_checkpoint(tmp_path / run) / "model.safetensors")
            for run in (f"{workers}", "memory")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert made[0] == made[1] != {}


def test_another_tokenizer_dataset_or_split_finds_nothing(
    fsq: Path, kl: Path, tmp_path: Path
) -> None:
    task_of(fsq, cache="latents")
    keys = {path.parent for path in shards()}
    other = tmp_path / "other"
    train(tokenizer_run("fsq", steps=2), other)
    more = {**DATA, "dataset": {**DATA["dataset"], "seed": 7}}
    wider = {**DATA, "split": {**DATA["split"], "max_novel": 2}}
    for change in ({"tokenizer": other}, {"tokenizer": kl}, {"data": more}, {"data": wider}):
        task_of(**({"tokenizer": fsq, "objective": "flow", "cache": "latents"} | change))
        found = {path.parent for path in shards()}
        assert len(found) == len(keys) + 1
        keys = found


def test_settings_without_weights_count_as_well(fsq: Path, tmp_path: Path) -> None:
    """The levels of FSQ are in no weight, and the codes depend on them."""
    other = tmp_path / "other"
    shutil.copytree(fsq, other)
    config = (other / "config.yaml").read_text()
    before, after = "  - 5\n  - 5\n  - 5\n", "  - 3\n  - 5\n  - 5\n"
    assert before in config
    (other / "config.yaml").write_text(config.replace(before, after))
    for folder in (fsq, other):
        task_of(folder, "flow", cache="latents")
    assert len({path.parent for path in shards()}) == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_shard_is_made_again_and_no_other(
    damage: Callable[[Path], None], fsq: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read(task_of(fsq, cache="latents"), torch.arange(12))
    before = shards()
    victim = sorted(before)[1]
    damage(victim)
    again = read(task_of(fsq, cache="latents"), torch.arange(12))
    assert torch.equal(again.content.tensor, whole.content.tensor)
    after = shards()
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == [victim]
    said = capsys.readouterr().out
    assert (f"{victim} is damaged" in said) == (damage is not Path.unlink)
    assert f"1 of {len(before)} shards encoded" in said


def test_an_interrupted_encoding_goes_on(fsq: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete or absent: what the interruption left is whole, and is not made again."""
    save, calls = latents.write_bytes, []

    def save_then_stop(path: Path, content: bytes) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path)
        save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "write_bytes", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            task_of(fsq, cache="latents")
    before = shards()
    assert len(before) == 2
    task = task_of(fsq, cache="latents")
    after = shards()
    assert len(after) == len(task.cache.shards) > 2
    assert before.items() <= after.items()
    assert not list(CACHE.rglob(".*"))


class Process(Accelerator):
    """Process `rank` of `size`; at the barrier, the next one has its turn."""

    def __init__(self, rank: int, size: int, at_barrier: Callable[[], None]) -> None:
        self.rank, self.size, self.at_barrier = rank, size, at_barrier

    process_index = property(lambda self: self.rank)
    num_processes = property(lambda self: self.size)
    device = property(lambda self: torch.device("cpu"))

    def wait_for_everyone(self) -> None:
        self.at_barrier()

    def print(self, *words: object) -> None:
        assert words


def test_each_process_encodes_its_share(fsq: Path) -> None:
    whole = task_of(fsq)
    job = generator_run(fsq, cache="latents")
    tasks = [GeneratorTask(job, whole.dataset, whole.split, whole.rows, fsq) for _ in range(2)]
    wrote: list[int] = []

    def second() -> None:
        wrote.append(len(shards()))
        tasks[1].encode_clips(Process(1, 2, lambda: wrote.append(len(shards()))))

    tasks[0].encode_clips(Process(0, 2, second))
    total = len(whole.cache.shards)
    assert wrote == [(total + 1) // 2, total]
    clips = torch.arange(len(whole.rows))
    for task in tasks:
        assert torch.equal(read(task, clips).content.tensor, read(whole, clips).content.tensor)


class Cropped(Dataset):
    """A dataset whose `draw` gives each clip another brightness, as a stand-in for crops."""

    is_random = True

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.factors, self.fps, self.fingerprint = inner.factors, inner.fps, inner.fingerprint
        self.num_frames, self.height, self.width = inner.num_frames, inner.height, inner.width

    fingerprint = ""

    def __len__(self) -> int:
        return len(self.inner)

    def classes(self) -> Int64[Tensor, "n f"]:
        return self.inner.classes()

    def values(self) -> Float[Tensor, "n f v"]:
        return self.inner.values()

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        return self.inner.clips(indices)

    def draw(self, indices: Int64[Tensor, " b"], rng: Rng) -> Clips:
        clips = self.inner.clips(indices)
        share = rng.uniform(1, 1, 1, 1)
        return Clips((clips.frames * share).to(torch.uint8), clips.classes, clips.values)


def test_random_crops_and_any_cache_exclude_each_other(fsq: Path) -> None:
    plain, split = build(generator_run(fsq).data)
    dataset = Cropped(plain)
    for kind in ("memory", "latents"):
        job = generator_run(fsq, cache=kind)
        with pytest.raises(UserError, match=r"draws random crops; set train\.cache=none"):
            refuse_misfits(job, dataset, training_rows(job, dataset, split))
    job = generator_run(fsq, cache="none")
    rows = training_rows(job, dataset, split)
    refuse_misfits(job, dataset, rows)
    task, clips = GeneratorTask(job, dataset, split, rows, fsq), torch.arange(3)
    one, same, other = (
        task.batch(clips, Rng.make(0, "draw", torch.arange(i, i + 3))).content for i in (0, 0, 3)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_does_not_fit_into_memory_is_said(fsq: Path) -> None:
    job = generator_run(fsq, cache_gb=1e-7)
    dataset, split = build(job.data)
    with pytest.raises(UserError, match=r"train\.cache_gb=1e-07; set train\.cache=latents"):
        refuse_misfits(job, dataset, training_rows(job, dataset, split))


@pytest.mark.parametrize(
    "size, dtype",
    [(256, torch.uint8), (257, torch.int16), (2**15, torch.int16), (2**15 + 1, torch.int32)],
)
def test_codes_are_kept_in_the_smallest_type(size: int, dtype: torch.dtype, fsq: Path) -> None:
    spec = LatentSpec(Grid(1, 1, 1), 3, codebook_sizes=(size, 2))
    assert code_type(spec) == dtype
    assert torch.tensor(size - 1).to(dtype).long() == size - 1
    task = task_of(fsq)
    content = read(task, torch.arange(2)).content
    assert isinstance(content, Kept) and content.tensor.dtype == torch.uint8
