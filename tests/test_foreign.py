"""Models of diffusers, small and with random weights: nothing here is downloaded."""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    UNet2DConditionModel,
)
from PIL import Image
from tiny import run_tool, write_config
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.evaluation.foreign import (
    Foreign,
    Prompts,
    blocks_of,
    denoised,
    features,
    flat,
    measure,
    network_and_conditions,
    predicted,
)
from vidcomp.seeding import Rng, initial_weights

ASKED = Foreign(prompts=Path("none.yaml"), seeds=8, steps=3)
TEXT = Prompts(concepts={"animal": ("dog", "horse"), "style": ("oil", "sketch")})
CLASSES = Prompts(concepts={"dog": ("beagle", "pug"), "bird": ("jay", "robin")})
LABELS = ("beagle", "pug, pug-dog", "jay", "robin")
WORDS, EMBEDDING, SDXL_EMBEDDING = 5, 16, 8


def unet(*, sdxl: bool) -> UNet2DConditionModel:
    more: dict[str, Any] = {}
    if sdxl:
        more = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 * 4 + SDXL_EMBEDDING,
        }
    with initial_weights(0):
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=EMBEDDING,
            attention_head_dim=4,
            norm_num_groups=4,
            **more,
        ).eval()


def transformer() -> DiTTransformer2DModel:
    """With open gates, as after training."""
    with initial_weights(0):
        network = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=3,
            sample_size=8,
            num_embeds_ada_norm=4,
        )
        for name, weights in network.named_parameters():
            if "norm1.linear" in name:
                torch.nn.init.normal_(weights, std=0.2)
    return network.eval()


@dataclass
class TextPipeline:
    """As much of SDXL's pipeline as is asked: embeddings that depend on the prompt alone."""

    unet: UNet2DConditionModel
    vae_scale_factor: int = 8

    def encode_prompt(self, prompt: str, **settings: object) -> tuple[Tensor, None, Tensor, None]:
        assert settings["do_classifier_free_guidance"] is False
        rng = Rng.make(0, prompt, torch.zeros(1, dtype=torch.int64))
        return rng.normal(WORDS, EMBEDDING), None, rng.fold("pooled").normal(SDXL_EMBEDDING), None


def class_pipeline() -> DiTPipeline:
    with initial_weights(0):
        vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    return DiTPipeline(transformer(), vae, DDIMScheduler(), id2label=dict(enumerate(LABELS)))


def opened(kind: str) -> tuple[Any, list[Any], Prompts]:
    prompts = CLASSES if kind == "dit" else TEXT
    pipeline = class_pipeline() if kind == "dit" else TextPipeline(unet(sdxl=kind == "sdxl"))
    names = (prompts.background, *prompts.named.names)
    network, told = network_and_conditions(pipeline, names)
    return network, told, prompts


