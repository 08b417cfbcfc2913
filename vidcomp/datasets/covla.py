"""CoVLA: 10 000 half-minute drives around Tokyo (Arai and others 2024, arXiv:2408.10845).

    videos/0000b7dc6478371b.mp4   states/0000b7dc6478371b.jsonl          (the full set)
    video_samples/SCENE.mp4       states/SCENE.jsonl                     (CoVLA-Dataset-Mini)

H.265 of 1928 x 1208, 20 frames per second, 600 frames. States have a JSON object for each frame,
``{"12": {"vEgo": ..., ...}}`` in the full set, ``{"frame_id": 12, "ego_state": {"vEgo": ...}}`` in
the mini one, and not always line ends between them.

Buckets, by this rule; the paper (arXiv:2510.03075) states none of its own:
- `time`: from ``timestamp`` (Unix, ms) and ``positions_ecef`` follows how high the sun stands. Day:
  above `day_deg`, the horizon. Night: below `night_deg`, the end of civil twilight.
- `manoeuvre`: from ``orientations_ned`` (roll, pitch, yaw in radians; yaw clockwise from north), by
  how much the heading changes from the clip's first frame to its last. Left or right: `turn_deg` or
  more. Straight: never off the first heading by more than `straight_deg`.
- The car drives: ``vEgo`` is at least `min_speed` (m/s) on average.
Clips that match no bucket, or lack states, are left out and counted.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from vidcomp.config import UserError
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.notes import found, remembered
from vidcomp.world.factors import Factor, FactorClass, Factors

TIMES = ("day", "night")
MANOEUVRES = ("left", "straight", "right")
LAYOUT = "videos/SCENE.mp4 and states/SCENE.jsonl, as unpacked from states.tar.gz"
STATES = (
    "CoVLA states, one JSON object for each frame with vEgo, orientations_ned, positions_ecef and "
    "timestamp"
)
EPOCH_2000_S = 946728000
"""Noon of 1 January 2000 in Unix time, from which astronomers count days."""


class Config(base.Config, Reading):
    """`path`: the folder with the videos and the states. The other settings are the rule's."""

    path: Path
    day_deg: float = 0.0
    night_deg: float = -6.0
    turn_deg: float = Field(default=30.0, gt=0)
    straight_deg: float = Field(default=5.0, gt=0)
    min_speed: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _buckets_are_apart(self) -> "Config":
        if self.night_deg > self.day_deg or self.straight_deg >= self.turn_deg:
            raise ValueError("night_deg is at most day_deg, straight_deg is below turn_deg")
        return self

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """The clips that fall into a bucket, in the order of the videos' names."""

    def __init__(self, config: Config) -> None:
        states, notes = _pair(config)
        files = ClipFiles(config.path, list(states), config)
        rows: list[int] = []
        classes: list[tuple[int, int]] = []
        for row, file in enumerate(files.file_of.tolist()):
            found_in = bucket(notes[states[files.paths[file]]], files.frames_of(row), config)
            if found_in is not None:
                rows.append(row)
                classes.append(found_in)
        if not rows:
            raise UserError(
                f"none of the {len(files)} clips of {config.path} falls into a bucket; "
                f"longer clips turn more: num_frames is {files.num_frames}, temporal_stride "
                f"{config.temporal_stride}, turn_deg {config.turn_deg:g}"
            )
        if len(rows) < len(files):
            print(
                f"{config.path}: {len(files) - len(rows)} of {len(files)} clips are in no bucket "
                f"({', '.join(TIMES)} x {', '.join(MANOEUVRES)}) and left out",
                file=sys.stderr,
            )
        time = Factor("time", tuple(map(FactorClass, TIMES)))
        manoeuvre = Factor("manoeuvre", tuple(map(FactorClass, MANOEUVRES)), temporal=True)
        super().__init__(
            files, Factors((time, manoeuvre)), torch.tensor(classes), rows=torch.tensor(rows)
        )


