"""Anybody's own files: videos and images of any size, and every mistake named in one line."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny import generator_run, run_tool, tokenizer_run, trained

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS
from vidcomp.datasets.folder import Dataset, clips_in
from vidcomp.media import MediaError, write_video
from vidcomp.media.notes import found
from vidcomp.media.resize import cover
from vidcomp.pipeline import Pipeline
from vidcomp.runs import read_environment
from vidcomp.seeding import Rng
from vidcomp.storage import store


def noise(t: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (t, h, w, 3), generator=generator).to(torch.uint8)


def reader(folder: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "folder", "path": folder, **settings}).build()


def own_folder(folder: Path, sizes: list[tuple[int, int, int]]) -> list[torch.Tensor]:
    """Videos in a tree, and a table that lists them in another order than the alphabet's."""
    clips = [noise(*size, seed=k) for k, size in enumerate(sizes)]
    lines = ["path,shape,speed,speed.0"]
    for k, clip in enumerate(clips):
        path = folder / ("red" if k % 2 else "blue") / f"{9 - k}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, clip, fps=8.0)
        lines.append(f"{path.relative_to(folder)},{'ring' if k % 2 else 'star'},fast,{k / 2}")
    (folder / "factors.csv").write_text("\n".join(lines) + "\n")
    return clips


def test_own_videos_with_a_table_are_a_dataset(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(5, 20, 28)] * 4)
    write_video(tmp_path / "not in the table.mp4", noise(2, 8, 8), fps=8.0)
    dataset = reader(tmp_path, temporal=["speed"])
    clips = dataset.clips(torch.arange(4))
    assert torch.equal(clips.frames, torch.stack(own))
    assert dataset.factors.names == ("shape", "speed")
    assert dataset.factors.items[1].temporal and not dataset.factors.items[0].temporal
    assert clips.classes.tolist() == [[1, 0], [0, 0], [1, 0], [0, 0]]
    assert clips.values[:, 1, 0].tolist() == [0, 0.5, 1, 1.5]
    assert dataset.truth(torch.arange(4)) is None
    assert dataset.decoders == {"pyav": 4}  # whole clips: where decord is slower
    twice = {"name": "mixture", "parts": [{"dataset": {"name": "folder", "path": tmp_path}}] * 2}
    assert DATASETS.config(twice).build().decoders == {"pyav": 8}


@pytest.mark.parametrize("cache_gb", [0.0, 2 * 5 * 20 * 28 * 3 / 1e9, 1.0])
def test_the_cache_changes_nothing(tmp_path: Path, cache_gb: float) -> None:
    own = torch.stack(own_folder(tmp_path, [(5, 20, 28)] * 4))
    dataset = reader(tmp_path, cache_gb=cache_gb)
    for order in ([3, 0], [0, 1, 2, 3], [2, 2, 0]):
        assert torch.equal(dataset.clips(torch.tensor(order)).frames, own[order])


def test_cached_clips_are_not_read_again(tmp_path: Path) -> None:
    own_folder(tmp_path, [(5, 20, 28)] * 4)
    cached, uncached = reader(tmp_path), reader(tmp_path, cache_gb=0)
    first = cached.clips(torch.arange(4)).frames
    shutil.rmtree(tmp_path / "red")
    assert torch.equal(cached.clips(torch.arange(4)).frames, first)
    with pytest.raises(MediaError, match="red"):
        uncached.clips(torch.arange(4))


def test_files_of_different_length_need_a_length(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(5, 20, 28), (3, 20, 28)])
    with pytest.raises(
        UserError,
        match=r"8\.mp4 has 3 frames, not 5; set num_frames to at most 3, .* \{name: mixture",
    ):
        reader(tmp_path)
    with pytest.raises(UserError, match="has 3 frames, not 4"):
        reader(tmp_path, num_frames=4)
    frames = reader(tmp_path, num_frames=3).clips(torch.arange(2)).frames
    assert torch.equal(frames, torch.stack([clip[:3] for clip in own]))


def test_files_of_different_size_need_a_size(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28), (2, 40, 30)])
    with pytest.raises(UserError, match=r"8\.mp4 is 40x30, not 20x28; set height and width"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="both height and width, or neither"):
        reader(tmp_path, height=16)
    dataset = reader(tmp_path, height=16, width=18)
    assert dataset.clips(torch.arange(2)).frames.shape == (2, 2, 16, 18, 3)


