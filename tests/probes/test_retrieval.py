"""Retrieval: right where clips lie with their like, chance where labels say nothing."""

import pytest
import torch
from spaces import FACTORS, SPLIT, classes_of, clustered, normal, subject_of

from vidcomp.config import UserError
from vidcomp.probes import retrieval
from vidcomp.probes.base import Findings, Subject

NUM = 40


def asked(subject: Subject, k: int = 5) -> Findings:
    return retrieval.Config(k=k).build(FACTORS).run(subject)


def test_clips_among_their_like_are_all_found() -> None:
    classes = classes_of(NUM)
    points = {"real": clustered(classes), "samples": clustered(classes, seed=1)}
    found = asked(subject_of(points, {"real": classes, "samples": classes}))
    kinds = {"first", "vote", "factor/shape", "factor/colour"}
    wanted = {f"{s}/{lv}/{k}" for s in points for lv in SPLIT.level_names for k in kinds}
    assert found.scores.keys() == wanted
    assert all(score.value == 1 for score in found.scores.values())
    table = torch.eye(4, dtype=torch.int64) * NUM
    assert torch.equal(found.tables["samples/confusion"], table)
    assert torch.equal(found.tables["combinations"], FACTORS.combinations())
    assert found.scores["samples/seen/first"].n == 3 * NUM
    assert found.scores["samples/level-1/first"].chance == pytest.approx(1 / 4)
    assert found.scores["samples/level-1/factor/shape"].chance == pytest.approx(1 / 2)


def test_labels_that_say_nothing_give_chance() -> None:
    classes = classes_of(500)
    shuffled = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))]
    found = asked(subject_of({"real": clustered(classes)}, {"real": shuffled}))
    for key, score in found.scores.items():
        assert score.chance is not None
        assert score.value == pytest.approx(score.chance, abs=0.09), key  # 4 standard errors


def test_a_clip_is_not_its_own_neighbour_and_others_may_be() -> None:
    """Points without any neighbourhood: a real clip or a reconstruction is not found by being
    itself, while a sample that equals a real clip is."""
    classes, points = classes_of(NUM), normal(4 * NUM, 3)
    sources = dict.fromkeys(("real", "reconstruction", "samples"), points)
    found = asked(subject_of(sources, dict.fromkeys(sources, classes)))
    assert found.scores["samples/seen/first"].value == 1
    for source in ("real", "reconstruction"):
        assert found.scores[f"{source}/seen/first"].value < 0.5
        assert not (found.arrays[f"{source}/nearest"] == torch.arange(4 * NUM)).any()


def test_the_confusion_table_says_what_samples_became() -> None:
    """Blue squares that look like red squares: colour is what fails."""
    classes = classes_of(NUM)
    looks = torch.where((classes == 1).all(1, keepdim=True), torch.tensor([1, 0]), classes)
    points = {"real": clustered(classes), "samples": clustered(looks, seed=1)}
    found = asked(subject_of(points, {"real": classes, "samples": classes}))
    ids = {name: FACTORS.combination_ids(torch.tensor([c]))[0] for name, c in NAMED.items()}
    table = found.tables["samples/confusion"]
    assert table[ids["blue square"], ids["red square"]] == NUM and int(table.sum()) == 4 * NUM
    scores = {key: score.value for key, score in found.scores.items()}
    assert scores["samples/level-1/first"] == scores["samples/level-1/factor/colour"] == 0
    assert scores["samples/level-1/factor/shape"] == scores["samples/seen/first"] == 1


NAMED = {"red square": [1, 0], "blue square": [1, 1]}


def test_the_vote_outweighs_one_stray_neighbour_and_the_nearer_breaks_a_tie() -> None:
    real = torch.tensor([[0, 0], [0, 1], [0, 1], [0, 0]])
    places = torch.tensor([[0.1], [0.2], [0.3], [9.0]])
    points = {"real": places, "samples": torch.zeros(1, 1)}
    classes = {"real": real, "samples": torch.tensor([[0, 1]])}

    def share(kind: str, k: int) -> float:
        return asked(subject_of(points, classes), k).scores[f"samples/seen/{kind}"].value

    assert share("first", 3) == 0 and share("vote", 3) == 1  # two of three
    assert share("vote", 2) == 0  # one each: the nearer one is wrong
    assert share("vote", 1) == share("first", 1)


def test_chance_is_the_share_of_such_real_clips() -> None:
    real = torch.cat([classes_of(2), torch.tensor([[0, 0]]).repeat(12, 1)])
    subject = subject_of(
        {"real": clustered(real), "samples": torch.zeros(1, 3)},
        {"real": real, "samples": torch.tensor([[0, 0]])},
    )
    assert asked(subject).scores["samples/seen/first"].chance == 14 / 20


def test_what_cannot_be_asked_is_refused() -> None:
    classes = classes_of(NUM)
    points = {"real": clustered(classes)}
    with pytest.raises(UserError, match="k=200 takes more than 160 real clips"):
        asked(subject_of(points, {"real": classes}), k=200)
    with pytest.raises(UserError, match="feature space, and none was given"):
        asked(Subject(subject_of(points, {"real": classes}).sets, SPLIT))
    with pytest.raises(UserError, match="real clips; there are none"):
        asked(subject_of({"samples": points["real"]}, {"samples": classes}))
    few = classes[(classes == 1).sum(1) < 2]  # no blue square
    with pytest.raises(UserError, match=r"2 fresh real clips .* such as 'square blue' \(0\)"):
        asked(
            subject_of(
                {"real": clustered(few), "samples": points["real"]},
                {"real": few, "samples": classes},
            )
        )
