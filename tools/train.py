"""Train a tokenizer or a generator, whichever CONFIG describes; the same command again goes on where it stopped.

examples:
  python tools/train.py configs/generators/smoke.yaml
  python tools/train.py configs/generators/flow.yaml train.steps=200 out=runs/short
  accelerate launch tools/train.py configs/generators/maskgit.yaml
  torchrun --nproc_per_node 2 tools/train.py configs/generators/maskgit.yaml
"""

from vidcomp.cli import command


def main(verb: str, config: str, overrides: list[str]) -> None:
    from vidcomp.runs import load_run
    from vidcomp.training.tasks import train

    run, out = load_run(config, overrides)
    folder = train(run, out)
    print(f"run folder: {folder}")


if __name__ == "__main__":
    command(__doc__, main)