def test_resizing_covers_the_frame_and_keeps_the_centre() -> None:
    stripes = torch.zeros(2, 40, 80, 3, dtype=torch.uint8)
    stripes[:, :, 20:60] = 250  # the middle half
    assert (cover(stripes, height=20, width=20)[:, :, 1:-1] == 250).all()
    wide = cover(stripes, height=20, width=40)[0, 10, :, 0].tolist()
    assert wide[:8] == [0] * 8 and wide[12:28] == [250] * 16 and wide[32:] == [0] * 8
    thin = (torch.arange(64) % 4 == 0) * 200  # one column of four
    lines = thin.to(torch.uint8)[None, None, :, None].expand(1, 64, 64, 3)
    grey = cover(lines, height=16, width=16).float()
    assert (grey - 50).abs().amax() < 15  # their mean: without anti-aliasing all or none are seen
    same = noise(2, 9, 11)
    assert torch.equal(cover(same, height=9, width=11), same)


def test_pictures_are_clips_of_one_frame(tmp_path: Path) -> None:
    """By the same code, whatever the suffix: and a video's first frame can be mixed in."""
    clips = [noise(1, 24, 32, seed=k) for k in range(3)]
    for name, clip in zip(["a.png", "sub dir.png"], clips, strict=False):
        Image.fromarray(clip[0].numpy()).save(tmp_path / name)
    write_video(tmp_path / "c.mp4", clips[2], fps=8.0)
    (tmp_path / "factors.csv").write_text("path,shape\na.png,ring\nsub dir.png,star\nc.mp4,star\n")
    dataset = reader(tmp_path)
    assert (dataset.num_frames, dataset.height, dataset.width) == (1, 24, 32)
    assert torch.equal(dataset.clips(torch.arange(3)).frames, torch.stack(clips))


def test_no_code_asks_whether_it_is_an_image() -> None:
    """The suffixes of pictures stand in one list of all suffixes, and none is looked at alone."""
    package = Path(__file__).parents[2] / "vidcomp"
    sources = [*(package / "media").glob("*.py"), package / "datasets" / "folder.py"]
    named = {path.name for path in sources if ".png" in path.read_text()}
    assert named - {"pictures.py"} == {"video.py"}  # the former writes them
    assert [path.name for path in package.rglob("*.py") if "is_image" in path.read_text()] == []


def test_the_fingerprint_is_of_content_not_of_place_or_date(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    own_folder(tmp_path / "a", [(2, 20, 28)] * 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy)
    a, b = reader(tmp_path / "a"), reader(tmp_path / "b", cache_gb=0, decoder="pyav")
    assert a.fingerprint == b.fingerprint
    assert reader(tmp_path / "a", num_frames=1).fingerprint != a.fingerprint
    write_video(tmp_path / "b" / "red" / "8.mp4", noise(2, 20, 28, seed=9) // 2, fps=8.0)
    assert reader(tmp_path / "b").fingerprint != a.fingerprint


def test_a_folder_without_a_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*python tools/render.py"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match="has no clips"):
        reader(tmp_path)
    write_video(tmp_path / "a.mp4", noise(1, 8, 8), fps=8.0)
    with pytest.raises(UserError, match=r"1 clips but no factors\.csv") as error:
        reader(tmp_path)
    assert "\n" not in str(error.value)
    for way_out in ("'a.mp4,circle,red'", "labels=folders", "labels=none"):
        assert way_out in str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28)] * 2)
    (tmp_path / "red" / "8.mp4").write_text("not a video")
    with pytest.raises(MediaError, match=r"red/8\.mp4"):
        reader(tmp_path)
    (tmp_path / "red" / "8.mp4").unlink()
    with pytest.raises(MediaError, match=r"red/8\.mp4: there is no such file"):
        reader(tmp_path)


# Tables in other formats, and folders without one.


def rows_of(folder: Path) -> list[dict[str, object]]:
    """The table as JSON says it, with numbers as numbers."""
    with (folder / "factors.csv").open() as file:
        return [{**row, "speed.0": float(row["speed.0"])} for row in csv.DictReader(file)]


def as_jsonl(folder: Path) -> None:
    lines = [json.dumps(row) for row in rows_of(folder)]
    (folder / "factors.jsonl").write_text("\n\n".join(lines))
    (folder / "factors.csv").unlink()


def as_parquet(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows_of(folder)), folder / "factors.parquet")
    (folder / "factors.csv").unlink()


@pytest.mark.parametrize("rewrite", [as_jsonl, as_parquet])
def test_a_table_says_the_same_in_any_format(
    tmp_path: Path, rewrite: Callable[[Path], None]
) -> None:
    own_folder(tmp_path, [(2, 20, 28)] * 4)
    before = reader(tmp_path)
    rewrite(tmp_path)
    after = reader(tmp_path)
    assert after.factors == before.factors and after.fingerprint == before.fingerprint
    assert torch.equal(after.classes(), before.classes())
    assert torch.equal(after.values(), before.values())


def test_parquet_without_pyarrow_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path, [(2, 20, 28)])
    (tmp_path / "factors.csv").rename(tmp_path / "factors.parquet")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vidcomp\[parquet\]', or write .* as CSV"):
        reader(tmp_path)


