"""Tiny copies of published video datasets in their true formats: file names, folders, field names
and traps are those of the releases and of the code that made them, not what a reader expects.

Only sizes and lengths are smaller. Here CLEVRER and CATER; MOVi and CoVLA have files of their own.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream

COLOURS = np.array([[220, 40, 40], [40, 80, 220], [60, 200, 60], [230, 210, 40]], dtype=np.uint8)
RADIUS = 3


def picture(
    centres: np.ndarray, size: tuple[int, int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Discs at (x, y) pixels on noise, and the number of the disc at each pixel, 0 for none."""
    h, w = size
    pixels = np.random.default_rng(seed).integers(0, 90, (h, w, 3), dtype=np.uint8)
    ids = np.zeros((h, w), dtype=np.uint8)
    y, x = np.mgrid[:h, :w]
    for k, (cx, cy) in enumerate(centres):
        inside = (x - cx) ** 2 + (y - cy) ** 2 <= RADIUS**2
        pixels[inside], ids[inside] = COLOURS[k % len(COLOURS)], 1 + k
    return pixels, ids


def moving(num_frames: int, starts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Centres (t, n, 2): every object goes right by a pixel in each frame."""
    step = np.stack([np.arange(num_frames), np.zeros(num_frames, dtype=int)], axis=1)
    return np.array(starts)[None] + step[:, None]


def write_frames(path: Path, frames: np.ndarray, *, codec: str, pixels: str, fps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "libx264": {"crf": "0"},
        "libx265": {
            "crf": "0",
            "preset": "ultrafast",
            "x265-params": "log-level=none:pools=1:frame-threads=1",
        },
        "mjpeg": {"qmin": "1", "qmax": "2"},
    }[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths, by columns, from an empty run."""
    flat = mask.astype(int).T.ravel()
    ends = [*np.flatnonzero(np.diff(flat)) + 1, len(flat)]
    runs = np.diff([0, *([0] if flat[0] else []), *ends]).tolist()
    text = ""
    for k, run in enumerate(runs):
        x = run - (runs[k - 2] if k > 2 else 0)
        while True:
            bits, x = x & 31, x >> 5
            done = x == (-1 if bits & 16 else 0)
            text += chr(48 + (bits | (0 if done else 32)))
            if done:
                break
    return {"size": list(mask.shape), "counts": text}


CLEVRER_OBJECTS = [
    {"color": "gray", "material": "metal", "shape": "sphere"},
    {"color": "gray", "material": "rubber", "shape": "sphere"},
    {"color": "cyan", "material": "metal", "shape": "cube"},
    {"color": "brown", "material": "metal", "shape": "cylinder"},
]


def write_clevrer(
    root: Path,
    number: int,
    centres: np.ndarray,
    *,
    collisions: Sequence[tuple[int, int, int]] = (),
    hidden: Sequence[int] = (),
    proposals: bool = True,
    annotated: bool = True,
    rerooted: bool = False,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
) -> None:
    """One video. Objects of `hidden` never come into view; `rerooted` as many repositories ask."""
    part = "train" if number < 10_000 else "validation" if number < 15_000 else "test"
    low = number // 1000 * 1000
    shard = f"{low:05d}-{low + 1000:05d}"
    pictures = [picture(c, size, seed + 97 * number + t) for t, c in enumerate(centres)]
    video = Path("videos", part) if rerooted else Path(f"video_{part}")
    write_frames(
        root / video / f"video_{shard}" / f"video_{number:05d}.mp4",
        np.stack([pixels for pixels, _ in pictures]),
        codec="libx264",
        pixels="yuv420p",
        fps=25,
    )
    objects = CLEVRER_OBJECTS[: centres.shape[1]]
    if annotated:
        notes = Path("annotations", part) if rerooted else Path(f"annotation_{part}")
        path = root / notes / f"annotation_{shard}" / f"annotation_{number:05d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_clevrer_annotation(number, centres, collisions, hidden)))
    if proposals:
        path = root / "derender_proposals" / f"proposal_{number:05d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames: list[dict[str, Any]] = []
        for t, (_, ids) in enumerate(pictures):
            found = [
                {"mask": coco_rle(ids == 1 + k), "video_index": number, "frame_index": t}
                | {**objects[k], "score": 0.99 - 0.01 * k}
                for k in reversed(range(len(objects)))  # a detector's order, not the objects'
            ]
            frames.append({"frame_index": t, "objects": found})
        name = f"video_{number:05d}.mp4"
        plain = {"video_index": number, "frames": frames, "video_filename": name}
        path.write_text(json.dumps(plain))


def _clevrer_annotation(
    number: int,
    centres: np.ndarray,
    collisions: Sequence[tuple[int, int, int]],
    hidden: Sequence[int],
) -> dict[str, Any]:
    motion: list[dict[str, Any]] = []
    for t, places in enumerate(centres.tolist()):
        objects = [
            {
                "object_id": k,
                "location": [x / 10, y / 10, 0.2],
                "orientation": [0.0, 0.0, 12.5],
                "velocity": [0.1, 0.0, 0.0],
                "angular_velocity": [0.0, 0.0, 0.0],
                "inside_camera_view": k not in hidden,
            }
            for k, (x, y) in enumerate(places)
        ]
        motion.append({"frame_id": t, "objects": objects})
    return {
        "scene_index": number,
        "video_filename": f"video_{number:05d}.mp4",
        "object_property": [
            {"object_id": k, **attributes}
            for k, attributes in enumerate(CLEVRER_OBJECTS[: centres.shape[1]])
        ],
        "motion_trajectory": motion,
        "collision": [
            {"object_ids": [i, j], "frame_id": f, "location": [0.1, 0.2, 0.3]}
            for i, j, f in collisions
        ],
    }


CATER_SHAPES = (
    "spl",
    "cone",
    "cone",
    "sphere",
    "cube",
    "cylinder",
    "sphere",
    "cube",
    "cone",
    "cube",
)


def write_cater(
    folder: Path,
    number: int,
    num_objects: int,
    *,
    movements: Sequence[tuple[str, str | None, int, int]] = (),
    videos: str = "videos",
    prefix: str = "CATER_new_",
    num_frames: int = 13,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
) -> np.ndarray:
    """One video of Motion-JPEG and its scene. The movements are those of the first cone. Returns
    the centres (t, n, 2), of which the scene tells the first."""
    starts = [(4 + 4 * k, 4 + 7 * (k % 4)) for k in range(num_objects)]
    centres = moving(num_frames, starts)
    images = [picture(c, size, seed + 7 * number)[0] for c in centres]
    write_frames(
        folder / videos / f"{prefix}{number:06d}.avi",
        np.stack(images),
        codec="mjpeg",
        pixels="yuvj420p",
        fps=24,
    )
    names = [f"{shape.capitalize()}_{k}" for k, shape in enumerate(CATER_SHAPES[:num_objects])]
    objects = [
        {
            "shape": CATER_SHAPES[k],
            "size": "small",
            "sized": 0.3,
            "material": "metal",
            "3d_coords": [*(centres[0, k] / 10).tolist(), 0.3],
            "rotation": 12.0,
            "pixel_coords": [*centres[0, k].tolist(), 11.5],
            "color": "gold",
            "instance": names[k],
            "locations": {str(t): [*(centres[t, k] / 10).tolist(), 0.3] for t in range(num_frames)},
        }
        for k in range(num_objects)
    ]
    scene = {
        "split": "new",
        "image_index": number,
        "image_filename": f"{prefix}{number:06d}.avi",
        "objects": objects,
        "directions": {"left": [-0.7, -0.7, 0.0]},
        "relationships": {"left": [[] for _ in objects]},
        "movements": {name: [] for name in names} | {names[1]: [list(m) for m in movements]},
    }
    path = folder / "scenes" / f"{prefix}{number:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scene, indent=2))
    return centres
