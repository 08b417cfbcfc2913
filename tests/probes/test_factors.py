"""The trained judge: it learns, is a pure function of its seed, and refuses what it cannot read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.datasets import sprites
from vidcomp.nn.classifier import Classifier
from vidcomp.nn.weights import reset
from vidcomp.probes import factors
from vidcomp.probes.base import UNREADABLE, ClipSet, Subject
from vidcomp.probes.base_spoiled import background, spoiled
from vidcomp.seeding import Rng
from vidcomp.types import video_from_frames
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

DEMO = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
QUICK = factors.Config(width=8, steps=70, batch_size=48)


def world(chosen: dict[str, tuple[str, ...]], *, num_clips: int, seed: int, **size: int) -> ClipSet:
    dataset = sprites.Config(factors=chosen, num_clips=num_clips, seed=seed, **size).build()
    drawn = dataset.clips(torch.arange(num_clips))
    return ClipSet(video_from_frames(drawn.frames), drawn.classes, drawn.values)


def some(clips: ClipSet, rows: torch.Tensor) -> ClipSet:
    return ClipSet(clips.video[rows], clips.classes[rows], clips.values[rows])


def quick(chosen: dict[str, tuple[str, ...]], *, seed: int = 0, **size: int) -> factors.Judge:
    judge = QUICK.build(choose(chosen))
    judge.fit({"real": world(chosen, num_clips=160, seed=1, **size)}, seed=seed)
    return judge


@pytest.fixture(scope="module")
def fitted() -> factors.Judge:
    """A judge of shape, colour and motion, fitted on small clips and a soft copy of them."""
    judge = QUICK.build(choose(DEMO))
    real = world(DEMO, num_clips=160, seed=1, num_frames=5)
    soft = replace(real, video=real.video.mean(2, keepdim=True).lerp(real.video, 0.9))
    judge.fit({"real": real, "soft": soft}, seed=0)
    return judge


def test_learns_every_factor_motion_from_single_pixel_steps(fitted: factors.Judge) -> None:
    held_out = world(DEMO, num_clips=160, seed=2, num_frames=5)
    accuracy = fitted.check({"real": held_out})
    assert accuracy.keys() == {"real", "blurred", "spoiled"}
    for score in accuracy.pop("spoiled").values():  # the share that is refused
        assert score.value > 0.9
    for source, scores in accuracy.items():
        assert scores.keys() == DEMO.keys()
        for name, score in scores.items():
            assert score.value > 0.95, (source, name)
            assert score.n == 160 and score.chance == 0.5


def test_where_there_is_nothing_nothing_is_read(fitted: factors.Judge) -> None:
    """A judge that must answer calls an empty frame one of its classes, always the same."""
    clips = world(DEMO, num_clips=16, seed=3, num_frames=3)
    behind = background(clips.video[:, :, 0])[:, :, None]
    for share in (0.0, 0.1):
        faint = behind + share * (clips.video - behind)
        assert (fitted.read(faint) == UNREADABLE).float().mean() > 0.9
    assert (fitted.read(clips.video) == UNREADABLE).float().mean() < 0.05


def test_frames_are_spoiled_each_on_its_own_and_keep_their_range() -> None:
    frames = world(DEMO, num_clips=64, seed=4, num_frames=2).video[:, :, 0]
    rng = Rng.make(0, "spoil", torch.arange(64))
    changed = spoiled(frames, rng)
    assert changed.shape == frames.shape and changed.abs().amax() <= frames.abs().amax()
    assert ((changed - frames).abs().amax((1, 2, 3)) > 0.2).float().mean() > 0.95
    assert torch.equal(changed, spoiled(frames, rng))
    plain = torch.full((8, 3, 16, 16), -0.9)
    torch.testing.assert_close(spoiled(plain, rng[torch.arange(8)]), plain)
    # Next to nothing is left: of contrast, or of area.
    left = (changed - background(frames)).abs().flatten(1)
    was = (frames - background(frames)).abs().flatten(1)
    faint, small = left.amax(1) / was.amax(1), left.sum(1) / was.sum(1)
    assert (torch.minimum(faint, small) < 0.35).all()


def test_motion_is_read_from_the_pair_and_turns_round_with_time() -> None:
    chosen = {"motion": ("right", "left")}
    judge = quick(chosen)
    clips = world(chosen, num_clips=40, seed=2)
    forward, backward = judge.read(clips.video), judge.read(clips.video.flip(2))
    assert (forward == clips.classes[:, None]).float().mean() > 0.95
    # Pair (k-1, k) backwards is pair (t-k, t-k+1) forwards, of the other direction.
    agree = backward[:, 1:] == 1 - forward[:, 1:].flip(1)
    assert agree.float().mean() > 0.95


def test_static_factors_need_one_frame_only() -> None:
    chosen = {"shape": ("circle", "triangle"), "colour": ("red", "blue")}
    judge = quick(chosen, num_frames=1)
    clips = world(chosen, num_clips=40, seed=2, num_frames=9)
    whole = judge.read(clips.video)
    for k in (0, 4, 8):
        assert torch.equal(judge.read(clips.video[:, :, k : k + 1])[:, 0], whole[:, k])
    assert (whole == clips.classes[:, None]).all(-1).float().mean() > 0.95


def test_is_a_pure_function_of_the_seed() -> None:
    chosen = {"colour": ("red", "blue")}
    torch.manual_seed(0)
    one = quick(chosen, num_frames=1, height=16, width=16).networks.state_dict()
    torch.manual_seed(1)
    same = quick(chosen, num_frames=1, height=16, width=16).networks.state_dict()
    other = quick(chosen, num_frames=1, height=16, width=16, seed=1).networks.state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_save_and_load_give_the_same_judge(fitted: factors.Judge, tmp_path: Path) -> None:
    clips = world(DEMO, num_clips=24, seed=3, num_frames=5)
    fitted.check({"real": clips})
    for _ in range(2):  # a second save replaces the first
        fitted.save(tmp_path / "probe")
    loaded = factors.Judge.load(tmp_path / "probe")
    assert torch.equal(loaded.read(clips.video), fitted.read(clips.video))
    assert loaded.accuracy == fitted.accuracy and loaded.accuracy
    assert (loaded.config, loaded.factors) == (fitted.config, fitted.factors)
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]
    record = json.loads((tmp_path / "probe/probe.json").read_text())
    assert record["config"]["name"] == "factors"
    assert record["accuracy"]["blurred"]["motion"]["n"] == 24


def test_a_full_disk_is_an_os_error_and_leaves_the_judge_of_before(
    fitted: factors.Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted.save(tmp_path / "probe")
    before = (tmp_path / "probe/weights.safetensors").read_bytes()

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(tmp_path / "probe")
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]
    assert (tmp_path / "probe/weights.safetensors").read_bytes() == before


def test_saving_touches_no_other_folder(fitted: factors.Judge, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("precious")
    with pytest.raises(UserError, match="not a judge's"):
        fitted.save(tmp_path / "run")
    assert (tmp_path / "run/config.yaml").read_text() == "precious"
    with pytest.raises(UserError, match="no fitted judge"):
        factors.Judge.load(tmp_path / "nowhere")


def test_refuses_another_size_one_frame_and_other_factors(fitted: factors.Judge) -> None:
    with pytest.raises(UserError, match="32 x 32 pixels, got 24 x 40"):
        fitted.read(torch.zeros(1, 3, 5, 24, 40))
    with pytest.raises(UserError, match=r"motion.*one frame"):
        fitted.read(torch.zeros(1, 3, 1, 32, 32))
    other = {**DEMO, "colour": ("red", "green")}
    split = SplitConfig().build(choose(other))
    clips = world(other, num_clips=8, seed=0, num_frames=5)
    with pytest.raises(UserError, match=r"colour: red, blue.*colour: red, green"):
        fitted.run(Subject({"real": clips}, split))


def test_is_fitted_on_all_combinations_or_not_at_all(tmp_path: Path) -> None:
    clips = world(DEMO, num_clips=32, seed=0, num_frames=2)
    seen = clips.classes.sum(1) < 3
    judge = QUICK.build(choose(DEMO))
    with pytest.raises(
        UserError, match="'rec' lacks 1 of 8 combinations, such as 'triangle blue up'"
    ):
        judge.fit({"real": clips, "rec": some(clips, seen)}, seed=0)
    with pytest.raises(UserError, match="not fitted"):
        judge.read(clips.video)
    with pytest.raises(UserError, match="not fitted"):
        judge.save(tmp_path / "probe")
    with pytest.raises(UserError, match="one frame"):
        judge.fit({"real": replace(clips, video=clips.video[:, :, :1])}, seed=0)
    with pytest.raises(UserError, match="at least one set"):
        judge.fit({}, seed=0)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 17)])
def test_the_classifier_takes_any_size(size: tuple[int, int]) -> None:
    network = Classifier(3, num_classes=5, width=4)
    reset(network, Rng.make(0, "weights", torch.tensor([0])))
    assert network(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_fresh_weights_keep_the_scale_of_the_signal() -> None:
    network = Classifier(3, num_classes=2, width=64)
    reset(network, Rng.make(0, "weights", torch.tensor([0])))
    for weight in (p for p in network.parameters() if p.ndim == 4):
        expected = (2 / weight[0].numel()) ** 0.5  # He et al., Eq. 10
        assert float(weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_an_ablation_may_lack_combinations() -> None:
    clips = world(DEMO, num_clips=32, seed=0, num_frames=2)
    seen = clips.classes.sum(1) < 3
    judge = factors.Config(steps=2, width=4).build(choose(DEMO))
    judge.fit({"real": some(clips, seen)}, seed=0, combinations="seen")
    assert judge.read(clips.video).shape == (32, 2, 3)
