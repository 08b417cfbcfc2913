"""Render the dataset that a config describes: lossless clips with their truth and a factor table.

    python tools/render.py configs/data/motion.yaml out=runs/data/motion
    python tools/render.py configs/data/motion.yaml data.render.seed=7 out=runs/data/motion-7

Without out=DIR it goes where the config reads it. After an interruption the same command goes on.
"""

from vidcomp.cli import command


def main(verb: str, config: str, overrides: list[str]) -> None:
    """Render `config`."""
    from vidcomp.config import UserError
    from vidcomp.datasets.base import DataRoot, store

    root = DataRoot.load(config, overrides)
    folder = root.out or root.data.folder
    if root.data.render is None or folder is None:
        raise UserError(f"{config} has no data.render; configs/data/motion.yaml is an example")
    dataset = root.data.render.build()
    store(dataset, folder)
    print(f"{len(dataset)} clips in {folder}")


if __name__ == "__main__":
    command(__doc__, main)
