"""Tiny copies of published datasets, written in their true formats: field names, types and traps
are those of the papers' releases and of the code that made them, not what a reader expects."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

SHAPES3D_VALUES = (
    np.linspace(0, 0.9, 10),  # floor hue
    np.linspace(0, 0.9, 10),  # wall hue
    np.linspace(0, 0.9, 10),  # object hue
    np.linspace(0.75, 1.25, 8),  # scale
    np.arange(4.0),  # shape
    np.linspace(-30, 30, 15),  # orientation
)
"""The labels, row-major in this order."""

CELEBA_NAMES = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
    Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses
    Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache
    Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick
    Wearing_Necklace Wearing_Necktie Young
"""
"""The second line of the attributes' text, without its line breaks."""


def shapes3d_labels() -> np.ndarray:
    """All 480 000 rows."""
    grids = np.meshgrid(*SHAPES3D_VALUES, indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=1)


def write_shapes3d(
    path: Path, labels: np.ndarray, *, seed: int = 0, chunks: tuple[int, ...] | None = None
) -> np.ndarray:
    """``3dshapes.h5`` with these rows; returns its images."""
    import h5py

    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 64, 64, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=chunks, compression=chunks and "gzip")
        file.create_dataset("labels", data=labels.astype(np.float64))
    return images


def write_celeba(
    folder: Path, marks: list[dict[str, int]], *, seed: int = 0, nested: bool = True
) -> None:
    """Images with these marks, all others -1."""
    text = folder / "Anno" if nested else folder
    images = (folder / "Img" if nested else folder) / "img_align_celeba"
    text.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True)
    names = CELEBA_NAMES.split()
    lines = [str(len(marks)), " ".join(names) + " "]  # as published, with a space at its end
    draw = np.random.default_rng(seed)
    for k, of_image in enumerate(marks, start=1):
        numbers = " ".join(f"{of_image.get(name, -1):>2}" for name in names)
        lines.append(f"{k:06d}.jpg {numbers}")
        pixels = draw.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((178, 218)).save(images / f"{k:06d}.jpg")
    (text / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")


def clevr_object(x: float, y: float, px: int, py: int, **attributes: str) -> dict[str, Any]:
    usual = {"shape": "cube", "size": "large", "color": "gray", "material": "rubber"}
    place = {"3d_coords": [x, y, 0.7], "rotation": 34.5, "pixel_coords": [px, py, 11.2]}
    return {**usual, **attributes, **place}


def write_clevr(
    folder: Path,
    scenes: list[list[dict[str, Any]]],
    *,
    part: str = "train",
    relations: str = "relationships",
    size: tuple[int, int] = (480, 320),
    seed: int = 0,
) -> None:
    """Pictures of noise with the scenes of these objects; `size` is width, height."""
    images, notes = folder / "images" / part, folder / "scenes"
    images.mkdir(parents=True)
    notes.mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    draw = np.random.default_rng(seed)
    for k, objects in enumerate(scenes):
        name = f"CLEVR_{part}_{k:06d}.png"
        sides = {side: [[] for _ in objects] for side in ("left", "right", "front", "behind")}
        directions = {side: [1.0, 0.0, 0.0] for side in (*sides, "above", "below")}
        entries.append(
            {"split": part, "image_index": k, "image_filename": name, "objects": objects}
            | {"directions": directions, relations: sides}
        )
        pixels = draw.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        pixels[..., 3] = 255  # the published pictures are RGBA
        Image.fromarray(pixels).save(images / name)
    info = {"split": part, "version": "1.0", "date": "2/14/2017", "license": "CC BY 4.0"}
    text = json.dumps({"info": info, "scenes": entries})
    (notes / f"CLEVR_{part}_scenes.json").write_text(text)


def phyworld_video(positions: np.ndarray, radii: np.ndarray, side: int = 64) -> np.ndarray:
    """Frames as they are stored: of balls at (x, y) in a world 10 wide, the last row at y = 0."""
    y, x = np.meshgrid(np.linspace(0, 10, side), np.linspace(0, 10, side), indexing="ij")
    frames = np.full((len(positions), side, side, 3), 255, dtype=np.uint8)
    for t, ball in itertools.product(range(len(positions)), range(len(radii))):
        away = np.hypot(x - positions[t, ball, 0], y - positions[t, ball, 1])
        frames[t][away <= radii[ball]] = ((255, 0, 0), (0, 0, 255))[ball]
    return frames[:, ::-1]


def mp4(frames: np.ndarray) -> bytes:
    """As imageio writes it: H.264 in yuv420p, ten frames a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for image in np.ascontiguousarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_phyworld(
    path: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]], *, side: int = 64
) -> None:
    """Of each part positions (n, t, 2) or (n, t, 2, 2), and initial radii and speeds (n, 2 or
    4)."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, (positions, initial) in parts.items():
            file[f"position_streams/{name}"] = positions
            file[f"init_streams/{name}"] = initial
            videos = file.require_group("video_streams").create_dataset(
                name, shape=(len(positions),), dtype=h5py.vlen_dtype(np.dtype("uint8"))
            )
            for row, track in enumerate(positions):
                balls = track.reshape(len(track), -1, 2)
                frames = phyworld_video(balls, initial[row, : balls.shape[1]], side)
                videos[row] = np.frombuffer(mp4(frames), dtype=np.uint8)


def steady(num_videos: int, num_frames: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Balls that roll: positions (n, t, 2), and radius and speed (n, 2)."""
    draw = np.random.default_rng(seed)
    radius, speed = draw.uniform(0.7, 1.4, num_videos), draw.uniform(1, 4, num_videos)
    x = 1.5 + speed[:, None] * 0.1 * np.arange(num_frames)
    y = np.broadcast_to(draw.uniform(2, 8, num_videos)[:, None], x.shape)
    return np.stack([x, y], axis=-1), np.stack([radius, speed], axis=1)
