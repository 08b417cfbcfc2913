"""Mean shifts and their angles: known directions are found again, noise is not taken for any."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor
from toy_network import FACTORS, SPLIT, Toy, balanced, clips_of, noise

from vidcomp.config import UserError
from vidcomp.probes.base import ClipSet, Findings, Model, Subject
from vidcomp.probes.base_directions import (
    Concepts,
    Measured,
    auc,
    block_scores,
    components,
    cosines,
    deal,
    jackknife_error,
)
from vidcomp.probes.directions import Config, diagonal_share
from vidcomp.world.factors import Factors

CLASSES = balanced(20)
BASIS = torch.linalg.qr(noise(16, 16))[0]
BLOCKS = ("subject", "subject", "style", "style")


def groups(shifts: Tensor, *, spread: float, seed: int = 0, num_groups: int = 10) -> Tensor:
    """`shifts` (n c) as each group measures them, against a background of its own, whose noise is
    in all of its shifts."""
    n, c = shifts.shape
    shared = noise(num_groups, 1, c, seed=seed)
    return shifts + spread * (noise(num_groups, n, c, seed=seed + 1) - shared)


def known_matrix() -> tuple[Tensor, Tensor]:
    """Shifts of lengths 1 to 4 and the matrix of their cosines."""
    shifts = noise(4, 32, seed=7) + 0.5 * noise(1, 32, seed=8)
    unit = shifts / shifts.norm(dim=1, keepdim=True)
    return unit * torch.arange(1.0, 5)[:, None], unit @ unit.mT


def test_without_noise_the_matrix_is_exact() -> None:
    shifts, expected = known_matrix()
    found = cosines(groups(shifts, spread=0.0))
    torch.testing.assert_close(found, expected.double().expand(11, 4, 4), rtol=1e-5, atol=1e-5)


def test_the_matrix_of_known_directions_is_found_through_noise() -> None:
    """Averaged over draws it is the true one, where cosines of plain means are far from it."""
    shifts, expected = known_matrix()
    draws = [groups(shifts, spread=0.25, seed=2 * i) for i in range(60)]
    found = torch.stack([cosines(d)[0] for d in draws]).mean(0)
    assert (found - expected).abs().max() < 0.05
    means = torch.stack([d.mean(0) for d in draws])
    naive = torch.nn.functional.cosine_similarity(means[:, :, None], means[:, None], dim=-1)
    assert (naive.mean(0) - expected).abs().max() > 0.08


def test_noise_alone_has_no_direction() -> None:
    """The shared background makes plain cosines 1/2; here there is nothing to compare."""
    draws = [groups(torch.zeros(4, 32), spread=1.0, seed=2 * i) for i in range(100)]
    scores = [block_scores(cosines(d), BLOCKS, count=10) for d in draws]
    assert torch.tensor([s["clear"].value for s in scores]).mean() < 0.1
    assert sum("auc" in s for s in scores) < 5
    silent = cosines(torch.zeros(5, 4, 8))
    assert silent.isnan().all() and set(block_scores(silent, BLOCKS, count=5)) == {"clear"}


def test_chance_is_what_noise_gives_to_right_angles() -> None:
    shifts = torch.eye(4, 32)
    scores = [
        block_scores(cosines(groups(shifts, spread=0.2, seed=2 * i)), BLOCKS, count=10)
        for i in range(50)
    ]
    for key in ("within", "across"):
        found = torch.tensor([s[key].value for s in scores]).mean()
        chance = torch.tensor([s[key].chance for s in scores]).mean()
        assert float(found) == pytest.approx(float(chance), rel=0.15) and found > 0.03


def test_intervals_hold_what_many_draws_would_give() -> None:
    shifts, expected = known_matrix()
    truth = expected[0, 1].double()
    draws = [cosines(groups(shifts, spread=0.3, seed=2 * i))[:, 0, 1] for i in range(60)]
    held = [abs(float(d[0] - truth)) <= 2.26 * float(jackknife_error(d)) for d in draws]
    assert sum(held) >= 52


def test_scores_of_a_block_matrix() -> None:
    matrix = torch.tensor([[1, 0.8, 0.1, -0.2], [0.8, 1, 0, 0.1], [0.1, 0, 1, -0.6], [0] * 4])
    matrix[3] = matrix[:, 3]
    scores = block_scores(matrix.double().expand(4, 4, 4), BLOCKS, count=7)
    expected = {"within": 0.7, "across": 0.1, "gap": 0.6, "auc": 1.0, "minimum": -0.2}
    assert scores.pop("clear").value == 1.0
    assert {key: s.value for key, s in scores.items()} == pytest.approx(expected)
    assert all(s.low == pytest.approx(s.value) and s.n == 7 for s in scores.values())
    swapped = block_scores(matrix.double().expand(4, 4, 4), ("a", "b", "a", "b"), count=7)
    assert swapped["auc"].value < 0.5 and swapped["gap"].value < 0


def test_auc_is_that_of_ranks() -> None:
    from scipy.stats import mannwhitneyu

    one, other = noise(1, 9).round(decimals=0), noise(1, 13, seed=1).round(decimals=0)
    u = mannwhitneyu(one[0].numpy(), other[0].numpy()).statistic
    assert float(auc(one, other)) == pytest.approx(u / (9 * 13))


def test_components_are_the_directions_in_which_differences_are() -> None:
    planes = noise(50, 2) @ BASIS[:2] * 5 + 0.01 * noise(50, 16, seed=1)
    found = components(planes, 2)
    torch.testing.assert_close(found @ found.mT, torch.eye(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        (found @ BASIS[:2].mT).det().abs(), torch.tensor(1.0), rtol=1e-3, atol=0
    )
    assert components(noise(3, 16), 5).shape == (3, 16)


def test_clips_of_a_cell_are_dealt_out_evenly() -> None:
    cells = torch.tensor([3, 1, 1, 3, 1, 3, 1, 3])
    group = deal(cells, 4)
    assert sorted(group[cells == 1].tolist()) == sorted(group[cells == 3].tolist()) == [0, 1, 2, 3]


Kind = Literal["separate", "mixed"]


@dataclass
class Known:
    """A network of one layer, in which each concept has a direction, or all factors share two."""

    kind: Kind = "separate"
    noise: float = 0.3

    def hidden_told(
        self, clips: ClipSet, level: float, factors: list[int], *, pooled: bool
    ) -> Tensor:
        z = 5 + self.noise * noise(len(clips.classes), 16, seed=int(100 * level))
        for f in factors:
            rows = 2 * f + clips.classes[:, f] if self.kind == "separate" else clips.classes[:, f]
            z = z + BASIS[rows]
        return (z if pooled else torch.cat([z, 0 * z], 1))[:, None]

    hidden = heads = influence = Toy.hidden

    def untrained(self) -> Model:
        return Known("mixed")


def found_in(network: Known, classes: Tensor = CLASSES, **settings: object) -> Findings:
    subject = Subject({"real": clips_of(classes)}, SPLIT, model=network)
    return Config.model_validate({"also_at": (), **settings}).build(FACTORS).run(subject)


def test_concepts_with_directions_of_their_own_are_at_right_angles_and_local() -> None:
    found = found_in(Known())
    cosine = found.tables["network/level/0.5/layer/0/cosines"]
    assert (cosine - torch.eye(6)).abs().max() < 0.15
    place = "network/level/0.5/layer/0"
    score = found.scores[f"{place}/locality"]
    assert score.value > 0.99 and score.chance == pytest.approx(1 / 3)
    regions = found.tables[f"{place}/regions"]
    torch.testing.assert_close(regions.diagonal(), torch.ones(3).to(regions), rtol=1e-3, atol=1e-3)
    assert found.scores[f"{place}/across"].value < 2.5 * found.scores[f"{place}/across"].chance


def test_factors_that_share_directions_are_neither() -> None:
    """The first class of one factor is that of another: cos 1 across, about 0 within."""
    found = found_in(Known("mixed"))
    place = "network/level/0.5/layer/0"
    assert found.scores[f"{place}/auc"].value < 0.5
    assert found.scores[f"{place}/gap"].high < 0
    assert found.scores[f"{place}/locality"].value < 0.6
    assert found.tables[f"{place}/cosines"][0, 2] == pytest.approx(1, abs=0.05)


def test_every_level_is_looked_at_and_tokens_change_the_space_only() -> None:
    pooled, tokens = (
        found_in(Known(), level=0.2, also_at=(0.9, 0.2), per_token=per_token)
        for per_token in (False, True)
    )
    places = {key.rpartition("/")[0] for key in pooled.scores}
    assert places == {
        f"{source}/level/{level}/layer/0"
        for source in ("network", "untrained")
        for level in (0.2, 0.9)
    }
    for key, score in pooled.scores.items():  # the other half of the tokens' space is empty
        assert tokens.scores[key].value == pytest.approx(score.value, abs=1e-4)


def test_a_class_that_no_clip_shows_is_left_out() -> None:
    lacking = CLASSES[CLASSES[:, 1] == 0]
    found = found_in(Known(), lacking)
    assert found.tables["network/level/0.5/layer/0/cosines"].shape == (5, 5)


def test_what_cannot_be_compared_is_said() -> None:
    rare = torch.cat([CLASSES[CLASSES[:, 0] == 0], torch.tensor([[1, 0, 0], [1, 1, 1]])])
    with pytest.raises(UserError, match=r"82 clips are too few of some: give it more"):
        found_in(Known(), rare)
    with pytest.raises(UserError, match="two factors, one of them with two concepts; got a, b"):
        Concepts(("a", "b"), ("x", "y"))
    with pytest.raises(UserError, match="two factors"):
        Concepts(("a", "b"), ("x", "x"))
    nothing = Subject({"real": clips_of(CLASSES)}, SPLIT, model=Known())
    with pytest.raises(UserError, match="no factors"):
        Config().build(Factors(())).run(nothing)


def test_a_matrix_of_nothing_is_chance() -> None:
    assert float(diagonal_share(torch.zeros(4, 4))) == 0.25
    assert float(diagonal_share(torch.eye(4))) == 1.0


def test_places_are_added_one_by_one() -> None:
    measured = Measured(Concepts(("a", "b", "c", "d"), BLOCKS))
    measured.add("mid_block", groups(known_matrix()[0], spread=0.1), count=10)
    assert measured.cosines["mid_block"].shape == (4, 4)
    assert set(measured.scores) == {
        f"mid_block/{key}" for key in ("clear", "within", "across", "gap", "auc", "minimum")
    }
