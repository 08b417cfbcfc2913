"""Measure speed as ratios: training steps against matrix products, reading against a bare decoder.

examples:
  python tools/bench.py
  python tools/bench.py generator precision=bf16 repeats=20
  python tools/bench.py data

Verbs: generator, tokenizer, data; without one, all. The figures go to runs/bench.json.
"""

from vidcomp.cli import command

KINDS = ("generator", "tokenizer", "data")


def main(verb: str, config: str, overrides: list[str]) -> None:
    from vidcomp.bench import BenchConfig, run_bench

    settings = BenchConfig.load(None, overrides)
    print(f"figures: {run_bench(settings, (verb,) if verb else KINDS)}")


if __name__ == "__main__":
    command(__doc__, main, positional=None, verbs=KINDS)
