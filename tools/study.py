"""Run a study: every run of a YAML, finished ones skipped, then report.html and report.json.

examples:
  python tools/study.py configs/smoke.yaml
  python tools/study.py configs/demo.yaml seeds=[0,1,2] out=runs/demo3
"""

from vidcomp.cli import command


def main(verb: str, config: str, overrides: list[str]) -> None:
    from vidcomp.runs import out_of
    from vidcomp.study import StudyConfig, run_study

    settings, out = out_of(overrides)
    report = run_study(StudyConfig.load(config, settings), out)
    print(f"report: {report}\ngrids:  {report.parent / 'grids'}")


if __name__ == "__main__":
    command(__doc__, main)
