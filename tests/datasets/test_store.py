"""Storing a dataset: exact, resumable, and never two datasets in one folder."""

import errno
from pathlib import Path

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base import DATASETS, DataConfig, DataRoot, Dataset, build, prepare, store
from vidcomp.media import MediaError, write_video

ROOT = Path(__file__).parents[2]
BITS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}


def sprites(**changes: object) -> Dataset:
    raw = {"name": "sprites", "num_clips": 11, "num_frames": 2, "factors": BITS, **changes}
    return DATASETS.config(raw).build()


def reader(folder: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "folder", "path": folder, **settings}).build()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stop_after(count: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def failing(path: Path, clip: torch.Tensor, *, fps: float) -> None:
        if len(written) == count:
            raise error
        written.append(path)
        write_video(path, clip, fps=fps)

    monkeypatch.setattr(base, "write_video", failing)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 9])
@pytest.mark.parametrize("size", [(32, 32), (17, 23)])
def test_what_is_read_is_what_was_drawn(
    tmp_path: Path, decoder: str, num_frames: int, size: tuple[int, int]
) -> None:
    factors = {"shape": ["star", "ring"], "size": ["large", "small"], "colour": ["red", "cyan"]}
    drawn = sprites(num_frames=num_frames, height=size[0], width=size[1], factors=factors, fps=12.5)
    store(drawn, tmp_path)
    read = reader(tmp_path, decoder=decoder)
    assert read.factors == drawn.factors and len(read) == len(drawn)
    assert (read.num_frames, read.height, read.width, read.fps) == (num_frames, *size, 12.5)
    everything = torch.arange(len(drawn))
    a, b = drawn.clips(everything), read.clips(everything)
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.classes, b.classes)
    assert torch.equal(a.values, b.values)
    ours, theirs = drawn.truth(everything), read.truth(everything)
    assert ours is not None and theirs is not None
    assert torch.equal(ours.masks(), theirs.masks())
    assert torch.equal(ours.positions_px, theirs.positions_px)


def test_clips_are_read_without_their_truth(tmp_path: Path) -> None:
    """Training needs none, and reading it cost a third of the time."""
    store(sprites(), tmp_path)
    read = reader(tmp_path)
    path = tmp_path / "clips" / "000001.truth.safetensors"
    path.write_bytes(path.read_bytes()[:30])
    assert len(read.clips(torch.arange(11)).frames) == 11
    with pytest.raises(MediaError, match=r"000001\.truth\.safetensors is damaged") as raised:
        read.truth(torch.arange(2))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("done", [0, 1, 7])
def test_an_interrupted_render_goes_on_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    store(sprites(), tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(done, KeyboardInterrupt(), patch)
        with pytest.raises(KeyboardInterrupt):
            store(sprites(), tmp_path / "cut")
    kept = contents(tmp_path / "cut")
    assert sum(name.endswith(".mp4") for name in kept) == done
    assert kept.items() <= (contents(tmp_path / "whole").items() | kept.items())
    with pytest.raises(UserError, match=f"holds {done} of 11 clips.*go on with the same command"):
        reader(tmp_path / "cut")
    # A process that was killed while it wrote leaves a part, which is nobody's clip.
    (tmp_path / "cut" / "clips" / ".000009.mp4.77.part").write_bytes(b"half")
    dates = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").rglob("*.mp4")}
    store(sprites(), tmp_path / "cut")
    assert all(p.stat().st_mtime_ns == date for p, date in dates.items())
    (tmp_path / "cut" / "clips" / ".000009.mp4.77.part").unlink()
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_full_disk_reaches_the_caller_and_keeps_earlier_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(4, OSError(errno.ENOSPC, "No space left on device"), patch)
        with pytest.raises(OSError, match="No space left"):
            store(sprites(), tmp_path)
    assert len(list(tmp_path.glob("clips/*.mp4"))) == 4
    store(sprites(), tmp_path)
    assert len(reader(tmp_path)) == 11


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
            "split": {"novel": {"colour": ["blue"], "shape": ["triangle"]}, "max_novel": 1},
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
    assert set(split.levels(dataset.classes()).tolist()) == {0, 1}


def test_a_drawn_dataset_needs_no_render() -> None:
    raw = {"dataset": {"name": "sprites", "factors": BITS}, "split": {}}
    config = DataConfig.model_validate(raw)
    prepare(config)
    assert len(build(config).dataset) == 4000
    with pytest.raises(ValueError, match="'sprites' is stored in no folder; drop render"):
        DataConfig.model_validate({**raw, "render": raw["dataset"]})


@pytest.mark.parametrize("name", ["motion", "shapes2d"])
def test_the_shipped_worlds_have_the_papers_levels(name: str) -> None:
    path = ROOT / "configs" / "data" / f"{name}.yaml"
    config = DataRoot.load(path, ["data.render.num_clips=8"]).data
    assert config.render is not None
    dataset = config.render.build()
    split = config.split.build(dataset.factors)
    assert torch.bincount(split.levels(dataset.classes())).tolist() == [4, 3, 1]