def test_two_tables_are_one_too_many(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28)])
    (tmp_path / "factors.jsonl").write_text("")
    with pytest.raises(UserError, match=r"factors\.csv and factors\.jsonl; keep one"):
        reader(tmp_path)


def test_the_folder_of_a_clip_is_its_label(tmp_path: Path) -> None:
    """As in ImageFolder and Kinetics; what is hidden and what is no clip is not looked at."""
    clips = {f"train/{k % 3} of 3/{k}.mp4": noise(2, 20, 28, seed=k) for k in range(6)}
    for path, clip in clips.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / path, clip, fps=8.0)
    (tmp_path / "train" / "0 of 3" / "notes.txt").write_text("nothing")
    (tmp_path / "train" / "0 of 3" / "._0.mp4").write_text("what a Mac leaves behind")
    (tmp_path / "train" / "a directory.mp4").mkdir()
    (tmp_path / ".trash").mkdir()
    write_video(tmp_path / ".trash" / "a.mp4", noise(3, 8, 8), fps=8.0)
    dataset = reader(tmp_path, labels="folders")
    assert dataset.factors.names == ("label",)
    assert dataset.factors.items[0].class_names == ("0 of 3", "1 of 3", "2 of 3")
    assert dataset.classes()[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    in_order = [clips[path] for path in sorted(clips)]
    assert torch.equal(dataset.clips(torch.arange(6)).frames, torch.stack(in_order))
    write_video(tmp_path / "b.mp4", noise(2, 20, 28), fps=8.0)
    with pytest.raises(UserError, match=r"b\.mp4 lies in no folder .* labels=none"):
        reader(tmp_path, labels="folders")


def test_links_are_followed_once(tmp_path: Path) -> None:
    """What is linked in from elsewhere is there; a link back adds nothing and ends."""
    data, other = tmp_path / "data", tmp_path / "other"
    for path in (data / "z" / "a.mp4", other / "b.mp4"):
        path.parent.mkdir(parents=True)
        write_video(path, noise(1, 8, 8), fps=8.0)
    (data / "a link").symlink_to(other)
    (data / "again").symlink_to(data / "z")
    (data / "z" / "loop").symlink_to(data)
    (other / "back").symlink_to(tmp_path)
    assert clips_in(data) == ["a link/b.mp4", "z/a.mp4"]
    assert sorted(found(data, "*.mp4", expected="clips").values()) == clips_in(data)


def test_images_beside_clips_can_be_read_as_the_error_says(tmp_path: Path) -> None:
    for kind, length in (("CLIPS", 3), ("IMAGES", 1)):
        (tmp_path / kind).mkdir()
        for k in range(2):
            write_video(tmp_path / kind / f"{k}.mp4", noise(length, 8, 12, seed=k), fps=8.0)
    with pytest.raises(UserError, match=r"has 1 frames, not 3; .*; or give images") as raised:
        reader(tmp_path, labels="none")
    advice = str(raised.value).partition("as one: dataset: ")[2]
    for kind in ("CLIPS", "IMAGES"):
        advice = advice.replace(kind, f"{tmp_path / kind}, labels: none")
    mixture = DATASETS.config(yaml.safe_load(advice)).build()
    assert [(p.num_frames, len(p.rows)) for p in mixture.portions()] == [(1, 2), (3, 2)]


def test_clips_that_a_table_does_not_list_are_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_folder(tmp_path, [(3, 8, 12)] * 2)
    reader(tmp_path)
    assert capsys.readouterr().err == ""
    for name in ("b.mp4", "red/a.png", "notes.txt"):
        (tmp_path / name).write_text("nobody looks into it")
    with (tmp_path / "factors.csv").open("a") as table:  # however a path is spelled
        table.write("./blue//8.mp4,star,fast,1\n")
    write_video(tmp_path / "blue" / "8.mp4", noise(3, 8, 12), fps=8.0)
    reader(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "2 clips are not in its table" in said and "b.mp4" in said
    reader(tmp_path)
    reader(tmp_path, labels="none", on_error="skip")
    assert "not in its table" not in capsys.readouterr().err


def test_truth_is_found_however_a_path_is_spelled(tmp_path: Path) -> None:
    raw = {"name": "sprites", "num_clips": 4, "num_frames": 2, "height": 16, "width": 24}
    store(DATASETS.config({**raw, "factors": {"shape": ["circle", "square"]}}), tmp_path)
    truth = reader(tmp_path).truth(torch.arange(4))
    assert truth is not None
    lines = (tmp_path / "factors.csv").read_text().splitlines()
    spelled = [lines[1], "./" + lines[2], lines[3].replace("/", "//"), "clips/../" + lines[4]]
    (tmp_path / "factors.csv").write_text("\n".join([lines[0], *spelled]))
    again = reader(tmp_path).truth(torch.arange(4))
    assert again is not None and torch.equal(again.positions_px, truth.positions_px)


def test_truth_is_of_all_clips_or_of_none(tmp_path: Path) -> None:
    raw = {"name": "sprites", "num_clips": 4, "num_frames": 2, "height": 16, "width": 24}
    store(DATASETS.config({**raw, "factors": {"shape": ["circle", "square"]}}), tmp_path)
    everything = torch.arange(4)
    truth = reader(tmp_path).truth(everything)
    same_size = reader(tmp_path, height=16, width=24).truth(everything)
    assert truth is not None and same_size is not None
    assert torch.equal(truth.positions_px, same_size.positions_px)
    assert reader(tmp_path, height=8, width=12).truth(everything) is None
    notes = sorted(tmp_path.rglob("*.truth.safetensors"))
    notes[1].unlink()
    with pytest.raises(UserError, match=r"1 of 4 clips .*000001\.truth.* or remove all") as error:
        reader(tmp_path)
    assert "\n" not in str(error.value)
    for path in (notes[0], *notes[2:]):
        path.unlink()
    assert reader(tmp_path).truth(everything) is None


def test_clips_without_labels_have_no_factors(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 28)] * 4)
    dataset = reader(tmp_path, labels="none")  # although there is a table
    clips = dataset.clips(torch.arange(4))
    assert len(dataset.factors) == 0
    assert clips.classes.shape == (4, 0) and clips.values.shape == (4, 0, 0)
    assert dataset.fingerprint != reader(tmp_path).fingerprint
    with pytest.raises(UserError, match="temporal names factors of a table"):
        reader(tmp_path, labels="none", temporal=["speed"])