def bucket(note: dict[str, Any], frames: range, config: Config) -> tuple[int, int] | None:
    """Class ids of the clip that shows these frames of a file, or None."""
    span = slice(frames[0], frames[-1] + 1)
    yaws, speeds = note["yaw"][span], note["speed"][span]
    if len(yaws) <= frames[-1] - frames[0] or None in yaws or np.mean(speeds) < config.min_speed:
        return None
    turned = np.degrees(np.unwrap(yaws) - yaws[0])
    if abs(turned).max() <= config.straight_deg:
        manoeuvre = "straight"
    elif abs(turned[-1]) >= config.turn_deg:
        manoeuvre = "right" if turned[-1] > 0 else "left"
    else:
        return None
    if config.night_deg <= note["sun"] <= config.day_deg:
        return None
    time = "day" if note["sun"] > config.day_deg else "night"
    return TIMES.index(time), MANOEUVRES.index(manoeuvre)


def sun_deg(unix_s: float, position_ecef: list[float]) -> float:
    """The sun's height above the horizon, to a fraction of a degree: the low-precision formulas of
    the Astronomical Almanac, section C."""
    n = (unix_s - EPOCH_2000_S) / 86400  # days
    anomaly = math.radians(357.528 + 0.9856003 * n)
    longitude = math.radians(
        280.460 + 0.9856474 * n + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly)
    )
    tilt = math.radians(23.439 - 4e-7 * n)
    ascension = math.atan2(math.cos(tilt) * math.sin(longitude), math.cos(longitude))
    declination = math.asin(math.sin(tilt) * math.sin(longitude))
    earth = math.radians(280.46062 + 360.98564737 * n)  # its rotation: sidereal time at Greenwich
    sun = np.array(
        [
            math.cos(declination) * math.cos(ascension - earth),
            math.cos(declination) * math.sin(ascension - earth),
            math.sin(declination),
        ]
    )
    up = np.array(position_ecef) / np.linalg.norm(position_ecef)
    return math.degrees(math.asin(float(sun @ up)))


def _pair(config: Config) -> tuple[dict[str, str], dict[str, Any]]:
    """The states of each video, and what is in them."""
    videos = found(config.path, "*.mp4", expected=LAYOUT)
    paths = found(
        config.path, "*.jsonl", expected=LAYOUT, key=lambda path: f"{path.parent.name}/{path.stem}"
    )
    states = {Path(key).name: path for key, path in paths.items() if key.startswith("states/")}
    for stem, path in [*states.items(), *videos.items()]:
        if config.on_error == "raise" and not (stem in states and stem in videos):
            raise UserError(
                f"{config.path / path} stands alone; expected {LAYOUT}, or set on_error=skip to "
                "leave out videos without states and states without a video"
            )
    pairs = {path: states[stem] for stem, path in videos.items() if stem in states}
    if not pairs:
        raise UserError(f"{config.path} holds no video with states; expected {LAYOUT}")
    return pairs, remembered(config.path, "covla-1", list(pairs.values()), _note, expected=STATES)


def _note(path: Path) -> dict[str, Any]:
    """What the buckets are mined from; None where a frame has no state."""
    states = dict(_states(path.read_text()))
    middle = states[sorted(states)[len(states) // 2]]
    frames = range(max(states) + 1)
    return {
        "yaw": [
            round(states[f]["orientations_ned"][2], 5) if f in states else None for f in frames
        ],
        "speed": [round(states[f]["vEgo"], 3) if f in states else None for f in frames],
        "sun": sun_deg(middle["timestamp"] / 1000, [float(x) for x in middle["positions_ecef"]]),
    }


def _states(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The number and the state of each frame, in either form."""
    decoder = json.JSONDecoder()
    text = text.strip()
    out: list[tuple[int, dict[str, Any]]] = []
    at = 0
    while at < len(text):
        item, at = decoder.raw_decode(text, at)
        while at < len(text) and text[at].isspace():
            at += 1
        if "ego_state" in item:
            out.append((item["frame_id"], item["ego_state"]))
        else:
            out += [(int(key), state) for key, state in item.items()]
    return out
