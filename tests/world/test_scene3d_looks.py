"""What a person looks for in pictures of 3-D scenes: the hue that was named, metal that is closed
at the top, and a solid that is not hidden."""

import colorsys
import math

import pytest
import torch
from drawn_scenes import draw
from torch import Tensor

from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors
from vidcomp.world.scene3d.concepts import LIBRARIES
from vidcomp.world.scene3d.render import render_frames
from vidcomp.world.scene3d.scenes import LEAST_SEEN, SIGHT_PX
from vidcomp.world.scene3d.seen import segments, truth_of
from vidcomp.world.scene3d.sight import share_seen

HUES = next(f.class_names for f in LIBRARIES["room"] if f.name == "object_hue")


def mean_hue(rgb: Tensor) -> float:
    """Hues go round, so the mean is that of directions."""
    angles = [2 * math.pi * colorsys.rgb_to_hsv(*pixel)[0] for pixel in rgb.tolist()]
    x, y = sum(map(math.cos, angles)), sum(map(math.sin, angles))
    return math.atan2(y, x) / (2 * math.pi) % 1


def test_an_object_has_the_hue_that_was_named() -> None:
    """Hues are a tenth of the circle apart, and red is 0."""
    factors = choose({"shape": ["sphere", "cube"], "object_hue": HUES}, LIBRARIES["room"])
    classes = factors.combinations()
    scene = draw("room", factors, classes).scene
    frames = render_frames(scene, height=48, width=48).float() / 255
    on = segments(scene, height=48, width=48) == 1
    for frame, shown, k in zip(frames, on, classes[:, 1].tolist(), strict=True):
        pixels = frame[shown]
        lit = pixels[pixels.amax(1) > pixels.amax() / 2]
        off = (mean_hue(lit) - k / 10 + 0.5) % 1 - 0.5
        assert abs(off) < 0.025, HUES[k]


@pytest.mark.parametrize("shape", ["cube", "cylinder"])
def test_a_metal_top_is_nearly_as_light_as_the_side(shape: str) -> None:
    """In pictures of CLEVR 0.7 to 0.9 times; less looks like an open cup."""
    factors = choose(
        {"shape": [shape], "material": ["metal"], "size": ["large"], "colour": ["gray"]},
        LIBRARIES["clevr"],
    )
    scene = draw("clevr", factors, torch.zeros(24, 4, dtype=torch.int64)).scene
    frames = render_frames(scene, height=96, width=96).float().mean(-1)
    shown = segments(scene, height=96, width=96) == 1
    height = shown.any(2).float().cumsum(1)[..., None] / shown.any(2).sum(1)[:, None, None]
    top, side = (
        ((frames * part).sum((1, 2)) / part.sum((1, 2)))
        for part in (shown & (height > 0.1) & (height < 0.25), shown & (height > 0.6))
    )
    ratio = top / side
    assert 0.75 < ratio.median() < 1 and ratio.amin() > 0.6


def crowded(num_clips: int) -> tuple[Factors, Tensor]:
    factors = choose({"size": ["small", "large"], "motion": ["right", "away"]}, LIBRARIES["clevr"])
    return factors, factors.combinations().repeat(num_clips // 4, 1)


def test_the_controlled_solid_is_never_hidden() -> None:
    factors, classes = crowded(300)
    drawn = draw("clevr", factors, classes, num_frames=5, num_objects=(4, 8))
    shares = share_seen(drawn.scene, 0, side=SIGHT_PX)
    assert shares.amin() >= LEAST_SEEN
    assert (shares < 1).float().mean() > 0.1  # but others may stand before it
    assert drawn.present.sum(1).amin() > 1


def test_the_share_that_is_seen_is_that_of_the_truth() -> None:
    factors, classes = crowded(12)
    drawn = draw("clevr", factors, classes, num_frames=3, num_objects=(8, 8))
    truth = truth_of(drawn, height=SIGHT_PX, width=SIGHT_PX)
    assert truth.visibility is not None
    for solid in (0, 5):
        shares = share_seen(drawn.scene, solid, side=SIGHT_PX).reshape(12, 3)
        assert torch.equal(shares * drawn.present[:, solid, None], truth.visibility[..., solid])


def test_who_hides_what_in_other_clips_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all attempts fail: then solid 0 is alone."""
    monkeypatch.setattr("vidcomp.world.scene3d.scenes.LEAST_SEEN", 1.0)
    factors, classes = crowded(24)
    many = {"num_frames": 3, "num_objects": (10, 10)}
    whole = draw("clevr", factors, classes, **many)
    alone = whole.present.sum(1) == 1
    assert alone.any() and not alone.all()
    for rows in (torch.tensor([7]), torch.tensor([23, 4, 11])):
        part = draw("clevr", factors, classes[rows], index=rows, **many)
        assert torch.equal(part.present, whole.present[rows])
        assert torch.equal(part.motion.contacts, whole.motion.contacts[rows])
        frames = (rows[:, None] * 3 + torch.arange(3)).flatten()
        for name, x in vars(part.scene).items():
            assert torch.equal(x, getattr(whole.scene, name)[..., frames]), name
