"""Run folders as training, sampling and scoring leave them, made up in a moment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcomp.datasets import sprites
from vidcomp.pipeline import ClipFormat
from vidcomp.probes.base import score_verdicts
from vidcomp.runs import GeneratorRun, TokenizerRun
from vidcomp.world.splits import Split

BITS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}
NOVEL = {"shape": ["triangle"], "colour": ["blue"], "motion": ["up"]}
CLIPS_PER_COMBINATION = 12
EXAMPLES = 4


@dataclass(frozen=True)
class Studio:
    """Makes run folders of one world below `root`."""

    root: Path
    factors: Mapping[str, list[str]]
    novel: Mapping[str, list[str]]
    num_frames: int

    @property
    def data(self) -> dict[str, Any]:
        dataset = {"name": "sprites", "factors": self.factors, "num_frames": self.num_frames}
        return {"dataset": dataset, "split": {"novel": self.novel}}

    def generator(
        self,
        name: str,
        *,
        objective: str = "maskgit",
        seed: int = 0,
        jepa: bool = False,
        errors: float = 0.2,
        scored: bool = True,
        examples: bool = False,
    ) -> Path:
        """A generator's run whose samples show another class, in one factor, with probability
        `errors` times the level plus a bit. `examples`: keep clips for grids, which take time."""
        folder = self.root / name
        run = GeneratorRun.model_validate(
            {
                "name": name.removesuffix(f"-s{seed}"),  # as in a study: seeds share a YAML
                "seed": seed,
                "data": self.data,
                "tokenizer": str(self.root / "fsq"),
                "generator": {"objective": objective, "jepa": {} if jepa else None},
                "train": {"steps": 100},
            }
        )
        folder.mkdir(parents=True)
        run.save(folder / "config.yaml")
        dataset = run.data.dataset.build()
        split = run.data.split.build(dataset.factors)
        environment = {
            "commit": "0123456789ab",
            "device": "cpu (x86_64)",
            "config_hash": run.digest,
            "split_hash": split.digest,
            "parameters": 1_234_567,
            "clips": ClipFormat.of(dataset).to_json(),
            "tokenizer": {"folder": str(self.root / "fsq"), "digest": "abc"},
        }
        (folder / "environment.json").write_text(json.dumps(environment))
        self._checkpoint(folder, step=100 if scored else 40)
        lines: list[dict[str, float]] = [
            {"step": s, "loss": 7 * 0.98**s + 0.5, "steps_per_s": 10.0} for s in range(5, 101, 5)
        ]
        for step in (50, 100):
            evals = {
                f"eval/{level}/joint": step / (k + 1) / 110
                for k, level in enumerate(split.level_names)
            }
            lines.append({"step": step, **evals})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"st')
        if scored:
            self._score(folder, run, split, errors=errors, seed=seed, examples=examples)
        return folder

    def tokenizer(self, name: str = "fsq") -> Path:
        folder = self.root / name
        content = {"name": name, "data": self.data, "tokenizer": "fsq", "train": {"steps": 100}}
        folder.mkdir(parents=True)
        TokenizerRun.model_validate(content).save(folder / "config.yaml")
        (folder / "environment.json").write_text(json.dumps({"parameters": 222_333}))
        self._checkpoint(folder, step=100)
        lines: list[dict[str, float]] = [
            {"step": s, "reconstruction": 1 / s, "psnr_db": 10 + s / 6} for s in range(10, 101, 10)
        ]
        lines.append(
            {
                "step": 100,
                "eval/psnr_db": 28.5,
                "eval/code_usage_0": 0.417,
                "eval/code_perplexity_0": 300,
            }
        )
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return folder

    def probe(self) -> Path:
        folder = self.root / "probe"
        folder.mkdir(parents=True)
        score = {"value": 0.9987, "low": 0.99, "high": 1.0, "n": 400, "chance": 0.5}
        of_source = dict.fromkeys(self.factors, score)
        accuracy = dict.fromkeys(("real", "blurred", "reconstruction by fsq"), of_source)
        (folder / "probe.json").write_text(json.dumps({"accuracy": accuracy}))
        (folder / "config.yaml").write_text("name: judge of this studio\n")
        return folder

    def _checkpoint(self, folder: Path, *, step: int) -> None:
        state = {"step": step, "train_s": 12.5, "wait_s": 0.1, "skipped_steps": 0}
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "state.json").write_text(json.dumps(state))

    def _score(
        self,
        folder: Path,
        run: GeneratorRun,
        split: Split,
        *,
        errors: float,
        seed: int,
        examples: bool,
    ) -> None:
        """Judge clips that show what their verdicts say."""
        draw = torch.Generator().manual_seed(seed)
        factors, combos = split.factors, split.factors.combinations()
        asked = combos.repeat_interleave(CLIPS_PER_COMBINATION, 0)
        shown = asked.clone()
        levels = split.levels(asked, factors.prototypes(asked))
        wrong = torch.rand(len(asked), generator=draw) < errors * (levels + 0.2)
        column = torch.randint(len(factors), (len(asked),), generator=draw)
        for row in wrong.nonzero()[:, 0].tolist():
            f = int(column[row])
            shown[row, f] = (shown[row, f] + 1) % factors.sizes[f]
        scores: dict[str, dict[str, Any]] = {"factors": {}, "oracle": {}, "fidelity": {}}
        arrays: dict[str, Any] = {}
        for source, truth in (("real", asked), ("reconstruction", asked), ("samples", shown)):
            verdicts = truth[:, None].repeat(1, self.num_frames, 1)
            if source == "samples":  # a failure that begins half-way through the clip
                verdicts[:, : self.num_frames // 3] = asked[:, None]
            for level in split.level_names:
                rows = torch.tensor(
                    [bool((split.combinations_of(level) == a).all(1).any()) for a in asked]
                )
                scored = score_verdicts(verdicts[rows], asked[rows], factors)
                as_dicts = {f"{source}/{level}/{key}": s._asdict() for key, s in scored.items()}
                scores["factors"] |= as_dicts
                scores["oracle"] |= as_dicts
                if source == "reconstruction":
                    made = {"value": 28.0, "low": 27.5, "high": 28.5, "n": 100, "chance": None}
                    scores["fidelity"][f"{source}/{level}/psnr_db"] = made
                    scores["fidelity"][f"{source}/{level}/ssim"] = made | {"value": 0.97}
                    scores["fidelity"][f"{source}/{level}/flicker"] = made | {"low": float("nan")}
            if examples:
                arrays[source] = self._frames(truth, seed=seed).numpy()
            arrays[f"{source}_verdicts"] = verdicts.unflatten(0, (len(combos), -1))[
                :, :EXAMPLES
            ].numpy()
        scores["agreement"] = {
            f"{source}/{level}": scores["factors"]["real/seen/joint"]
            for source in ("real", "reconstruction", "samples")
            for level in split.level_names
        }
        sampling = run.sampling.model_dump(mode="json")
        content = {"judge": "factors", "scores": scores, "sample_s": 3.25, "sampling": sampling}
        (folder / "scores.json").write_text(json.dumps(content))
        if examples:
            np.savez_compressed(folder / "examples.npz", **arrays)

    def _frames(self, classes: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Clips that show `classes`, for the first `EXAMPLES` of each combination."""
        config = sprites.Config.model_validate(
            {
                "factors": self.factors,
                "num_frames": self.num_frames,
                "seed": seed,
                "num_clips": 4000,
            }
        )
        dataset = config.build()
        table = dataset.classes()
        wanted = classes.unflatten(0, (dataset.factors.num_combinations, -1))[:, :EXAMPLES].flatten(
            0, 1
        )
        index = [int((table == c).all(1).nonzero()[i % EXAMPLES, 0]) for i, c in enumerate(wanted)]
        frames = dataset.clips(torch.tensor(index)).frames
        return frames.unflatten(0, (-1, EXAMPLES))
