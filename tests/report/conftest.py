"""The maker of run folders, in a folder of each test's own."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from studio import BITS, NOVEL, Studio


@pytest.fixture
def studio(tmp_path: Path) -> Callable[..., Studio]:
    """Makes a `Studio`; by default of the demo's world, with three frames."""

    def make(
        *,
        factors: Mapping[str, list[str]] = BITS,
        novel: Mapping[str, list[str]] = NOVEL,
        num_frames: int = 3,
        root: str = "runs",
    ) -> Studio:
        return Studio(tmp_path / root, factors, novel, num_frames)

    return make
