"""Angles between the mean shifts of concepts inside a network: of a run, or of a diffusers model.

examples:
  python tools/directions.py runs/smoke out=runs/smoke/directions
  python tools/directions.py runs/smoke probe.level=0.3 probe.clips=800 probe.per_token=true
  python tools/directions.py stabilityai/stable-diffusion-xl-base-1.0 \\
      prompts=configs/prompts/objects.yaml out=runs/sdxl seeds=32 timestep=500
  python tools/directions.py DIT_FOLDER prompts=configs/prompts/classes.yaml out=runs/dit

Where a model keeps factors apart in its features, shifts of concepts of different factors stand at
right angles. Written to out=DIR (else RUN/directions): directions.json, with every cosine, mean
|cos| within and across factors, their gap, the AUC and the minimum with intervals; and a heat map
for each block, directions-*.png. A diffusers model is a pipeline's folder or its name on the hub.
"""

from vidcomp.cli import command


def main(verb: str, model: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vidcomp.config import UserError
    from vidcomp.evaluation.directions import RunDirections, measure_run
    from vidcomp.evaluation.foreign import Foreign, measure_foreign
    from vidcomp.report.directions import write_directions
    from vidcomp.runs import out_of

    settings, out = out_of(overrides)
    if (Path(model) / "config.yaml").is_file():
        asked = RunDirections.load(None, settings)
        measured, out = measure_run(Path(model), asked), out or Path(model) / "directions"
    else:
        if out is None or not any(word.startswith("prompts=") for word in settings):
            raise UserError(f"{model} is no run; a diffusers model takes prompts=FILE.yaml out=DIR")
        asked = Foreign.load(None, settings)
        measured = {"network": measure_foreign(model, asked)}
    about = {"model": model, **asked.model_dump(mode="json")}
    print(*write_directions(out, measured, about), sep="\n")


if __name__ == "__main__":
    command(__doc__, main, positional="RUN|MODEL")
