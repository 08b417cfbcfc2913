"""Sample a generator's run: each level of its split, as lossless clips and grid.mp4 in RUN/samples.

examples:
  python tools/sample.py runs/smoke
  python tools/sample.py runs/smoke clips_per_level=16 guidance_scale=3 sampler.num_steps=8

Keys are those of `sampling` in the run's config.
"""

from vidcomp.cli import command


def main(verb: str, run: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vidcomp.evaluation import sample_run
    from vidcomp.runs import sampling_of

    folder = sample_run(Path(run), sampling_of(Path(run), overrides))
    print(f"samples: {folder}\ngrid: {folder / 'grid.mp4'}")


if __name__ == "__main__":
    command(__doc__, main, positional="RUN")
