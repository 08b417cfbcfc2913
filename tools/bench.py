"""Measure speed as ratios: training steps against matrix products, reading against a bare decoder.

examples:
  python tools/bench.py
  python tools/bench.py generator precision=bf16 repeats=20
  python tools/bench.py data
  python tools/bench.py data device=cuda size=base
  python tools/bench.py attention
  python tools/bench.py folder num_files=100000

Verbs: generator (a training step of each objective), sampling, tokenizer, data (rendering, reading,
cached latents), attention (within windows, beside all to all), folder (a folder of many files,
opened again; a minute to make); without one, all but the last. Each line: what, its time, its ratio
to what, and whether the limit is met where there is one; in brackets the quartiles. The figures go
to runs/bench.json.
"""

from vidcomp.cli import command

KINDS = ("generator", "sampling", "tokenizer", "data", "attention", "folder")


def main(verb: str, config: str, overrides: list[str]) -> None:
    from vidcomp.bench import BenchConfig, run_bench

    settings = BenchConfig.load(None, overrides)
    print(f"figures: {run_bench(settings, (verb,) if verb else KINDS[:-1])}")


if __name__ == "__main__":
    command(__doc__, main, positional=None, verbs=KINDS)
