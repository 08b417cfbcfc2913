"""Score a generator's run (RUN/scores.json), or, with the verb fit, fit the judge that scores.

examples:
  python tools/probe.py fit configs/probes/smoke.yaml out=runs/probe
  python tools/probe.py runs/smoke probe=runs/probe

Samples that are missing are drawn first, as the run's `sampling` says. Every score stands beside
its ceilings: the same judge on real clips and on their reconstructions. The judge must have been
fitted on the run's dataset, so that the clips of the ceilings are new to it.
"""

from vidcomp.cli import command


def main(verb: str, target: str, overrides: list[str]) -> None:
    import json
    from pathlib import Path

    from vidcomp.config import UserError
    from vidcomp.evaluation import ProbeFit, fit_probe, probe_run, summary
    from vidcomp.runs import out_of

    if verb == "fit":
        settings, out = out_of(overrides)
        print(f"judge: {fit_probe(ProbeFit.load(target, settings), out)}")
        return
    keys = {key: value for key, _, value in (word.partition("=") for word in overrides)}
    if set(keys) != {"probe"}:
        raise UserError("scoring takes one key, the judge's folder; example: probe=runs/probe")
    path = probe_run(Path(target), Path(keys["probe"]))
    print("\n".join([*summary(json.loads(path.read_text())), f"scores: {path}"]))


if __name__ == "__main__":
    command(__doc__, main, positional="RUN", verbs=("fit",))
