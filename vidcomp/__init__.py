"""vidcomp: the codebase for research on compositional generalization in video generation.

The Python way in: ``vidcomp.load("runs/demo/flow-s0").generate({"shape": "circle", ...}, seed=0)``.
Nothing is imported here that is slow, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidcomp.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["load"]


def load(run: str | Path, *, device: str | None = None) -> "Pipeline":
    """The generator or tokenizer in the run folder `run`, with its EMA weights, ready to use."""
    from vidcomp.pipeline import Pipeline

    return Pipeline.load(run, device=device)
