"""Render the dataset that a config describes: lossless clips with their truth, factors and levels.

    python tools/render.py configs/data/motion.yaml out=runs/data/motion
    python tools/render.py configs/data/motion.yaml data.render.seed=7 out=runs/data/motion-7
    python tools/render.py verify runs/data/motion
    python tools/render.py preview configs/data/motion.yaml out=motion.gif clips=4 truth=true

Without out=DIR it goes where the config reads it. After an interruption the same command goes on,
and of a finished dataset it makes again what is missing or of another size. Large datasets take one
process for each CPU, or workers=N. `verify` compares every file with the checksums of the finished
dataset. `preview` stores no dataset: it shows clips of each combination and level in a picture
(.gif, .mp4, .png).
"""

from vidcomp.cli import command


def main(verb: str, first: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vidcomp.config import UserError
    from vidcomp.datasets.base import DataRoot
    from vidcomp.report.coverage import write_coverage
    from vidcomp.report.gallery import Preview, write_preview
    from vidcomp.storage import render, verify
    from vidcomp.world.coverage import coverage_text

    if verb == "verify":
        if overrides:
            raise UserError(f"verify takes a folder and nothing else, got {overrides[0]!r}")
        verdict = verify(Path(first))
        print(*verdict.faults, sep="\n", end="\n" if verdict.faults else "")
        if verdict.faults:
            raise UserError(verdict.summary)
        return print(verdict.summary)
    if verb == "preview":
        return print(write_preview(Preview.load(first, overrides)))
    root = DataRoot.load(first, overrides)
    data, folder = root.data, root.out or root.data.folder
    if data.drawn is None or folder is None:
        lacks = "data.render, as configs/data/motion.yaml has" if folder else "folder; say out=DIR"
        raise UserError(f"{first} has no {lacks}")
    coverage = render(data, folder, workers=root.workers)
    write_coverage(folder / "split.png", coverage)
    print(coverage_text(coverage), "", f"clips, factors.csv, levels.csv: {folder}", sep="\n")


if __name__ == "__main__":
    command(__doc__, main, positional="CONFIG|DIR", verbs=("verify", "preview"))