# Several clips of a file, and files that are left out.


def test_windows_of_a_file_share_its_row_and_its_group(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(7, 20, 28), (4, 20, 28), (6, 20, 28)])
    dataset = reader(tmp_path, num_frames=2, windows="all")
    a, b, c = dataset.groups()[[0, 3, 5]].tolist()
    assert len({a, b, c}) == 3 and dataset.groups().tolist() == [a, a, a, b, b, c, c, c]
    clips = dataset.clips(torch.arange(8))
    assert clips.values[:, 1, 0].tolist() == [0, 0, 0, 0.5, 0.5, 1, 1, 1]
    assert torch.equal(clips.frames[4], own[1][2:4])


def test_rows_of_broken_files_vanish(tmp_path: Path) -> None:
    own = own_folder(tmp_path, [(3, 20, 28)] * 4)
    (tmp_path / "red" / "8.mp4").write_text("not a video")  # the second
    dataset = reader(tmp_path, on_error="skip")
    assert len(dataset) == 3
    assert dataset.values()[:, 1, 0].tolist() == [0, 1, 1.5]
    assert torch.equal(dataset.clips(torch.tensor([1])).frames[0], own[2])
    assert dataset.files.skipped[0].startswith("red/8.mp4: ")


def test_random_crops_are_drawn_for_training_alone(tmp_path: Path) -> None:
    own_folder(tmp_path, [(2, 20, 40)] * 2)
    dataset = reader(tmp_path, height=20, width=20, crop="random")
    indices, rng = torch.arange(2), Rng.make(0, "train", torch.arange(2))
    assert dataset.is_random and not reader(tmp_path).is_random
    seen = dataset.clips(indices).frames
    assert torch.equal(seen, reader(tmp_path, height=20, width=20).clips(indices).frames)
    drawn = dataset.draw(indices, rng).frames
    assert torch.equal(drawn, dataset.draw(indices, rng).frames) and not torch.equal(drawn, seen)
    plain = reader(tmp_path)
    assert torch.equal(plain.draw(indices, rng).frames, plain.clips(indices).frames)


# Training on clips without factors.


@pytest.mark.parametrize("labels", ["folders", "none"])
def test_clips_without_a_table_train_and_are_sampled(tmp_path: Path, labels: str) -> None:
    for k in range(12):
        path = tmp_path / "data" / ("left" if k % 2 else "right") / f"{k}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, noise(5, 16, 16, seed=k), fps=8.0)
    dataset = {"name": "folder", "path": str(tmp_path / "data"), "labels": labels}
    data = {"dataset": dataset, "split": {}}
    tokenizer = trained(tokenizer_run("fsq", data=data, steps=2), tmp_path / "fsq")
    run = trained(generator_run(tokenizer, data=data, steps=2), tmp_path / "maskgit")
    assert read_environment(run)["decoders"] == {"pyav": 12}
    pipeline = Pipeline.load(run)
    condition = {"label": "left"} if labels == "folders" else {}
    strong, weak = (pipeline.generate(condition, guidance_scale=w) for w in (3.0, 1.0))
    assert strong.shape == (1, 3, 5, 16, 16)
    assert torch.equal(strong, weak) == (labels == "none")
    assert run_tool("sample", run) == 0
