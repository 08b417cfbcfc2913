"""Storing a dataset: exact, resumable, checked, and never two datasets in one folder."""

import csv
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import ROOT, run_tool, write_config

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Config, DataConfig, DataRoot, build
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.datasets.folder import Dataset as FolderDataset
from vidcomp.media import MediaError, write_video
from vidcomp.storage import prepare, shards, store, verify
from vidcomp.world.manifest import Manifest

BITS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}
SPLIT = {"novel": {"colour": ["blue"], "shape": ["triangle"]}, "max_novel": 1}


def sprites(**changes: object) -> Config:
    raw = {"name": "sprites", "num_clips": 11, "num_frames": 2, "factors": BITS, **changes}
    return DATASETS.config(raw)


def reader(folder: Path, **settings: object) -> FolderDataset:
    return FolderConfig.model_validate({"path": folder, **settings}).build()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def clips_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("clips/*/*.mp4"))


def flip(path: Path) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four clips a shard, two at a time: eleven clips lie in three."""
    monkeypatch.setattr(shards, "SHARD", 4)
    monkeypatch.setattr(shards, "BATCH", 2)


def stop_after(count: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def failing(path: Path, clip: torch.Tensor, *, fps: float) -> None:
        if len(written) == count:
            raise error
        written.append(path)
        write_video(path, clip, fps=fps)

    monkeypatch.setattr(shards, "write_video", failing)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 9])
@pytest.mark.parametrize("size", [(32, 32), (17, 23)])
def test_what_is_read_is_what_was_drawn(
    tmp_path: Path, decoder: str, num_frames: int, size: tuple[int, int]
) -> None:
    factors = {"shape": ["star", "ring"], "size": ["large", "small"], "colour": ["red", "cyan"]}
    shape = {"num_frames": num_frames, "height": size[0], "width": size[1], "fps": 12.5}
    config = sprites(factors=factors, **shape)
    store(config, tmp_path)
    drawn, read = config.build(), reader(tmp_path, decoder=decoder)
    assert read.factors == drawn.factors and len(read) == len(drawn)
    assert (read.num_frames, read.height, read.width, read.fps) == (num_frames, *size, 12.5)
    everything = torch.arange(len(drawn))
    a, b = drawn.clips(everything), read.clips(everything)
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.classes, b.classes)
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.values, drawn.values()) and torch.equal(a.values, read.values())
    ours, theirs = drawn.truth(everything), read.truth(everything)
    assert ours is not None and theirs is not None
    assert torch.equal(ours.masks(), theirs.masks())
    assert torch.equal(ours.positions_px, theirs.positions_px)


def test_clips_are_read_without_their_truth(tmp_path: Path) -> None:
    """Training needs none, and reading it cost a third of the time."""
    store(sprites(), tmp_path)
    read = reader(tmp_path)
    path = tmp_path / "clips" / "0000" / "000001.truth.safetensors"
    path.write_bytes(path.read_bytes()[:30])
    assert len(read.clips(torch.arange(11)).frames) == 11
    with pytest.raises(MediaError, match=r"000001\.truth\.safetensors is damaged") as raised:
        read.truth(torch.arange(2))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("done", [0, 1, 7, 8])
@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_render_goes_on_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    store(sprites(), whole)
    with monkeypatch.context() as patch:
        stop_after(done, KeyboardInterrupt(), patch)
        with pytest.raises(KeyboardInterrupt):
            store(sprites(), cut)
    kept = contents(cut)
    assert sum(name.endswith(".mp4") for name in kept) == done
    kept.pop("dataset.json")
    assert all(kept[name] == content for name, content in contents(whole).items() if name in kept)
    with pytest.raises(UserError, match=f"holds {done} of 11 clips.*go on with the same command"):
        reader(cut)
    with pytest.raises(UserError, match=f"interrupted at {done} of 11 clips; go on with: python"):
        verify(cut)
    # A process that was killed while it wrote leaves a part, which is nobody's clip.
    part = cut / "clips" / "0002" / ".000009.mp4.77.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(b"half")
    os.utime(part, (time.time() - 1,) * 2)
    dates = {path: path.stat().st_mtime_ns for path in clips_in(cut)}
    store(sprites(), cut)
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items())
    assert contents(cut) == contents(whole)


def test_a_full_disk_reaches_the_caller_and_keeps_earlier_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(4, OSError(errno.ENOSPC, "No space left on device"), patch)
        with pytest.raises(OSError, match="No space left"):
            store(sprites(), tmp_path)
    assert len(clips_in(tmp_path)) == 4
    store(sprites(), tmp_path)
    assert len(reader(tmp_path)) == 11


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot be written: .*; choose another place") as raised:
        store(sprites(), tmp_path / "a file" / "data")
    assert "\n" not in str(raised.value)


def test_a_finished_dataset_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(sprites(), tmp_path)
    stop_after(0, AssertionError("nothing is to be written"), monkeypatch)
    store(sprites(), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"num_clips": 12},
        {"height": 40},
        {"factors": {"colour": BITS["colour"], "shape": BITS["shape"], "motion": BITS["motion"]}},
    ],
)
def test_another_dataset_in_the_folder_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    store(sprites(), tmp_path)
    with pytest.raises(UserError, match=r"holds another dataset.*choose another folder"):
        store(sprites(**changes), tmp_path)


def test_somebodys_own_clips_are_never_rendered_over(tmp_path: Path) -> None:
    (tmp_path / "factors.csv").write_text("path,shape\na.mp4,star\n")
    with pytest.raises(UserError, match="were not rendered"):
        store(sprites(), tmp_path)


def test_prepare_renders_once_and_build_reads(tmp_path: Path) -> None:
    config = DataConfig.model_validate(
        {
            "dataset": {"name": "folder", "path": tmp_path / "new" / "place"},
            "split": SPLIT,
            "render": {"name": "sprites", "num_clips": 8, "num_frames": 2, "factors": BITS},
        }
    )
    with pytest.raises(UserError, match=r"no folder .*tools/render.py"):
        build(config)
    prepare(config)
    before = contents(tmp_path)
    prepare(config)
    assert contents(tmp_path) == before
    dataset, split = build(config)
    assert len(dataset) == 8
    assert split.level_names == ("seen", "level-1")
    assert set(split.levels(dataset.classes(), dataset.values()).tolist()) == {0, 1}


def test_a_drawn_dataset_needs_no_render() -> None:
    raw = {"dataset": {"name": "sprites", "factors": BITS}, "split": {}}
    config = DataConfig.model_validate(raw)
    prepare(config)
    assert len(build(config).dataset) == 4000
    solids = {"name": "shapes3d", "path": "3dshapes.h5"}  # in a file, which nothing may replace
    for dataset in (raw["dataset"], solids):
        with pytest.raises(ValueError, match=r"by dataset 'folder', not '.*'; drop render"):
            DataConfig.model_validate({**raw, "dataset": dataset, "render": raw["dataset"]})


def test_a_drawn_dataset_can_be_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = ROOT / "configs" / "data" / "counting.yaml", tmp_path / "counting"
    changes = ["data.dataset.num_clips=22", "data.dataset.num_frames=2"]
    assert run_tool("render", config, *changes) == 2
    assert "counting.yaml has no folder; say out=DIR" in capsys.readouterr().err
    assert run_tool("render", config, f"out={out}", *changes) == 0
    assert "of 22 clips: 6 seen, 16 level-1" in capsys.readouterr().out
    assert run_tool("render", "verify", out) == 0
    drawn = DataRoot.load(config, changes).data.drawn
    assert drawn is not None
    everything = torch.arange(22)
    stored = reader(out).clips(everything).frames
    assert torch.equal(stored, drawn.build().clips(everything).frames)

    assert run_tool("render", ROOT / "configs/data/shapes3d.yaml", f"out={out}") == 2
    assert "shapes3d.yaml has no data.render" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["motion", "shapes2d"])
def test_the_shipped_worlds_have_the_papers_levels(name: str) -> None:
    path = ROOT / "configs" / "data" / f"{name}.yaml"
    config = DataRoot.load(path, ["data.render.num_clips=8"]).data
    assert config.render is not None
    dataset = config.render.build()
    levels = config.split.build(dataset.factors).levels(dataset.classes(), dataset.values())
    assert torch.bincount(levels).tolist() == [4, 3, 1]


@pytest.mark.usefixtures("small_shards")
def test_shards_are_runs_of_clips_with_checksums_that_others_can_read(tmp_path: Path) -> None:
    store(sprites(), tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in clips_in(tmp_path)]
    assert names == [f"clips/{i // 4:04d}/{i:06d}.mp4" for i in range(11)]
    assert tuple(names) == reader(tmp_path).table.paths
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    for place in tmp_path.glob("clips/*"):
        shown = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=place, capture_output=True)
        assert shown.returncode == 0
        assert shown.stdout.count(b": OK") == len(list(place.iterdir())) - 1


def test_no_folder_grows_large() -> None:
    assert 2 * shards.SHARD + 1 <= 1000  # clips, truth, and the checksums
    assert shards.num_shards(100_000) <= 1000
    assert shards.SHARD % shards.BATCH == 0, "each batch is full, but the last one"


@pytest.mark.usefixtures("small_shards")
def test_verify_names_what_is_missing_broken_or_extra(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    store(sprites(), whole)
    assert verify(whole).faults == ()
    assert verify(whole).summary == "11 clips in 3 shards: whole"

    bad = Path(shutil.copytree(whole, tmp_path / "bad"))
    flip(bad / "clips/0000/000002.mp4")
    flip(bad / "clips/0001/000005.truth.safetensors")
    flip(bad / "factors.csv")
    (bad / "clips/0001/000006.mp4").unlink()
    (bad / "clips/0001/000007.truth.safetensors").unlink()
    (bad / "clips/0002/a note.txt").write_text("mine")
    (bad / "clips/000000.mp4").write_text("of the flat layout of old")
    assert set(verify(bad).faults) == {
        "broken  clips/0000/000002.mp4",
        "broken  clips/0001/000005.truth.safetensors",
        "broken  factors.csv",
        "missing clips/0001/000006.mp4",
        "missing clips/0001/000007.truth.safetensors",
        "extra   clips/0002/a note.txt",
        "extra   clips/000000.mp4",
    }
    assert verify(bad).summary.startswith(f"7 files of {bad} are not as they were rendered")

    for name in ("000000.mp4", "0002/a note.txt", "0000/000002.mp4"):
        (bad / "clips" / name).unlink()
    (bad / "clips/0001/000005.truth.safetensors").unlink()  # as the summary says
    (bad / "factors.csv").unlink()
    store(sprites(), bad)
    assert contents(bad) == contents(whole)

    flip(bad / "clips/0000/SHA256SUMS")
    shutil.rmtree(bad / "clips/0001")
    assert verify(bad).faults == (
        "broken  clips/0000/SHA256SUMS",
        "missing clips/0001/SHA256SUMS",
    )


def cut(path: Path) -> None:
    """Its last byte."""
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "damage, lost",
    [
        ({"clips/0001/000005.mp4": Path.unlink}, "clips/0001/000005.mp4 is"),
        ({"clips/0001/000005.mp4": cut}, "clips/0001/000005.mp4 is"),
        ({"clips/0002/000010.truth.safetensors": Path.unlink}, "clips/0002/000010.mp4 is"),
        ({"clips/0002/000010.truth.safetensors": cut}, "clips/0002/000010.mp4 is"),
        ({"clips/0000/SHA256SUMS": Path.unlink}, "clips/0000/000000.mp4 and 3 more files are"),
        ({"clips/0000/SHA256SUMS": cut}, "clips/0000/SHA256SUMS is"),
        ({"clips/0001": shutil.rmtree}, "clips/0001/000004.mp4 and 3 more files are"),
        ({"clips": shutil.rmtree}, "clips/0000/000000.mp4 and 10 more files are"),
        ({"factors.csv": cut}, "factors.csv is"),
        ({"factors.csv": Path.unlink, "levels.csv": Path.unlink}, "factors.csv and 1 more"),
        ({"levels.csv": cut, "clips/0000/000000.mp4": cut}, "levels.csv and 1 more"),
    ],
)
def test_what_a_finished_dataset_has_lost_is_made_again(
    tmp_path: Path,
    damage: dict[str, Callable[[Path], object]],
    lost: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = {"dataset": {"name": "folder", "path": tmp_path}, "split": SPLIT}
    config = DataConfig.model_validate({**raw, "render": sprites()})
    prepare(config)
    whole = contents(tmp_path)
    for name, hurt in damage.items():
        hurt(tmp_path / name)
    kept = {path: path.stat().st_mtime_ns for path in clips_in(tmp_path)}
    capsys.readouterr()
    prepare(config)
    said = [line for line in capsys.readouterr().err.splitlines() if "made again" in line]
    assert len(said) == 1 and f"{tmp_path}: {lost}" in said[0]
    assert contents(tmp_path) == whole
    touched = [path for path, date in kept.items() if path.stat().st_mtime_ns != date]
    # Without their checksums, four clips are vouched for by nobody.
    assert len(touched) <= (4 if "clips/0000/SHA256SUMS" in damage else 1)
    prepare(config)
    assert "made again" not in capsys.readouterr().err


@pytest.mark.usefixtures("small_shards")
def test_a_dataset_of_an_older_version_gets_missing_clips_again(tmp_path: Path) -> None:
    """It knows no sizes."""
    store(sprites(), tmp_path)
    whole, manifest = contents(tmp_path), Manifest.load(tmp_path)
    assert manifest is not None
    replace(manifest, sizes={}).save(tmp_path)
    (tmp_path / "clips/0001/000005.mp4").unlink()
    store(sprites(), tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.usefixtures("small_shards")
def test_verify_names_the_shards_when_all_clips_are_gone(tmp_path: Path) -> None:
    store(sprites(), tmp_path)
    shutil.rmtree(tmp_path / "clips")
    lists = [f"missing clips/{shard:04d}/SHA256SUMS" for shard in range(3)]
    assert verify(tmp_path).faults == tuple(lists)


def test_a_render_that_was_killed_before_its_checksums_gets_them(tmp_path: Path) -> None:
    raw = {"dataset": {"name": "folder", "path": tmp_path / "data"}, "split": SPLIT}
    config = DataConfig.model_validate({**raw, "render": sprites()})
    prepare(config)
    whole, manifest = contents(tmp_path), Manifest.load(tmp_path / "data")
    assert manifest is not None
    replace(manifest, checksums={}, split=None).save(tmp_path / "data")
    (tmp_path / "data" / "levels.csv").unlink()
    with pytest.raises(UserError, match=r"interrupted before its checksums; go on with: python"):
        verify(tmp_path / "data")
    prepare(config)
    assert contents(tmp_path) == whole
    assert verify(tmp_path / "data").faults == ()


def test_verify_says_what_it_cannot_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere has no dataset\.json.*name a folder"):
        verify(tmp_path / "nowhere")
    store(sprites(), tmp_path)
    found = Manifest.load(tmp_path)
    assert found is not None
    Manifest(**{**vars(found), "checksums": {}}).save(tmp_path)
    (tmp_path / "clips/0000/SHA256SUMS").unlink()
    with pytest.raises(UserError, match=r"has no checksums.* can be trained on"):
        verify(tmp_path)
    assert len(reader(tmp_path)) == 11


def data_yaml(folder: Path, **render: object) -> Path:
    raw = {"name": "sprites", "num_frames": 2, "height": 16, "width": 16, "factors": BITS, **render}
    data = {"dataset": {"name": "folder", "path": str(folder / "data")}, "split": SPLIT}
    return write_config({"data": {**data, "render": raw}}, folder / "data.yaml")


def test_the_tool_renders_labels_and_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = data_yaml(tmp_path, num_clips=16), tmp_path / "there"
    assert run_tool("render", config, f"out={out}") == 0
    assert "of 16 clips: 12 seen, 4 level-1" in capsys.readouterr().out
    assert (out / "split.png").read_bytes().startswith(b"\x89PNG")
    assert run_tool("render", "verify", out) == 0
    assert "16 clips in 1 shards: whole" in capsys.readouterr().out

    dataset = reader(out)
    split = DataRoot.load(config).data.split.build(dataset.factors)
    with (out / "levels.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["path"] for row in rows] == list(dataset.table.paths)
    levels = split.levels(dataset.classes(), dataset.values()).tolist()
    assert [row["level"] for row in rows] == [("seen", "level-1")[level] for level in levels]
    ids = dataset.factors.combination_ids(dataset.classes()).tolist()
    assert [int(row["combination"]) for row in rows] == ids
    manifest = Manifest.load(out)
    assert manifest is not None and manifest.split == split.digest

    # Another split of the same clips: its levels, and the clips stay.
    before = contents(out / "clips")
    assert run_tool("render", config, f"out={out}", "data.split.max_novel=0") == 0
    assert contents(out / "clips") == before
    assert "level-2" in (out / "levels.csv").read_text()
    assert run_tool("render", "verify", out) == 0

    flip(out / "levels.csv")
    capsys.readouterr()
    assert run_tool("render", "verify", out) == 2
    shown = capsys.readouterr()
    assert shown.out == "broken  levels.csv\n" and "1 files of" in shown.err
    assert run_tool("render", "verify", out, "workers=2") == 2
    assert "verify takes a folder and nothing else" in capsys.readouterr().err


def test_a_mistake_in_the_split_is_found_before_anything_is_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = data_yaml(tmp_path, num_clips=16)
    assert run_tool("render", config, "data.split.novel.size=[large]") == 2
    assert "size" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_killed_render_leaves_no_worker_and_goes_on_to_the_same_files(tmp_path: Path) -> None:
    config, cut = data_yaml(tmp_path, num_clips=600), tmp_path / "cut"
    words = [sys.executable, ROOT / "tools/render.py", config, f"out={cut}", "workers=2"]
    tool = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not clips_in(cut):
        assert tool.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    tool.kill()
    assert "Traceback" not in tool.communicate(timeout=10)[1]  # when none has its stderr any more
    assert 1 <= len(clips_in(cut)) < 600
    assert (cut / "dataset.json").exists() and not (cut / "factors.csv").exists()

    render = DataRoot.load(config).data.render
    assert render is not None
    store(render, cut)
    store(render, tmp_path / "whole", workers=1)
    assert contents(cut) == contents(tmp_path / "whole")
    assert verify(cut).summary == "600 clips in 3 shards: whole"