KINDS = {
    "sdxl": ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"],
    "sd": ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"],
    "dit": [f"transformer_blocks.{i}" for i in range(3)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_block_has_a_matrix_and_scores(kind: str) -> None:
    network, told, prompts = opened(kind)
    measured = measure(network, DDIMScheduler(clip_sample=False), told, prompts.named, ASKED)
    assert list(measured.cosines) == KINDS[kind], "in the order in which they run"
    for place, matrix in measured.cosines.items():
        assert matrix.shape == (4, 4)
        torch.testing.assert_close(matrix, matrix.mT, equal_nan=True)
        clear = ~matrix.diagonal().isnan()
        assert measured.scores[f"{place}/clear"].value == clear.double().mean()
        torch.testing.assert_close(matrix.diagonal()[clear], torch.ones(4).double()[clear])
    assert not any(module._forward_hooks for module in network.modules())
    again = measure(network, DDIMScheduler(clip_sample=False), told, prompts.named, ASKED)
    assert again.scores == measured.scores


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_block_gives_on(kind: str) -> None:
    """The last block's, pushed through the rest of the network by hand; and its mean."""
    network, told, _ = opened(kind)
    asked = ASKED.model_copy(update={"seeds": 3, "steps": 2, "timestep": 999})
    last = KINDS[kind][-1]
    x, time = denoised(network, DDIMScheduler(), told[1], torch.arange(3), asked)
    torch.testing.assert_close(
        x, Rng.make(0, "noise", torch.arange(3)).normal(4, 8, 8), msg="nothing is denoised yet"
    )
    seen: list[Tensor] = []
    hook = dict(network.named_modules())[last].register_forward_hook(
        lambda _module, _given, out: seen.append(out)
    )
    with torch.no_grad():
        predicted(network, x, time, told[1])
    hook.remove()
    whole = seen[0]
    whole = whole.flatten(2).mT if whole.ndim == 4 else whole
    of_blocks = features(network, DDIMScheduler(), told[1], asked)
    torch.testing.assert_close(of_blocks[last], whole.mean(1))
    per_token = asked.model_copy(update={"per_token": True})
    torch.testing.assert_close(
        features(network, DDIMScheduler(), told[1], per_token)[last], whole.flatten(1)
    )


def test_the_sampler_is_that_of_diffusers_without_guidance() -> None:
    """The pipeline's own loop, up to the last step, from the same noise."""
    pipeline = class_pipeline()
    network, told = network_and_conditions(pipeline, ("", "jay"))
    noise = Rng.make(0, "noise", torch.arange(2)).normal(4, 8, 8)
    given: list[Tensor] = []
    hook = network.register_forward_pre_hook(
        lambda _module, args, _named: given.append(args[0]), with_kwargs=True
    )
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("diffusers.pipelines.dit.pipeline_dit")
        patch.setattr(module, "randn_tensor", lambda *_args, **_named: noise)
        pipeline.set_progress_bar_config(disable=True)
        pipeline([2, 2], guidance_scale=1.0, num_inference_steps=4, output_type="np")
    hook.remove()
    scheduler = pipeline.scheduler
    asked = ASKED.model_copy(update={"steps": 4, "timestep": int(scheduler.timesteps[2])})
    with torch.no_grad():
        x, time = denoised(network, scheduler, told[1], torch.arange(2), asked)
    assert time == scheduler.timesteps[2]
    torch.testing.assert_close(x, given[2])


def test_the_background_of_classes_is_the_one_without_condition() -> None:
    _, told, prompts = opened("dit")
    labels = [int(condition["class_labels"]) for condition in told]
    assert labels == [4, 0, 1, 2, 3] and prompts.named.factors == ("dog", "dog", "bird", "bird")


def test_sdxl_is_told_its_pooled_text_and_sizes_in_pixels() -> None:
    _, told, _ = opened("sdxl")
    assert told[0]["added_cond_kwargs"]["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]
    assert told[0]["added_cond_kwargs"]["text_embeds"].shape == (1, SDXL_EMBEDDING)
    assert "added_cond_kwargs" not in opened("sd")[1][0]


def test_concepts_that_are_told_the_same_have_the_cosine_one() -> None:
    network, told, prompts = opened("sdxl")
    told[3] = told[1]
    measured = measure(network, DDIMScheduler(clip_sample=False), told, prompts.named, ASKED)
    assert all(m[0, 2] == pytest.approx(1) for m in measured.cosines.values())
    told[2] = told[0]  # a concept that is the background has no direction
    measured = measure(network, DDIMScheduler(clip_sample=False), told, prompts.named, ASKED)
    assert all(m[1].isnan().all() for m in measured.cosines.values())
    assert measured.scores["mid_block/clear"].value == 0.75


def test_blocks_by_name() -> None:
    network = transformer()
    inner = "transformer_blocks.1.attn1"
    assert list(blocks_of(network, (inner,))) == [inner]
    with pytest.raises(UserError, match=r"no module 'mid_block'; blocks: transformer_blocks.0, "):
        blocks_of(network, ("mid_block",))
    assert flat((torch.ones(2, 3, 4, 4), ()), per_token=False).shape == (2, 3)


def test_one_command_measures_a_pipelines_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_pipeline().save_pretrained(tmp_path / "dit")
    index = tmp_path / "dit/model_index.json"  # as published: diffusers does not save the names
    names = {"id2label": dict(enumerate(LABELS))}
    index.write_text(json.dumps(json.loads(index.read_text()) | names))
    prompts = write_config(CLASSES.model_dump(), tmp_path / "classes.yaml")
    words = [f"prompts={prompts}", f"out={tmp_path / 'out'}", "seeds=6", "steps=3"]
    assert run_tool("directions", tmp_path / "dit", *words) == 0
    record = json.loads((tmp_path / "out/directions.json").read_text())
    assert record["about"]["seeds"] == 6
    found = record["network"]
    assert found["concepts"] == ["beagle", "pug", "jay", "robin"]
    assert list(found["cosines"]) == KINDS["dit"]
    assert {"value", "low", "high", "n", "chance"} <= found["scores"][
        "transformer_blocks.0/auc"
    ].keys()
    with Image.open(tmp_path / "out/directions-network.png") as picture:
        assert picture.width > picture.height > 100
    capsys.readouterr()

    wrong = write_config({"concepts": {"a": ["beagle", "collie"], "b": ["jay"]}}, tmp_path / "w")
    assert run_tool("directions", tmp_path / "dit", f"prompts={wrong}", words[1]) == 2
    assert "no class 'collie' among its 5; the nearest:" in capsys.readouterr().err
    assert run_tool("directions", tmp_path / "dit", words[1]) == 2
    assert "is no run; a diffusers model takes prompts=FILE.yaml out=DIR" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["flow"])
def test_the_same_command_measures_a_run(
    run: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(run)
    words = ["probe.clips=80", "probe.also_at=[]", f"out={tmp_path}"]
    assert run_tool("directions", folder, *words) == 0
    record = json.loads((tmp_path / "directions.json").read_text())
    for source in ("network", "untrained"):
        assert list(record[source]["cosines"]) == ["level/0.5/layer/0", "level/0.5/layer/1"]
        assert len(record[source]["concepts"]) == 6
        assert len(record[source]["regions"]["level/0.5/layer/1"]) == 3
        assert (tmp_path / f"directions-{source}.png").is_file()


def test_what_cannot_be_opened_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write_config(TEXT.model_dump(), tmp_path / "p.yaml")
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "empty", f"prompts={prompts}", f"out={tmp_path}"]
    assert run_tool("directions", *words) == 2
    assert "cannot be opened as a pipeline of diffusers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert run_tool("directions", *words) == 2
    assert "pip install 'vidcomp[diffusers]'" in capsys.readouterr().err

    @dataclass
    class Other:
        transformer: torch.nn.Module

    with pytest.raises(UserError, match=r"or a DiTTransformer2DModel; this Other has a Identity"):
        network_and_conditions(Other(torch.nn.Identity()), ("", "dog"))
