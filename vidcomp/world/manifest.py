"""What a rendered dataset is: ``dataset.json`` in its folder, written before the first clip.

With it the factors need not be read off the table, and a folder that has it and no ``factors.csv``
is an interrupted render. When the last clip is there it is written again, with the checksums.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vidcomp.media import MediaError, write_bytes
from vidcomp.world.factors import Factors

MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Manifest:
    """What was rendered. `fingerprint` is that of the dataset that drew the clips.

    `split`: the digest of the split of ``levels.csv``. `checksums`: the SHA-256 of each table, and
    for each shard that of its list of checksums (`vidcomp.storage.shards`); none while rendering.
    `sizes`: in bytes, of each table and of all files of each shard.
    """

    num_clips: int
    num_frames: int
    height: int
    width: int
    fps: float
    fingerprint: str
    factors: Factors
    split: str | None = None
    checksums: dict[str, str] = field(default_factory=dict[str, str])
    sizes: dict[str, int] = field(default_factory=dict[str, int])

    def save(self, folder: Path) -> None:
        plain = {**asdict(self), "factors": self.factors.to_json()}
        write_bytes(folder / MANIFEST, json.dumps(plain, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> "Manifest | None":
        """The manifest in `folder`, None if there is none."""
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            plain = json.loads(path.read_text())
            return cls(factors=Factors.from_json(plain.pop("factors")), **plain)
        except (ValueError, KeyError, TypeError):
            raise MediaError(f"{path} is damaged; remove it and render the dataset again") from None
