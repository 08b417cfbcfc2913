"""Train a tokenizer or a generator, whichever CONFIG describes; run it again to go on.

examples:
  python tools/train.py configs/generators/smoke.yaml
  python tools/train.py configs/generators/flow.yaml train.steps=200 out=runs/short
  accelerate launch tools/train.py configs/generators/maskgit.yaml
  torchrun --nproc_per_node 2 tools/train.py configs/generators/maskgit.yaml
"""

from vidcomp.cli import command


def main(verb: str, config: str, overrides: list[str]) -> None:
    from accelerate import PartialState

    from vidcomp.runs import load_run
    from vidcomp.training.tasks import train

    run, out = load_run(config, overrides)
    train(run, out)
    PartialState().destroy_process_group()


if __name__ == "__main__":
    command(__doc__, main)
