"""A tiny copy of MOVi as Kubric's workers write it, before it is packed into TFDS."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from published_videos import picture

PALETTE = np.random.default_rng(0).integers(0, 256, 3 * 16).tolist()


def write_movi(
    root: Path,
    name: str,
    centres: np.ndarray,
    *,
    collisions: Sequence[tuple[int, int, float]] = (),
    segmentation: bool = True,
    size: tuple[int, int] = (32, 32),
    seed: int = 0,
) -> np.ndarray:
    """One scene of a Kubric worker; the frames of collisions count from the simulation's start.
    Returns the RGB images."""
    scene, (h, w), (num_frames, n, _) = root / name, size, centres.shape
    scene.mkdir(parents=True)
    clip: list[np.ndarray] = []
    visibility = np.zeros((n, num_frames), dtype=int)
    for t, places in enumerate(centres):
        pixels, ids = picture(places, size, seed + 31 * t)
        alpha = np.full((h, w, 1), 255, dtype=np.uint8)
        alpha[:2] = 0  # where it is not used, nobody may see it
        Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(scene / f"rgba_{t:05d}.png")
        Image.fromarray(ids.astype(np.uint16) * 900).save(scene / f"normal_{t:05d}.png")
        if segmentation:
            image = Image.fromarray(ids)
            image.putpalette(PALETTE)
            assert image.mode == "P"
            image.save(scene / f"segmentation_{t:05d}.png")
        visibility[:, t] = [(ids == 1 + k).sum() for k in range(n)]
        clip.append(pixels)
    instances = [
        {
            "asset_id": "cube",
            "shape": "cube",
            "size": 0.7,
            "size_label": "small",
            "material": "rubber",
            "color": [0.8, 0.1, 0.1],
            "color_label": "red",
            "positions": [[x / 10, y / 10, 0.35] for x, y in centres[:, k].tolist()],
            "image_positions": [[(x + 0.5) / w, (y + 0.5) / h] for x, y in centres[:, k].tolist()],
            "visibility": visibility[k].tolist(),
            "bbox_frames": np.flatnonzero(visibility[k]).tolist(),
            "mass": 1.0,
            "friction": 0.8,
            "restitution": 0.7,
        }
        for k in range(n)
    ]
    scene_metadata = {"resolution": [w, h], "frame_rate": 12, "step_rate": 240}
    scene_metadata |= {"num_frames": num_frames, "num_instances": n, "background": "clevr"}
    flags = {"frame_start": 1, "frame_end": num_frames, "frame_rate": 12, "max_num_objects": 10}
    events = [
        {
            "instances": [i, j],
            "contact_normal": [0.0, 0.0, 1.0],
            "frame": frame,
            "force": 3.2,
            "position": [0.1, 0.2, 0.0],
            "image_position": [0.4, 0.6],
        }
        for i, j, frame in collisions
    ]
    camera = {"focal_length": 35.0, "sensor_width": 32.0}
    plain = {"flags": flags, "metadata": scene_metadata, "camera": camera, "instances": instances}
    (scene / "metadata.json").write_text(json.dumps(plain, sort_keys=True, indent=4))
    (scene / "events.json").write_text(json.dumps({"collisions": events}, indent=4))
    (scene / "data_ranges.json").write_text(json.dumps({"depth": {"min": 1.0, "max": 9.0}}))
    return np.stack(clip)
