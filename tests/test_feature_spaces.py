"""Feature extractors of every kind, and the points that are kept of a dataset."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from tiny import DATA, SPRITES, run_tool
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.datasets import sprites
from vidcomp.datasets.base import DataConfig, Dataset, build
from vidcomp.evaluation import extractors
from vidcomp.evaluation.clips import clip_rows, clip_set
from vidcomp.evaluation.extractors import open_extractor
from vidcomp.evaluation.features import FeatureSpace, Look, compare_in_space, reference
from vidcomp.probes.base import PROBES, Subject
from vidcomp.probes.base_features import nearest
from vidcomp.world.splits import Split


class Means(nn.Module):
    """The mean colour of a clip, and how it changes from its first frame to its last."""

    def forward(self, video: Tensor) -> Tensor:
        change = (video[:, :, -1] - video[:, :, 0]).abs().mean((2, 3))
        return torch.cat([video.mean((2, 3, 4)), change], 1)


class Broken(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return video.mean((2, 3, 4)) / 0


class Flat(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return video.mean((1, 2, 3, 4))


class Narrow(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return video.flatten(1) @ torch.zeros(7, 2)


def script(module: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return str(path)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(extractors, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def data() -> tuple[Dataset, Split]:
    return build(DataConfig.model_validate(DATA))


def test_a_torch_script_file_is_an_extractor(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    dataset, _ = data
    found = open_extractor(script(Means(), tmp_path / "means.pt"), dataset)
    video = clip_set(dataset, "scoring", 70).video
    assert torch.allclose(found(video), Means()(video), atol=1e-6)
    again = open_extractor(script(Means(), tmp_path / "again.pt"), dataset)
    assert again.name != found.name and len(found.digest) == 12


@pytest.mark.parametrize(
    "module, said",
    [
        (
            Broken(),
            r"extractor .*it.pt returned NaN or infinity for \d+ of \d+ clips.*features=own",
        ),
        (Flat(), r"extractor .*it.pt makes \(\d+,\) of \d+ clips; it must make one vector"),
        (Narrow(), r"extractor .*it.pt cannot take clips 'b 3 t h w' of shape .*mat1 and mat2"),
    ],
    ids=["nan", "no vectors", "other shapes"],
)
def test_a_bad_extractor_is_named(
    module: nn.Module, said: str, tmp_path: Path, data: tuple[Dataset, Split]
) -> None:
    found = open_extractor(script(module, tmp_path / "it.pt"), data[0])
    with pytest.raises(UserError, match=said) as raised:
        found(clip_set(data[0], "scoring", 9).video)
    assert "\n" not in str(raised.value)


def test_what_is_no_extractor_is_refused(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    dataset, _ = data
    with pytest.raises(UserError, match=r"no feature extractor 'owl'; legal: own, .*hf:NAME"):
        open_extractor("owl", dataset)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"text.pt is no TorchScript module"):
        open_extractor(str(tmp_path / "text.pt"), dataset)


def test_without_transformers_the_error_says_how_to_install_it(
    data: tuple[Dataset, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"features=hf:a/b needs transformers.*pip install"):
        open_extractor("hf:a/b", data[0])


def test_a_video_model_of_transformers_is_an_extractor(
    tmp_path: Path, data: tuple[Dataset, Split]
) -> None:
    """A tiny V-JEPA 2 with random weights: five frames become six, 16 pixels become 32."""
    transformers = pytest.importorskip("transformers")
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.VJEPA2Config(
        crop_size=32, hidden_size=24, pred_hidden_size=24, pred_num_attention_heads=2,
        pred_num_hidden_layers=1, num_pooler_layers=1, **layers,
    )  # fmt: skip
    transformers.VJEPA2Model(config).save_pretrained(tmp_path / "model")
    found = open_extractor(f"hf:{tmp_path / 'model'}", data[0])
    video = clip_set(data[0], "scoring", 3).video
    assert found(video).shape == (3, 24) and found.sees == "all frames of 32 x 32"
    with pytest.raises(UserError, match="cannot be loaded"):
        open_extractor(f"hf:{tmp_path / 'nowhere'}", data[0])


def test_the_own_extractor_tells_combinations_apart_and_is_fitted_once(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractors, "_STEPS", 100)
    fields = {**SPRITES, "num_clips": 500, "num_frames": 3}
    dataset = sprites.Config.model_validate({k: v for k, v in fields.items() if k != "name"})
    dataset = dataset.build()
    found = open_extractor("own", dataset)
    assert "fitting the feature extractor" in capsys.readouterr().out
    again = open_extractor("own", dataset)
    assert capsys.readouterr().out == "" and again.digest == found.digest
    (kept,) = cache.glob("own-*.safetensors")
    kept.unlink()
    assert open_extractor("own", dataset).digest == found.digest  # a function of the dataset
    real = clip_set(dataset, "scoring", 400)
    others = found(real.video)
    rows = nearest(others, others, 1, but_own_row=True).rows[:, 0]
    right = (real.classes[rows] == real.classes).all(1).float().mean()
    assert right > 0.7  # of eight


def test_points_are_made_once_and_again_if_they_are_damaged(
    cache: Path, tmp_path: Path, data: tuple[Dataset, Split], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, split = data
    calls: list[int] = []
    opened = open_extractor(script(Means(), tmp_path / "means.pt"), dataset)

    def counted(video: Tensor) -> Tensor:
        calls.append(len(video))
        return Means()(video)

    extractor = extractors.Extractor(opened.name, opened.digest, opened.sees, counted)
    rows = clip_rows(dataset, "training", seen_of=split)
    first = reference(extractor, dataset, rows)
    assert sum(calls) == len(rows) == len(first.features) and first.distinct.all()
    assert split.seen(first.classes, dataset.values()[rows]).all()
    assert torch.equal(reference(extractor, dataset, rows).features, first.features)
    assert sum(calls) == len(rows)
    (kept,) = cache.glob("points-*.safetensors")
    content = bytearray(kept.read_bytes())
    content[-3] ^= 1
    kept.write_bytes(content)
    assert torch.equal(reference(extractor, dataset, rows).features, first.features)
    assert sum(calls) == 2 * len(rows) and "damaged" in capsys.readouterr().out
    kept.write_bytes(content[:40])
    assert torch.equal(reference(extractor, dataset, rows).features, first.features)
    other = extractors.Extractor(opened.name, "another", opened.sees, counted)
    reference(other, dataset, rows)
    assert len(list(cache.glob("points-*"))) == 2


def test_repeated_clips_are_not_distinct(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    dataset, _ = data
    extractor = open_extractor(script(Means(), tmp_path / "means.pt"), dataset)
    points = reference(extractor, dataset, torch.tensor([3, 4, 3, 5, 4]))
    assert points.distinct.tolist() == [True, True, False, True, False]


def test_training_clips_have_the_look_of_samples(
    tmp_path: Path, data: tuple[Dataset, Split]
) -> None:
    dataset, split = data
    extractor = open_extractor(script(Means(), tmp_path / "means.pt"), dataset)
    darker = Look("a tokenizer", lambda video: video / 2)
    plain, seen = (
        FeatureSpace(extractor, dataset, split, {}, look).training() for look in (None, darker)
    )
    assert torch.allclose(seen.features, plain.features / 2, atol=1e-6)
    assert torch.equal(seen.distinct, plain.distinct)


def test_a_space_has_the_points_of_each_source(tmp_path: Path, data: tuple[Dataset, Split]) -> None:
    dataset, split = data
    extractor = open_extractor(script(Means(), tmp_path / "means.pt"), dataset)
    real = clip_set(dataset, "scoring", 10)
    space = FeatureSpace(extractor, dataset, split, {"real": real, "samples": real})
    assert torch.allclose(space.points("real"), extractor(real.video))
    assert torch.equal(space.points("real"), space.points("samples"))
    space.training()
    about = space.about()
    assert about["clips"] == "5 frames of 16 x 16, seen as they are" and about["dimensions"] == 6
    assert {name: of["clips"] for name, of in about["references"].items()} == {
        "real": 10,
        "training": len(clip_rows(dataset, "training", seen_of=split)),
    }


def test_all_three_probes_answer_in_a_space(tmp_path: Path, cache: Path) -> None:
    """Samples that are training clips: right, near, and remembered."""
    dataset, split = build(DataConfig.model_validate({**DATA, "dataset": LARGER}))
    real = clip_set(dataset, "scoring", 200)
    sets = {"real": real, "samples": clip_set(dataset, "training", 60, seen_of=split)}
    asked = [PROBES.config(name) for name in ("retrieval", "frechet", "memory")]
    path = script(Means(), tmp_path / "means.pt")
    found, about = compare_in_space(path, dataset, Subject(sets, split), asked)
    assert list(found) == ["retrieval", "frechet", "memory"] and about["extractor"] == path
    assert found["memory"].scores["samples/seen/copies"].value == 1
    assert found["frechet"].scores["samples/seen/frechet"].n == 60
    assert found["retrieval"].scores["samples/seen/factor/colour"].value > 0.9
    assert compare_in_space("owl", dataset, Subject(sets, split), []).about == {}  # none is opened


LARGER = {**SPRITES, "num_clips": 600}


def test_scoring_asks_in_a_space_by_name(
    tmp_path: Path, maskgit: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line: with 80 clips, fewer than it takes are fresh, and each probe says so."""
    run = shutil.copytree(maskgit, tmp_path / "runs" / "maskgit")
    shutil.copytree(maskgit.parent / "fsq", tmp_path / "runs" / "fsq")
    path = script(Means(), tmp_path / "means.pt")
    also = "also=[{name: retrieval, k: 3}, frechet, memory]"
    assert run_tool("probe", run, f"probe={judge}", also, f"features={path}") == 0
    said = capsys.readouterr().out
    made = json.loads((run / "scores.json").read_text())
    assert made["features"]["extractor"] == path
    assert "retrieval was not asked: retrieval needs 2 fresh real clips" in said
    assert "probe frechet was not asked: " in said
    assert "memory was not asked: memory needs 4 fresh real clips" in said
    assert run_tool("probe", run, f"probe={judge}", "also=[fidelity]") == 2
    legal = "circuits, directions, frechet, heads, layers, locality, memory, retrieval"
    assert f"fidelity is not asked by name; legal: {legal}" in capsys.readouterr().err
