"""The oracle against the renderer's truth: every class of every factor, anywhere, soft or sharp."""

import pytest
import torch
import torch.nn.functional as F

from vidcomp.config import UserError
from vidcomp.datasets import sprites
from vidcomp.probes import oracle
from vidcomp.probes.base import UNREADABLE, ClipSet, Subject
from vidcomp.types import video_from_frames
from vidcomp.world.concepts import SHAPES, choose
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.splits import SplitConfig

ALL = {
    "shape": SHAPES,
    "colour": ("red", "blue", "green", "yellow", "magenta", "cyan"),
    "motion": ("right", "left", "up", "down", "still"),
}
BITS = {"shape": ("circle", "square"), "colour": ("red", "blue"), "size": ("large", "small")}


def world(factors: dict[str, tuple[str, ...]], *, num_clips: int, **size: int) -> ClipSet:
    dataset = sprites.Config(factors=factors, num_clips=num_clips, **size).build()
    drawn = dataset.clips(torch.arange(num_clips))
    return ClipSet(video_from_frames(drawn.frames), drawn.classes, drawn.values)


def test_reads_every_class_of_every_factor() -> None:
    clips = world(ALL, num_clips=180)  # each combination once
    judge = oracle.Config().build(choose(ALL))
    assert (judge.read(clips.video) == clips.classes[:, None]).all()
    soft = F.avg_pool3d(
        clips.video, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False
    )
    assert (judge.read(soft) == clips.classes[:, None]).all(-1).all(-1).float().mean() > 0.97


@pytest.mark.parametrize("size", [{}, {"height": 28, "width": 28}, {"height": 32, "width": 48}])
def test_reads_still_images(size: dict[str, int]) -> None:
    clips = world(BITS, num_clips=160, num_frames=1, **size)
    right = oracle.Config().build(choose(BITS)).read(clips.video) == clips.classes[:, None]
    assert right.all(-1).float().mean() >= 0.99


def test_reads_size_and_motion_where_shape_and_colour_are_not_controlled() -> None:
    factors = {"motion": ("left", "still", "down"), "size": ("small", "large")}
    clips = world(factors, num_clips=120)
    right = oracle.Config().build(choose(factors)).read(clips.video) == clips.classes[:, None]
    assert right.all(-1).all(-1).float().mean() >= 0.99


def test_shape_does_not_depend_on_the_turn() -> None:
    factors = {"shape": SHAPES}
    clips = world(factors, num_clips=24, num_frames=1)
    judge = oracle.Config().build(choose(factors))
    assert torch.equal(judge.read(clips.video.rot90(1, (3, 4))), judge.read(clips.video))


def test_turning_the_frame_turns_the_motion() -> None:
    factors = {"motion": ("right", "up", "left", "down")}  # each the last, turned by a quarter
    clips = world(factors, num_clips=16)
    judge = oracle.Config().build(choose(factors))
    turned = judge.read(clips.video.rot90(1, (3, 4)))
    assert torch.equal(turned, (judge.read(clips.video) + 1) % 4)


def test_nothing_to_see_is_unreadable() -> None:
    judge = oracle.Config().build(choose(ALL))
    assert (judge.read(torch.full((2, 3, 4, 32, 32), -0.84)) == UNREADABLE).all()
    clips = world(ALL, num_clips=4)
    gone = clips.video.clone()
    gone[:, :, 3] = -0.84
    expected = judge.read(clips.video)
    expected[:, 3] = UNREADABLE
    expected[:, 4, 2] = UNREADABLE  # its motion needs frame 3
    assert torch.equal(judge.read(gone), expected)


def test_no_motion_is_unreadable_unless_a_class_is_still() -> None:
    moving = {"motion": ("right", "up")}
    frozen = world(moving, num_clips=8).video[:, :, :1].expand(-1, -1, 9, -1, -1)
    assert (oracle.Config().build(choose(moving)).read(frozen) == UNREADABLE).all()
    still = oracle.Config().build(choose({"motion": ("right", "still")}))
    assert (still.read(frozen) == 1).all()


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (Factor("species", (FactorClass("cat"),)), "'species'.*reads shape, colour, size, motion"),
        (Factor("shape", (FactorClass("teapot"),)), "'teapot'.*circle"),
        (Factor("colour", (FactorClass("red", (0.0,)),)), "'colour' with 1 numbers"),
    ],
)
def test_refuses_what_it_does_not_know(factor: Factor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        oracle.Config().build(Factors((factor,)))


def test_a_world_that_it_misreads_is_refused_and_bad_samples_are_not() -> None:
    """Backgrounds that vary make it misread some clips: it says so. Samples may be anything."""
    three = {"shape": ("circle", "triangle"), "colour": ("red", "blue"), "motion": ("right", "up")}
    split = SplitConfig().build(choose(three))
    judge = oracle.Config().build(choose(three))
    fields = {"num_clips": 120, "factors": three}
    plain, busy = (
        sprites.Config(**fields, varying=varying).build().clips(torch.arange(120))
        for varying in ((), ("background",))
    )
    real, strange = (
        ClipSet(video_from_frames(c.frames), c.classes, c.values) for c in (plain, busy)
    )
    with pytest.raises(UserError, match=r"only \d\d\.\d% of the frames of real clips right"):
        judge.run(Subject({"real": strange}, split))
    found = judge.run(Subject({"real": real, "samples": strange}, split)).scores
    assert found["real/seen/joint"].value == 1 > found["samples/seen/joint"].value
