"""Memory: copies are found, new clips are not called copies, and distinct clips are counted."""

from dataclasses import replace

import pytest
import torch
from spaces import FACTORS, SPLIT, classes_of, clustered, normal, points_of, subject_of

from vidcomp.config import UserError
from vidcomp.probes import memory
from vidcomp.probes.base import Findings, Subject

NUM = 200
CLASSES = classes_of(NUM)
SEEN = CLASSES[SPLIT.seen(CLASSES, FACTORS.prototypes(CLASSES))]
TRAINED = points_of(clustered(SEEN, seed=7), SEEN)


def asked(subject: Subject, quantile: float = 0.05) -> Findings:
    return memory.Config(quantile=quantile).build(FACTORS).run(subject)


def subject(samples: torch.Tensor, classes: torch.Tensor = CLASSES) -> Subject:
    points = {"real": clustered(CLASSES, seed=8), "samples": samples}
    return subject_of(points, {"real": CLASSES, "samples": classes}, TRAINED)


def test_copies_are_found() -> None:
    copies = subject(TRAINED.features, SEEN)
    scores = asked(copies).scores
    assert scores["samples/seen/copies"].value == 1
    assert scores["samples/seen/ratio"].value == 0
    nearly = asked(subject(TRAINED.features + 1e-4 * normal(len(SEEN), 3), SEEN)).scores
    assert nearly["samples/seen/copies"].value > 0.9


def test_new_clips_are_as_far_away_as_new_clips() -> None:
    scores = asked(subject(clustered(CLASSES, seed=9))).scores
    for level, slack in (("seen", 0.05), ("level-1", 0.08)):
        assert scores[f"samples/{level}/copies"].value == pytest.approx(0.05, abs=slack)
        assert scores[f"samples/{level}/copies"].chance == 0.05
        assert scores[f"samples/{level}/ratio"].value == pytest.approx(1, abs=0.3)


def test_half_copies_are_half_copies() -> None:
    classes = torch.cat([SEEN, SEEN])
    samples = torch.cat([TRAINED.features, clustered(SEEN, seed=9)])
    share = asked(subject(samples, classes)).scores["samples/seen/copies"]
    assert share.value == pytest.approx(0.525, abs=0.02) and share.n == len(classes)


def test_falling_back_on_a_trained_combination_shows_in_the_ratio() -> None:
    """Blue squares are held out, so fresh ones lie far from all training clips; samples of them
    that look like red squares do not."""
    asked_for = torch.tensor([[1, 1]]).repeat(50, 1)
    looks = torch.tensor([[1, 0]]).repeat(50, 1)
    right = asked(subject(clustered(asked_for, seed=9), asked_for)).scores
    wrong = asked(subject(clustered(looks, seed=9), asked_for)).scores
    assert wrong["samples/level-1/ratio"].value < 0.2 < right["samples/level-1/ratio"].value
    assert wrong["samples/level-1/copies"].value == 1


def test_distinct_training_clips_are_counted_by_combination() -> None:
    distinct = TRAINED.distinct.clone()
    distinct[(SEEN == 0).all(1)] = False
    distinct[:3] = True  # the first three clips: one of each trained combination
    twice = replace(TRAINED, distinct=distinct)
    samples = clustered(CLASSES, seed=9)
    points = {"real": clustered(CLASSES, seed=8), "samples": samples}
    found = asked(subject_of(points, dict.fromkeys(points, CLASSES), twice)).scores
    at = "samples/seen/combination"
    assert found[f"{at}/circle red/training_clips"].value == 1
    assert found[f"{at}/circle blue/training_clips"].value == NUM
    assert found["samples/level-1/combination/square blue/training_clips"].value == 0
    expected = (1 + NUM + NUM) / 3
    assert found["samples/seen/training_clips"].value == pytest.approx(expected)
    assert found[f"{at}/circle red/copies"].n == NUM


def test_the_quantile_is_a_key() -> None:
    fresh = clustered(CLASSES, seed=9)
    few, many = (asked(subject(fresh), q).scores["samples/seen/copies"].value for q in (0.05, 0.4))
    assert few < 0.12 < 0.3 < many < 0.5


def test_a_world_without_variety_is_refused() -> None:
    still = points_of(SEEN.float(), SEEN)
    one = {"real": CLASSES.float(), "samples": CLASSES.float()}
    with pytest.raises(UserError, match="half of the fresh clips of 'circle red' equal training"):
        asked(subject_of(one, dict.fromkeys(one, CLASSES), still))


def test_combinations_without_fresh_clips_are_refused() -> None:
    points = {"real": clustered(SEEN, seed=8), "samples": clustered(CLASSES, seed=9)}
    with pytest.raises(UserError, match=r"memory needs 4 fresh real clips.*'square blue' \(0\)"):
        asked(subject_of(points, {"real": SEEN, "samples": CLASSES}, TRAINED))


def test_copies_are_told_by_their_look() -> None:
    """All that went through a tokenizer is shifted. Fresh reconstructions are what new samples are
    measured against, not fresh clips as they are, which lie far away."""
    shift = torch.tensor([3.0, 0.0, 0.0])
    trained = points_of(TRAINED.features + shift, SEEN)
    fresh = clustered(CLASSES, seed=8)
    points = {"real": fresh, "reconstruction": fresh + shift, "samples": fresh + shift}
    scores = asked(subject_of(points, dict.fromkeys(points, CLASSES), trained)).scores
    assert scores["samples/seen/ratio"].value == pytest.approx(1, abs=0.3)
    assert scores["real/seen/ratio"].value > 5
    points["samples"] = trained.features
    classes = {"real": CLASSES, "reconstruction": CLASSES, "samples": SEEN}
    scores = asked(subject_of(points, classes, trained)).scores
    assert scores["samples/seen/copies"].value == 1
