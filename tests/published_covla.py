"""A tiny copy of CoVLA, of the full set and of CoVLA-Dataset-Mini, whose states differ."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from published_videos import write_frames

TOKYO_ECEF = [-3959340.0, 3350521.0, 3699231.0]
NOON_MS, DUSK_MS, MIDNIGHT_MS = 1657767175000, 1657793700000, 1657810800000
"""14 July 2022 in Tokyo: 11:52, 19:15 and midnight."""


def write_covla(
    root: Path,
    scene: str,
    turn_deg: float,
    timestamp_ms: int,
    *,
    mini: bool = False,
    speed: float = 8.0,
    num_frames: int = 12,
    num_states: int | None = None,
    start_deg: float = 175.0,
    size: tuple[int, int] = (64, 96),
    seed: int = 0,
) -> None:
    """A drive that turns clockwise by `turn_deg` in all. From `start_deg` on, yaw wraps early.

    Below 64 pixels, the size of its blocks, x265 writes over other memory."""
    draw = np.random.default_rng([seed, *scene.encode()])
    frames = draw.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)
    folder = "video_samples" if mini else "videos"
    write_frames(root / folder / f"{scene}.mp4", frames, codec="libx265", pixels="yuv420p", fps=20)
    lines: list[str] = []
    for f in range(num_frames if num_states is None else num_states):
        turned = turn_deg * f / (num_frames - 1)
        yaw = math.remainder(math.radians(start_deg + turned), 2 * math.pi)
        ego: dict[str, Any] = {
            "vEgo": speed,
            "vEgoRaw": speed,
            "aEgo": 0.1,
            "steeringAngleDeg": -0.5 * turn_deg,  # positive is left
            "leftBlinker": turn_deg < -20,
            "rightBlinker": turn_deg > 20,
            "gearShifter": "drive",
            "orientations_ned": [0.01, -0.02, yaw],
            "positions_ecef": TOKYO_ECEF,
            "timestamp": timestamp_ms + 50 * f,
        }
        others: dict[str, Any] = {
            "extrinsic_matrix": np.eye(4).tolist(),
            "intrinsic_matrix": [[2648.0, 0.0, 964.0], [0.0, 2648.0, 604.0], [0.0, 0.0, 1.0]],
            "trajectory": [[0.4 * k, 0.0, 0.0] for k in range(60)],
            "trajectory_count": 60,
        }
        if mini:
            name = f"images/{scene}/{f:04d}.png"
            lines.append(
                json.dumps({"frame_id": f, "ego_state": ego, "image_path": name, **others})
            )
        else:
            lines.append(json.dumps({str(f): {**ego, **others}}))
    for kind in ("states", "captions"):
        path = root / kind / f"{scene}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(("" if mini else "\n").join(lines if kind == "states" else ['{"0": {}}']))
