"""Patches: exactly the pixels, each latent its own block's, and a run that trains nothing."""

import json
from pathlib import Path

import pytest
import torch
from tiny import STILLS, TRAIN, generator_run, run_tool, write_config
from torch import Tensor

import vidcomp
from vidcomp.config import UserError
from vidcomp.pipeline import reconstruct
from vidcomp.runs import TokenizerRun, load_tokenizer, newest_checkpoint
from vidcomp.seeding import Rng
from vidcomp.tokenizers.patches import GREY_LEVEL, Config, Patches
from vidcomp.training.tasks import train
from vidcomp.types import Latents

STRIDES = (2, 4, 4)
CONTINUOUS = {"flow": "euler", "diffusion": "ddim", "givt": "unmask", "mar": "unmask"}


def small() -> Patches:
    return Config(strides=STRIDES).build()  # type: ignore


def noise(*size: int, seed: int = 0) -> Tensor:
    return Rng.make(seed, "clips", torch.arange(2)).uniform(3, *size) * 2 - 1


@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0])
def test_decoding_is_the_inverse_whatever_was_measured(spread: float) -> None:
    """Of clips that are like the measured ones and of others, to float32 rounding."""
    patches, video = small(), noise(5, 8, 12)
    patches.measure_latents([(0.5 + spread * noise(5, 8, 12, seed=1)).clamp(-1, 1)])
    latents = patches.encode(video)
    torch.testing.assert_close(patches.decode(latents), video, rtol=0, atol=5e-7)
    assert latents.values.abs().max() <= 2 / GREY_LEVEL, "constant channels keep a sane scale"


def test_a_latent_is_the_pixels_of_its_block() -> None:
    """Channels are colour, frame, row, column; frame 0, repeated, fills the first block."""
    video = noise(3, 8, 12)
    values = small().encode(video).values
    blocks = values.unflatten(-1, (3, *STRIDES))  # b T H W c p q r
    torch.testing.assert_close(blocks[:, 1, 1, 2], video[:, :, 1:, 4:, 8:])
    first = video[:, :, :1, :4, 4:8].expand(-1, -1, 2, -1, -1)
    torch.testing.assert_close(blocks[:, 0, 0, 1], first)


def test_latents_and_pixels_depend_on_each_other_within_a_block_alone() -> None:
    patches, video = small(), 0.5 * noise(5, 8, 12)
    patches.measure_latents([video])
    frames, rows, columns = slice(1, 3), slice(4, 8), slice(8, 12)  # of latent 1, 1, 2

    pixels = video.clone().requires_grad_()
    patches.encode(pixels).values[:, 1, 1, 2].sum().backward()
    assert pixels.grad is not None
    inside = pixels.grad[:, :, frames, rows, columns].clone()
    assert (inside != 0).all()
    pixels.grad[:, :, frames, rows, columns] = 0
    assert (pixels.grad == 0).all(), "the latent sees nothing else"

    values = patches.encode(video).values.requires_grad_()
    patches.decode(Latents(values))[:, :, frames, rows, columns].sum().backward()
    assert values.grad is not None
    assert (values.grad[:, 1, 1, 2] != 0).all()
    values.grad[:, 1, 1, 2] = 0
    assert (values.grad == 0).all(), "the pixels see nothing else"


def patches_run(**train_settings: int) -> TokenizerRun:
    raw = {
        "name": "none",
        "data": STILLS,
        "tokenizer": {"name": "patches", "strides": [1, 4, 4]},
        "train": TRAIN | {"steps": 0} | train_settings,
    }
    return TokenizerRun.model_validate(raw)


@pytest.fixture(scope="module")
def none(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without a tokenizer."""
    return train(patches_run(), tmp_path_factory.mktemp("patches") / "none")


def test_a_run_trains_nothing_and_is_measured(
    none: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert newest_checkpoint(none).name == "checkpoint-0"
    assert [json.loads(line) for line in (none / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 0, "eval/psnr_db": pytest.approx(10 * torch.tensor(255**2 / 1e-3).log10().item())}
    ]
    patches = load_tokenizer(none)
    dataset = patches_run().data.dataset.build()
    video = dataset.clips(torch.arange(len(dataset))).frames.permute(0, 4, 1, 2, 3) / 127.5 - 1
    torch.testing.assert_close(reconstruct(patches, video), video, rtol=0, atol=5e-7)
    values = patches.encode(video).values
    assert values.mean().abs() < 0.05 and (values.std() - 1).abs() < 0.05

    train(patches_run(), none)
    assert "finished already, at step 0" in capsys.readouterr().out


@pytest.mark.parametrize("objective", CONTINUOUS)
def test_continuous_objectives_train_and_sample_on_pixels(
    objective: str, none: Path, tmp_path: Path
) -> None:
    sampling = {"sampler": {"name": CONTINUOUS[objective], "num_steps": 2}}
    run = generator_run(none, objective, data=STILLS, top={"sampling": sampling}, steps=2)
    pipeline = vidcomp.load(str(train(run, tmp_path / objective)))
    clip = pipeline.generate({"shape": "circle", "colour": "red"})
    assert clip.shape == (1, 3, 1, 16, 16) and clip.isfinite().all()


def test_steps_are_refused_where_nothing_learns_and_asked_for_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = patches_run(steps=5).model_dump(mode="json")
    out = tmp_path / "out"
    assert run_tool("train", write_config(raw, tmp_path / "none.yaml"), f"out={out}") == 2
    said = capsys.readouterr().err
    assert "run 'none' has no parameters to train; set train.steps=0" in said
    learned = generator_run("nowhere", "flow", data=STILLS, steps=0)
    with pytest.raises(UserError, match=r"train\.steps=0 is for a tokenizer without parameters"):
        train(learned, out)
    assert not out.exists()


def test_pixels_have_no_codes(tmp_path: Path, none: Path) -> None:
    with pytest.raises(UserError, match="objective maskgit needs codes"):
        train(generator_run(none, "maskgit", data=STILLS), tmp_path / "maskgit")
