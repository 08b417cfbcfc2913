"""Run a study: every run of a YAML, finished ones skipped, then report.html and report.json.

examples:
  python tools/study.py configs/smoke.yaml
  python tools/study.py configs/demo.yaml seeds=[0,1,2] out=runs/demo3
  python tools/study.py plan configs/studies/claims.yaml size=tiny
  python tools/study.py configs/studies/claims.yaml size=small time_limit_s=480

Verbs: `plan` lists every job, what is finished and the time that is left, and runs nothing;
`report` writes the report of what lies in the store, which may have been copied together from
several machines; `score` is what a study asks of one of its runs:
  python tools/study.py score RUN probe=JUDGE trials=runs/claims/configs/score-dit.yaml
"""

from vidcomp.cli import command

VERBS = ("plan", "report", "score")


def main(verb: str, target: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vidcomp.config import UserError
    from vidcomp.runs import out_of
    from vidcomp.study import StudyConfig, Trials, listing, report_study, run_study, score_run

    if verb == "score":
        keys = {key: value for key, _, value in (word.partition("=") for word in overrides)}
        if not {"probe"} <= set(keys) <= {"probe", "trials"}:
            raise UserError("score takes probe=JUDGE and trials=YAML; see --help for an example")
        trials = Trials.load(keys["trials"]) if "trials" in keys else Trials()
        print(f"scores: {score_run(Path(target), keys['probe'], trials)}")
        return
    settings, out = out_of(overrides)
    config = StudyConfig.load(target, settings)
    if verb == "plan":
        print(*listing(config, out), sep="\n")
        return
    report = report_study(config, out) if verb == "report" else run_study(config, out)
    print(f"report: {report}\ngrids:  {report.parent / 'grids'}")


if __name__ == "__main__":
    command(__doc__, main, positional="CONFIG|RUN", verbs=VERBS)
