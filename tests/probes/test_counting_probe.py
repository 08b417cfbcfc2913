"""Counting: what is drawn on purpose is what the measures say."""

import itertools
import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS
from vidcomp.probes.base import PROBES, UNREADABLE, ClipSet, Findings, Score, Subject
from vidcomp.probes.base_network import spread_out
from vidcomp.probes.base_objects import Look
from vidcomp.probes.base_places import NOBODY, match
from vidcomp.seeding import Rng
from vidcomp.types import video_from_frames
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

STUDY: dict[str, Any] = {"height": 48, "width": 48, "radius_px": 3.5, "colours": "independent"}
FEW: dict[str, Any] = STUDY | {"counts": (0, 1, 2, 3, 4)}
MOVING: dict[str, Any] = {"num_frames": 7, "speed_px": (0.3, 0.8)}
RADIUS = 3.5
GROUND = 2 * 20 / 255 - 1


@cache
def _world(num_clips: int, names: tuple[str, ...], values: tuple[Any, ...]) -> ClipSet:
    settings = dict(zip(names, values, strict=True))
    dataset = DATASETS.config({"name": "counting", "num_clips": num_clips, **settings}).build()
    drawn = dataset.clips(torch.arange(num_clips))
    video = video_from_frames(drawn.frames)
    return ClipSet(video, drawn.classes, drawn.values, drawn.locations)


def world(num_clips: int, **settings: Any) -> ClipSet:
    return _world(num_clips, tuple(settings), tuple(settings.values()))


def counted(real: ClipSet, samples: ClipSet | None = None, **settings: Any) -> Findings:
    """What is found where 1 and 2 are seen in training."""
    factors = DATASETS.config({"name": "counting", **settings}).build().factors
    split = SplitConfig(rule="range", seen={"count": (1, 2)}).build(factors)
    sets = {"real": real} | ({} if samples is None else {"samples": samples})
    return PROBES.config("counting").build(factors).run(Subject(sets, split))


def of_samples(samples: ClipSet, **settings: Any) -> dict[str, Score]:
    """The scores of samples beside the real clips of the same world."""
    scores = counted(world(40, **settings), samples, **settings).scores
    return {k.removeprefix("samples/"): s for k, s in scores.items() if k.startswith("samples/")}


def places(clips: ClipSet) -> list[list[tuple[float, float]]]:
    """Of a still's objects, in pixels."""
    assert clips.locations is not None
    pixels = clips.locations.points[:, 0] * 48 - 0.5
    pairs = zip(pixels, clips.locations.present, strict=True)
    return [[(x, y) for x, y in p[there].tolist()] for p, there in pairs]


def painted(points: list[list[tuple[float, float]]], *, radius: float = RADIUS) -> Tensor:
    """Stills of white discs."""
    video = torch.full((len(points), 3, 1, 48, 48), GROUND)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    for clip, of_clip in zip(video, points, strict=True):
        for at_x, at_y in of_clip:
            cover = (0.5 - ((x - at_x).hypot(y - at_y) - radius)).clamp(0, 1)
            clip.copy_(torch.maximum(clip, GROUND + cover * (0.8 - GROUND)))
    return video


def white(clips: ClipSet, points: list[list[tuple[float, float]]] | None = None) -> ClipSet:
    """The same requests, shown as white discs, at other points if they are given."""
    return replace(clips, video=painted(places(clips) if points is None else points))


@pytest.mark.parametrize(
    "settings",
    [
        STUDY,
        {},
        {"shapes": ("circle", "square", "triangle", "star"), "gap_px": 1.5},
        {"num_frames": 5, "speed_px": (0.4, 1.2), "colours": "distinct"},
    ],
)
def test_on_real_renders_the_detector_misses_nothing(settings: dict[str, Any]) -> None:
    scores = counted(world(66, **settings), **settings).scores
    for n in range(11):
        assert scores[f"real/n/{n}/exact"].value >= 0.99 and scores[f"real/n/{n}/mae"].value == 0
        if n:
            assert scores[f"real/n/{n}/recall"].value >= 0.99
            assert scores[f"real/n/{n}/precision"].value >= 0.99
            assert scores[f"real/n/{n}/error_px"].value < 0.5
    assert scores["real/level-1/joint"].value == 1
    assert scores["real/n/horizon"].value == 10 and scores["real/n/area"].value == 1
    if "num_frames" in settings:
        assert scores["real/level-1/switches"].value == 0
        assert scores["real/level-1/path_error_px"].value < 0.5
        assert scores["real/seen/frame/4/recall"].value == 1
    else:
        assert not any("switches" in key or "path" in key for key in scores)


