"""From a run folder to clips: the Python way in, its arguments, and prefix frames."""

import ast
import shutil
from pathlib import Path

import pytest
import torch
from tiny import ROOT, STILLS, generator_run, tokenizer_run, trained
from torch import Tensor

import vidcomp
from vidcomp.config import UserError
from vidcomp.datasets.base import build
from vidcomp.pipeline import Pipeline, blank, pasted, roll_out, sample_clips
from vidcomp.pipeline.sampling import overlap_frames
from vidcomp.runs import GeneratorRun, noted_tokenizer
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, LatentSpec, video_from_frames

ASKED = {"shape": "circle", "colour": "red", "motion": "right"}


@pytest.fixture(params=["maskgit", "flow"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return vidcomp.load(str(request.getfixturevalue(request.param)), device="cpu")


def real_clips(pipeline: Pipeline, num_clips: int) -> Tensor:
    dataset, _ = build(pipeline.run.data)
    return video_from_frames(dataset.clips(torch.arange(num_clips)).frames)


def test_a_condition_by_name_gives_a_clip(pipeline: Pipeline) -> None:
    clip = pipeline.generate(ASKED, seed=0)
    assert clip.shape == (1, 3, 5, 16, 16)
    assert clip.dtype == torch.float32 and clip.abs().max() <= 1
    assert torch.equal(clip, pipeline.generate(ASKED, seed=0))
    assert not torch.equal(clip, pipeline.generate(ASKED, seed=1))
    several = pipeline.generate([ASKED, ASKED | {"colour": "blue"}])
    assert several.shape == (2, 3, 5, 16, 16)


def test_names_ids_and_conditions_ask_for_the_same(pipeline: Pipeline) -> None:
    by_id = pipeline.condition(pipeline.format.factors.parse([ASKED]))
    assert torch.equal(pipeline.generate(ASKED), pipeline.generate(by_id))


@pytest.mark.parametrize("name, value", [("guidance_scale", 9.0), ("num_steps", 1)])
def test_settings_of_sampling_take_effect(pipeline: Pipeline, name: str, value: float) -> None:
    asked = [ASKED, {"shape": "triangle", "colour": "blue", "motion": "up"}] * 4
    assert not torch.equal(pipeline.generate(asked), pipeline.generate(asked, **{name: value}))


def test_temperature_takes_effect_where_codes_are_drawn(maskgit: Path) -> None:
    pipeline = Pipeline.load(maskgit, device="cpu")
    warm, cold = (pipeline.generate([ASKED] * 8, temperature=t) for t in (9.0, 0.0))
    assert not torch.equal(warm, cold)


def test_guidance_of_one_and_nought(flow: Path) -> None:
    """Scale 0 forgets what was asked; at scale 1 it matters."""
    pipeline = Pipeline.load(flow, device="cpu")
    other = {"shape": "triangle", "colour": "blue", "motion": "up"}
    for scale, same in ((0.0, True), (1.0, False)):
        one, two = (pipeline.generate(asked, guidance_scale=scale) for asked in (ASKED, other))
        assert torch.equal(one, two) == same


@pytest.mark.parametrize(
    "asked, words",
    [
        (ASKED | {"colour": "rad"}, "did you mean 'red'? legal: blue, red"),
        ({"shape": "circle"}, "lacks colour, motion; legal: shape: circle, triangle; colour: red"),
        (ASKED | {"color": "red"}, "did you mean 'colour'? legal: colour, motion, shape"),
    ],
)
def test_wrong_names_are_answered_with_the_legal_ones(
    maskgit: Path, asked: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError) as raised:
        Pipeline.load(maskgit).generate(asked)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("setting", [{"num_steps": 0}, {"temperature": -1.0}])
def test_impossible_settings_are_refused(maskgit: Path, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"sampling: {next(iter(setting))}"):
        Pipeline.load(maskgit).generate(ASKED, **setting)


def test_a_clip_goes_on_from_its_first_frames(pipeline: Pipeline) -> None:
    """The frames that were given come back as the tokenizer shows them, the rest is new."""
    prefix = real_clips(pipeline, 3)[:, :, :1]
    made = pipeline.generate([ASKED] * 3, prefix=prefix)
    torch.testing.assert_close(made[:, :, :1], pipeline.reconstruct(prefix), atol=1e-5, rtol=0)
    other = pipeline.generate([ASKED] * 3, prefix=prefix, seed=1)
    assert torch.equal(made[:, :, 0], other[:, :, 0])
    free = pipeline.generate([ASKED] * 3)
    assert not torch.equal(made[:, :, 1:], free[:, :, 1:])


@pytest.mark.parametrize("num_frames", [3, 5, 6, 12])
def test_a_rollout_begins_with_the_clip_and_goes_on_to_any_length(
    maskgit: Path, num_frames: int
) -> None:
    pipeline = Pipeline.load(maskgit, device="cpu")
    clip = pipeline.generate([ASKED] * 2)
    made = pipeline.generate([ASKED] * 2, num_frames=num_frames)
    assert made.shape == (2, 3, num_frames, 16, 16)
    shared = min(num_frames, clip.shape[2])
    assert torch.equal(made[:, :, :shared], clip[:, :, :shared])


def test_a_rollout_goes_on_from_its_own_last_frames(maskgit: Path) -> None:
    """The second chunk is what the last frames alone lead to."""
    pipeline = Pipeline.load(maskgit, device="cpu")
    assert isinstance(pipeline.run, GeneratorRun) and pipeline.generator is not None
    sampling = pipeline.run.sampling.model_copy(update={"num_frames": 7, "overlap_frames": 3})
    rng = Rng.make(0, "sample", torch.arange(1))
    asked = pipeline.condition(pipeline.format.factors.parse([ASKED]))
    parts = (pipeline.generator, pipeline.tokenizer, asked, pipeline.format.size, sampling)
    made = roll_out(*parts, rng)
    last = made[:, :, 2:5]
    again = sample_clips(*parts, rng.fold("from frame 5"), prefix=last)
    assert torch.equal(made[:, :, 5:], again[:, :, 3:])


@pytest.mark.parametrize("overlap", [2, 4, 5, 9])
def test_an_overlap_that_is_no_legal_length_is_refused(maskgit: Path, overlap: int) -> None:
    pipeline = Pipeline.load(maskgit, device="cpu")
    assert isinstance(pipeline.run, GeneratorRun)
    sampling = pipeline.run.sampling.model_copy(update={"overlap_frames": overlap})
    with pytest.raises(UserError, match=f"overlap_frames={overlap} .* legal: 1, 3$"):
        overlap_frames(sampling, pipeline.tokenizer, pipeline.format.size)


def test_a_generator_that_never_continued_a_clip_is_not_rolled_out(maskgit: Path) -> None:
    pipeline = Pipeline.load(maskgit, device="cpu")
    assert pipeline.generator is not None
    generator = pipeline.generator
    never = generator.config.conditioning.model_copy(update={"prefix": 0.0})
    generator.config = generator.config.model_copy(update={"conditioning": never})
    with pytest.raises(UserError, match=r"conditioning.prefix=0.5"):
        pipeline.generate(ASKED, num_frames=9)


@pytest.mark.parametrize(
    "size, words",
    [
        ((1, 3, 5, 16, 16), "fewer frames"),  # the whole clip
        ((1, 3, 2, 16, 16), "legal lengths"),
        ((1, 3, 1, 16, 24), "height and width"),
        ((2, 3, 1, 16, 16), "1 conditions need as many prefixes, got 2"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused(
    maskgit: Path, size: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Pipeline.load(maskgit, device="cpu").generate(ASKED, prefix=torch.zeros(size))


def test_pasting_keeps_the_rest() -> None:
    onto = blank(LatentSpec(Grid(1, 1, 1), 2, (4,)), Grid(3, 2, 2), 1, torch.device("cpu"))
    prefix = Latents(torch.ones(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 1), 3))
    made = pasted(onto, prefix)
    assert made.codes is not None and onto.codes is not None
    assert torch.equal(made.values[:, :1], prefix.values) and made.values[:, 1:].sum() == 0
    assert (made.codes[:, 0] == 3).all() and (made.codes[:, 1:] == 0).all()


def test_a_tokenizer_reconstructs_and_does_not_generate(kl: Path) -> None:
    pipeline = Pipeline.load(kl, device="cpu")
    video = real_clips(pipeline, 2)
    made = pipeline.reconstruct(video)
    assert made.shape == video.shape and made.abs().max() <= 1
    with pytest.raises(UserError, match="tokenizer's; it can reconstruct, not generate"):
        pipeline.generate(ASKED)


def test_runs_are_found_from_anywhere_and_may_move_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trained(tokenizer_run(steps=2), Path("runs/demo/fsq"))
    trained(generator_run("runs/demo/fsq", steps=2), Path("runs/maskgit"))
    clip = vidcomp.load("runs/maskgit").generate(ASKED)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(vidcomp.load(str(tmp_path / "here/runs/maskgit")).generate(ASKED), clip)
    shutil.copytree(tmp_path / "here/runs/maskgit", tmp_path / "copied alone")
    monkeypatch.chdir(tmp_path / "here")
    assert torch.equal(vidcomp.load("../copied alone").generate(ASKED), clip)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "runs").rename(tmp_path / "moved")
    assert torch.equal(vidcomp.load("moved/maskgit").generate(ASKED), clip)
    monkeypatch.chdir(tmp_path / "moved" / "maskgit")
    assert torch.equal(vidcomp.load(".").generate(ASKED), clip)


def test_older_runs_noted_folders_as_seen_from_where_they_were_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "fsq").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert noted_tokenizer({"folder": "runs/fsq"}, Path("runs/maskgit")) == Path("runs/fsq")
    assert noted_tokenizer({"folder": "../fsq"}, Path("runs/maskgit")) == Path("runs/fsq")
    assert noted_tokenizer({"folder": "gone"}, Path("runs/maskgit")) == Path("runs/maskgit/gone")


def test_jepa_costs_nothing_at_sampling(maskgit: Path) -> None:
    generator = Pipeline.load(maskgit).generator
    assert generator is not None and generator.jepa is None


@pytest.mark.parametrize("tokenizer, objective", [("fsq", "maskgit"), ("kl", "flow")])
def test_an_image_is_a_clip_of_one_frame(tokenizer: str, objective: str, tmp_path: Path) -> None:
    """The very same calls, from training to sampling."""
    folder = trained(tokenizer_run(tokenizer, data=STILLS), tmp_path / "tokenizer")
    run = trained(generator_run(folder, objective, data=STILLS), tmp_path / "generator")
    image = vidcomp.load(str(run)).generate({"shape": "circle", "colour": "blue"})
    assert image.shape == (1, 3, 1, 16, 16)


ONE_FRAME = {("Eq", 1), ("NotEq", 1), ("LtE", 1), ("Gt", 1), ("Lt", 2), ("GtE", 2)}
MIRRORED = {"Lt": "Gt", "LtE": "GtE", "Gt": "Lt", "GtE": "LtE"}
COUNTS_FRAMES = ("t", "T", "frames", "num_frames", "num_latents")


def asks_for_an_image(source: str) -> list[str]:
    """Comparisons of a number of frames with one, and names that say 'image'.

    A refusal is allowed: an ``if`` whose whole body raises says what needs two frames.
    """
    tree = ast.parse(source)
    refusals = {
        id(node)
        for statement in ast.walk(tree)
        if isinstance(statement, ast.If)
        and all(isinstance(line, ast.Raise) for line in statement.body)
        for node in ast.walk(statement.test)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "arg", None)))
        if isinstance(name, str) and ("is_image" in name or "is_video" in name):
            found.append(name)
        if not isinstance(node, ast.Compare) or len(node.ops) != 1 or id(node) in refusals:
            continue
        how, sides = type(node.ops[0]).__name__, [node.left, node.comparators[0]]
        if isinstance(sides[0], ast.Constant):
            how, sides = MIRRORED.get(how, how), sides[::-1]
        text = ast.unparse(sides[0])
        frames = text.rpartition(".")[2] in COUNTS_FRAMES or text.endswith("shape[2]")
        if isinstance(sides[1], ast.Constant) and frames and (how, sides[1].value) in ONE_FRAME:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source, count",
    [
        ("if num_frames == 1: x = 2", 1),
        ("y = video.shape[2] > 1", 1),
        ("y = 1 < clip.num_frames", 1),
        ("def f(is_image): pass", 1),
        ("y = grid.t >= 2 if a else b", 1),
        ("if video.shape[2] < 2: raise ValueError", 0),
        ("y = num_frames < 1", 0),
        ("y = read.num_key_frames <= 1", 0),
    ],
)
def test_the_question_is_recognised(source: str, count: int) -> None:
    assert len(asks_for_an_image(source)) == count


def test_no_code_asks_whether_it_is_an_image() -> None:
    sources = [*(ROOT / "vidcomp").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    found = {path.name: asks_for_an_image(path.read_text()) for path in sources}
    assert {name: asked for name, asked in found.items() if asked} == {}
