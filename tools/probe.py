"""Score a generator's run (RUN/scores.json), or, with the verb fit, fit the judge that scores.

examples:
  python tools/probe.py fit configs/probes/smoke.yaml out=runs/probe
  python tools/probe.py runs/smoke probe=runs/probe
  python tools/probe.py runs/counting probe=counting
  python tools/probe.py runs/smoke probe=runs/probe also=[heads,circuits]
  python tools/probe.py runs/smoke probe=runs/probe 'also=[{name: layers, checkpoints: all}]'
  python tools/probe.py runs/smoke probe=runs/probe also=[retrieval,frechet,memory] features=own

Samples that are missing are drawn first, as the run's `sampling` says. Every score stands beside
its ceilings: the same judge on real clips and on their reconstructions. The judge must have been
fitted on the run's dataset, so that the clips of the ceilings are new to it; one that needs no
fitting, counting or oracle, is named. Probes of the network's inside are asked by name only, or
with settings, such as to look into all checkpoints that are left. So are those of a feature space,
whose network is the project's own, FILE.pt (TorchScript), or hf:NAME (transformers).
"""

from vidcomp.cli import command


def main(verb: str, target: str, overrides: list[str]) -> None:
    import json
    from pathlib import Path

    from rich.console import Console

    from vidcomp.evaluation import ProbeFit, Scoring, fit_probe, probe_run, summary
    from vidcomp.runs import out_of

    if verb == "fit":
        settings, out = out_of(overrides)
        print(f"judge: {fit_probe(ProbeFit.load(target, settings), out)}")
        return
    asked = Scoring.load(None, overrides)
    path = probe_run(
        Path(target),
        Path(asked.probe),
        also=asked.also,
        features=asked.features,
    )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in summary(json.loads(path.read_text())):
        console.print(line, style="red" if "! " in line else None)
    print(f"scores: {path}")


if __name__ == "__main__":
    command(__doc__, main, positional="RUN", verbs=("fit",))