def test_what_was_drawn_as_asked_is_perfect() -> None:
    scores = of_samples(white(world(40, **FEW)), **FEW)
    for level in ("seen", "level-1"):
        assert scores[f"{level}/recall"].value == scores[f"{level}/precision"].value == 1
        assert scores[f"{level}/joint"].value == scores[f"{level}/exact"].value == 1
        assert scores[f"{level}/error_px"].value < 0.2 and scores[f"{level}/bias"].value == 0


def test_a_missing_object_costs_recall_and_an_extra_one_precision() -> None:
    asked = world(40, **FEW)
    fewer = of_samples(white(asked, [points[1:] for points in places(asked)]), **FEW)
    for n in (2, 3, 4):
        assert fewer[f"n/{n}/recall"].value == pytest.approx((n - 1) / n)
        assert fewer[f"n/{n}/precision"].value == 1
        assert fewer[f"n/{n}/bias"].value == -1 and fewer[f"n/{n}/mae"].value == 1
        assert fewer[f"n/{n}/exact"].value == 0
    assert fewer["n/horizon"].value == 0 and fewer["n/area"].value == pytest.approx(
        (2 / 3 + 3 / 4) / 2
    )
    others = [[], *places(asked)][:-1]
    free = [
        [p for p in o if far_from(p, own)][:1] for o, own in zip(others, places(asked), strict=True)
    ]
    assert sum(map(len, free)) > 20
    more = white(asked, [own + extra for own, extra in zip(places(asked), free, strict=True)])
    added = torch.tensor([len(extra) for extra in free]).double()
    scores = of_samples(more, **FEW)
    n = asked.classes[:, 0]
    for k in (1, 2, 3):
        assert scores[f"n/{k}/recall"].value == 1
        assert scores[f"n/{k}/precision"].value == pytest.approx((k / (k + added[n == k])).mean())
        assert scores[f"n/{k}/bias"].value == pytest.approx(added[n == k].mean())


