"""CoVLA: two forms of states, and the rule by which drives fall into buckets."""

import json
from pathlib import Path

import pytest
import torch
from published_covla import DUSK_MS, MIDNIGHT_MS, NOON_MS, TOKYO_ECEF, write_covla

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.datasets.covla import sun_deg
from vidcomp.media import MediaError


def reader(root: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "covla", "path": root, **settings}).build()


def buckets(dataset: Dataset) -> list[str]:
    return [dataset.factors.describe(classes) for classes in dataset.classes()]


@pytest.mark.parametrize("mini", [False, True])
def test_drives_fall_into_six_buckets(tmp_path: Path, mini: bool) -> None:
    """Whatever the form of the states, and across the north, where yaw jumps by a turn."""
    drives = [
        ("a", -90.0, NOON_MS, "day left"),
        ("b", 2.0, NOON_MS, "day straight"),
        ("c", 90.0, NOON_MS, "day right"),
        ("d", -31.0, MIDNIGHT_MS, "night left"),
        ("e", -4.9, MIDNIGHT_MS, "night straight"),
        ("f", 31.0, MIDNIGHT_MS, "night right"),
    ]
    for name, turn_deg, time_ms, _ in drives:
        write_covla(tmp_path, name, turn_deg, time_ms, mini=mini)
    dataset = reader(tmp_path)
    assert (dataset.num_frames, dataset.height, dataset.width, dataset.fps) == (12, 64, 96, 20)
    assert buckets(dataset) == [label for *_, label in drives]
    assert [factor.temporal for factor in dataset.factors.items] == [False, True]


def test_what_is_in_no_bucket_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_covla(tmp_path, "kept", 60, NOON_MS)
    write_covla(tmp_path, "between straight and a turn", 15, NOON_MS)
    write_covla(tmp_path, "dusk", 60, DUSK_MS)
    write_covla(tmp_path, "parked", 0, NOON_MS, speed=0.0)
    write_covla(tmp_path, "states end early", 60, NOON_MS, num_states=10)
    dataset = reader(tmp_path)
    assert (buckets(dataset), len(dataset)) == (["day right"], 1)
    assert "4 of 5 clips are in no bucket" in capsys.readouterr().err
    assert len(reader(tmp_path, turn_deg=14, min_speed=0, day_deg=-2, night_deg=-2)) == 4


def test_a_window_has_its_own_bucket(tmp_path: Path) -> None:
    write_covla(tmp_path, "long", 88, NOON_MS)  # 8 degrees a frame
    whole = reader(tmp_path)
    parts = reader(tmp_path, num_frames=2, temporal_stride=3, windows="all", turn_deg=20)
    assert buckets(parts) == ["day right"] * 2 and len(parts.groups().unique()) == 1
    asked = parts.clips(torch.tensor([1, 0])).frames
    assert torch.equal(asked, whole.clips(torch.tensor([0])).frames[0, [[6, 9], [0, 3]]])
    with pytest.raises(
        UserError, match=r"none of the 2 clips .* num_frames is 2, temporal_stride 3"
    ):
        reader(tmp_path, num_frames=2, temporal_stride=3, windows="all")


def test_the_clips_are_those_of_the_bucket(tmp_path: Path) -> None:
    """Rows are counted among the clips that are kept, not among all."""
    write_covla(tmp_path, "a", 15, NOON_MS)
    for name in "bc":
        write_covla(tmp_path, name, 60, NOON_MS)
    dataset = reader(tmp_path)
    (tmp_path / "alone").mkdir()
    write_covla(tmp_path / "alone", "c", 60, NOON_MS)
    alone = reader(tmp_path / "alone")
    assert dataset.rows.tolist() == [1, 2]
    assert torch.equal(dataset.clips(torch.tensor([1])).frames, alone.clips(torch.arange(1)).frames)


def test_the_sun_rises_and_sets_as_the_almanac_says() -> None:
    """Tokyo on 14 July 2022: 04:36 and 18:57, when its upper limb is on the refracted horizon; at
    its highest, 11:46, it stands at 90 - 35.7 + 21.6 degrees."""
    day_s = 1657724400  # midnight there
    for hours, expected in ((4 + 36 / 60, -0.83), (18 + 57 / 60, -0.83), (11 + 46 / 60, 75.9)):
        assert sun_deg(day_s + 3600 * hours, TOKYO_ECEF) == pytest.approx(expected, abs=0.3)


def test_the_equinox_sun_is_overhead_at_the_equator() -> None:
    """20 March 2000, 12:07 at Greenwich, and below one's feet on the other side."""
    assert sun_deg(953554020.0, [6378137.0, 0.0, 0.0]) > 89
    assert sun_deg(953554020.0, [-6378137.0, 0.0, 0.0]) < -89
    assert sun_deg(953554020.0, [0.0, 0.0, 6356752.0]) == pytest.approx(0, abs=0.3)


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*expected videos/SCENE\.mp4"):
        reader(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no video with states; expected videos/SCENE\.mp4"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="straight_deg is below turn_deg"):
        reader(tmp_path, turn_deg=5)
    write_covla(tmp_path, "a", 60, NOON_MS)
    write_covla(tmp_path, "b", 60, NOON_MS)
    (tmp_path / "states" / "._a.jsonl").write_bytes(b"\0\5\x16\7 a Mac was here")
    states = tmp_path / "states" / "b.jsonl"
    text = states.read_text()
    states.unlink()
    with pytest.raises(UserError, match=r"videos/b\.mp4 stands alone; expected videos/SCENE"):
        reader(tmp_path)
    assert len(reader(tmp_path, on_error="skip")) == 1
    first, *others = text.splitlines()
    plain = json.loads(first)
    del plain["0"]["orientations_ned"]
    for broken, expected in [
        (
            "\n".join([json.dumps(plain), *others]),
            "lacks 'orientations_ned'; expected CoVLA states",
        ),
        (text[:-9], r"cannot be read \(.*\); expected CoVLA states"),
        ("", r"cannot be read \(.*\); expected CoVLA states"),
    ]:
        states.write_text(broken)
        with pytest.raises(MediaError, match=rf"states/b\.jsonl {expected}") as error:
            reader(tmp_path)
        assert "\n" not in str(error.value)
