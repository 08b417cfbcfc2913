"""What a result depends on beside its config: commit, device, versions."""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vidcomp.config import UserError
from vidcomp.media import write_bytes

_PACKAGES = ("torch", "accelerate", "av", "decord", "numpy", "einops", "vidcomp")


def environment(**extra: Any) -> dict[str, Any]:
    """What a result depends on beside its config: commit, device, versions, and `extra`."""
    cpu = f"cpu ({platform.machine()})"
    return {
        "commit": commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
        "versions": {"python": platform.python_version(), **_versions()},
        "command": " ".join(sys.argv),
        **extra,
    }


def read_environment(out: Path) -> dict[str, Any]:
    """What `environment` said when the run in `out` was started."""
    path = out / "environment.json"
    if not path.is_file():
        raise UserError(f"{path} is missing; restore it, or train again in another out=DIR")
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """The file is complete or absent."""
    write_bytes(path, json.dumps(content, indent=1).encode())


def commit() -> str:
    """The commit of this code, with ``+changes`` if the working tree differs; "unknown" outside
    git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