def far_from(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    return all(math.dist(point, other) > 2 * RADIUS + 2 for other in points)


def test_a_moved_object_is_found_within_half_a_diameter_and_no_further() -> None:
    asked = world(40, **FEW)

    def moved(by: float) -> dict[str, Score]:
        return of_samples(white(asked, [shifted(p, by) for p in places(asked)]), **FEW)

    near, far = moved(2.0), moved(5.0)
    assert near["n/1/recall"].value == 1 and near["n/1/error_px"].value == pytest.approx(2, abs=0.1)
    assert near["n/2/error_px"].value == pytest.approx(1, abs=0.1)
    assert far["n/1/recall"].value == far["n/1/precision"].value == 0
    assert "n/1/error_px" not in far and far["n/1/bias"].value == 0
    assert far["n/1/exact"].value == 1, "it is still one object"


def shifted(points: list[tuple[float, float]], by: float) -> list[tuple[float, float]]:
    """The first object moved towards the middle of the frame, across."""
    return [
        (x + (by if x < 24 else -by), y) if i == 0 else (x, y) for i, (x, y) in enumerate(points)
    ]


def test_an_object_at_two_places_is_one() -> None:
    """Matching is one to one: an object between two places that are near each other."""
    away = torch.tensor([[[1.0], [1.5]]])
    assert match(away, 2.0).tolist() == [[0, NOBODY]]


def test_matching_is_the_best_of_all_assignments() -> None:
    reach, pairs = 2.0, Rng.make(0, "match", torch.arange(30)).uniform(4, 3) * 4
    found = match(pairs, reach)
    for away, which in zip(pairs, found, strict=True):
        options: list[tuple[int, float]] = []
        for rows in itertools.permutations(range(4), 3):
            near = [float(away[r, c]) for c, r in enumerate(rows) if away[r, c] <= reach]
            options.append((-len(near), sum(near)))
        hits = (which != NOBODY).nonzero()[:, 0]
        assert len(which[hits].unique()) == len(hits)
        chosen = (-len(hits), float(away[hits, which[hits]].sum()))
        assert chosen == pytest.approx(min(options), abs=1e-5)


def test_swapped_identities_are_switches() -> None:
    settings = STUDY | MOVING | {"counts": (1, 2)}
    clips = world(40, **settings)
    assert clips.locations is not None
    points = clips.locations.points.clone()
    points[:, 4:] = points[:, 4:].flip(2)  # from frame 4 on each should be where the other is
    two = clips.classes[:, 0] == 1
    swapped = torch.where(two[:, None, None, None], points, clips.locations.points)
    asked = replace(clips, locations=replace(clips.locations, points=swapped))
    scores = of_samples(asked, **settings)
    assert scores["n/2/recall"].value == 1 and scores["n/2/switches"].value == 2
    assert scores["n/1/switches"].value == 0 and scores["n/1/path_error_px"].value < 0.5
    apart = (clips.locations.points.diff(dim=2).norm(dim=-1) * 48)[two][:, 4:].mean()
    assert scores["n/2/path_error_px"].value == pytest.approx(float(apart) * 3 / 7, abs=0.3)
    assert scores["n/2/error_px"].value < 0.5, "where objects are found they are right"


def test_an_object_that_vanishes_is_lost_and_nobody_else() -> None:
    settings = STUDY | MOVING | {"counts": (1, 2)}
    clips = world(40, **settings)
    video = clips.video.clone()
    video[:, :, 5:] = GROUND
    scores = of_samples(replace(clips, video=video), **settings)
    assert scores["n/2/recall"].value == pytest.approx(5 / 7)
    assert scores["n/2/frame/4/recall"].value == 1 and scores["n/2/frame/5/recall"].value == 0
    assert scores["n/2/switches"].value == 0 and scores["n/2/path_error_px"].value < 0.5


def test_chance_is_what_geometry_says() -> None:
    """One disc, uniform in a square of side 41: the share of pairs of points within r of each
    other, by the density of distances in a square."""
    settings = STUDY | {"counts": (1, 3)}
    real = world(400, **settings)
    scores = counted(real, **settings).scores
    r = Look.of(real.video).radius_px / 41
    expected = math.pi * r**2 - 8 / 3 * r**3 + r**4 / 2
    chance = scores["real/n/1/recall"].chance
    assert chance == pytest.approx(expected, abs=4 * math.sqrt(expected / 1000))
    three = scores["real/n/3/recall"].chance
    assert chance is not None and three is not None and 2 * chance < three < 3.5 * chance
    assert scores["real/n/1/exact"].chance == scores["real/n/3/exact"].chance == 0.5
    assert scores["real/n/1/mae"].chance == 1 and scores["real/n/1/bias"].chance == 1
    assert scores["real/n/3/bias"].chance == -1


def test_places_of_other_clips_give_no_more_than_chance() -> None:
    settings = STUDY | {"counts": (1, 2)}
    asked = world(200, **settings)
    found = of_samples(white(asked, [asked_for(asked, i) for i in range(200)]), **settings)
    for n in (1, 2):
        score = found[f"n/{n}/recall"]
        assert score.chance is not None and score.low < 0.1
        assert score.value == pytest.approx(score.chance, abs=0.08)
        assert found[f"n/{n}/exact"].value == 1


def asked_for(clips: ClipSet, i: int) -> list[tuple[float, float]]:
    """What a clip of the same number some way off was asked for."""
    same = (clips.classes[:, 0] == clips.classes[i, 0]).nonzero()[:, 0].tolist()
    return places(clips)[same[(same.index(i) + len(same) // 2) % len(same)]]


def test_specks_are_none_and_blobs_are_as_many_as_they_hold() -> None:
    look = Look.of(world(40, **FEW).video)
    video = painted([[(10.0, 10.0), (17.0, 10.0), (30.0, 30.0)], [], [(24.0, 24.0)]])
    video[1, :, :, 5:7, 5:8] = 0.8
    video[2, :, :, 40:43, 40:43] = 0.8
    blob, speck, both = look.find(video)[:, 0]
    assert speck.isnan().all()
    assert torch.allclose(both[~both.isnan()], torch.tensor(24.0), atol=0.2)
    points = blob[~blob[:, 0].isnan()]
    expected = torch.tensor([[10.0, 10.0], [17.0, 10.0], [30.0, 30.0]])
    assert torch.cdist(expected, points).amin(1).amax() < 1 and len(points) == 3
    large = look.find(painted([[(24.0, 24.0)]], radius=2 * RADIUS))
    assert int((~large[..., 0].isnan()).sum()) == 4


def test_nothing_was_asked_for_and_nothing_is_there() -> None:
    asked = world(40, **FEW)
    scores = of_samples(white(asked), **FEW)
    assert scores["n/0/exact"].value == 1 and "n/0/recall" not in scores
    something = white(asked, [p or [(20.0, 20.0)] for p in places(asked)])
    scores = of_samples(something, **FEW)
    assert scores["n/0/exact"].value == 0 and scores["n/0/bias"].value == 1
    assert scores["n/horizon"].value == 4
    none = STUDY | {"counts": (0,)}
    factors = DATASETS.config({"name": "counting", **none}).build().factors
    split = SplitConfig().build(factors)
    judge = PROBES.config("counting").build(factors)
    findings = judge.run(Subject({"real": world(5, **none)}, split))
    assert findings.scores["real/seen/joint"].value == 1
    assert "real/n/horizon" not in findings.scores


def test_more_objects_than_any_class_cannot_be_read() -> None:
    asked = world(40, **FEW)
    grid = [(6.0 + 10 * (k % 4), 6.0 + 10 * (k // 4)) for k in range(12)]
    found = counted(asked, white(asked, [grid] * 40), **FEW)
    assert (found.arrays["samples/verdicts"] == UNREADABLE).all()
    assert found.scores["samples/level-1/joint"].value == 0
    assert found.scores["samples/n/4/bias"].value == 8


@pytest.mark.parametrize("settings", [{"label": "one"}, {"label": "subset"}, {"clutter": (1, 2)}])
def test_where_nobody_is_told_of_all_recall_is_the_score(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FEW | settings
    clips = world(60, **settings)
    assert clips.locations is not None
    samples = replace(clips, locations=clips.locations.all_given())
    scores = counted(clips, samples, **settings).scores
    assert "recall is scored" in capsys.readouterr().out
    kinds = {key.rpartition("/")[2] for key in scores}
    assert kinds == {"recall", "error_px", "horizon", "area"}
    for source, n in itertools.product(("real", "samples"), (1, 2, 3, 4)):
        assert scores[f"{source}/n/{n}/recall"].value == 1
        assert scores[f"{source}/n/{n}/recall"].n == 12


def test_samples_that_were_not_told_of_places_are_counted() -> None:
    scores = of_samples(replace(white(world(40, **FEW)), locations=None), **FEW)
    assert scores["n/4/exact"].value == scores["level-1/joint"].value == 1
    assert not any("recall" in key or "horizon" in key for key in scores)


def test_it_refuses_what_it_cannot_see() -> None:
    clips = world(40, **FEW)
    with pytest.raises(UserError, match=r"finds only 0.0% of the objects of real clips"):
        counted(replace(clips, video=torch.full_like(clips.video, GROUND)), **FEW)
    split = SplitConfig().build(choose({"shape": ("circle", "square")}))
    with pytest.raises(UserError, match=r"reads the one factor 'count'.*have shape"):
        PROBES.config("counting").build(split.factors)
    factors = DATASETS.config({"name": "counting", **FEW}).build().factors
    subject = Subject({"samples": clips}, SplitConfig().build(factors))
    with pytest.raises(UserError, match="there are none"):
        PROBES.config("counting").build(factors).run(subject)


def test_clips_keep_their_places_when_some_are_picked() -> None:
    clips = world(40, **FEW)
    some = spread_out(clips, 7)
    assert some.locations is not None and clips.locations is not None
    assert len(some.locations) == len(some.video) == 7
    assert torch.equal(some.locations.points[-1], clips.locations.points[-1])
