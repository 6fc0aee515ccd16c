"""Cutting while a small U-Net trains, under more or less pressure, against cutting between trainings.

Every row has the same dense net, the same criterion and budget, and the same number of training steps after it. Three
nets (and data sets) by seed; Dice on the validation images.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from edgeslim.progress import Silent
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.stages import train_and_prune, train_dense
from edgeslim.trainer.workspace import Workspace, open_workspace

SEEDS, STEPS, ROUNDS, FINAL = (1, 2, 3), 240, 3, 100
REDUNDANCY = ({"name": "redundancy", "warmup_steps": 24, "ramp_steps": 48},)
COUNTS = ({"name": "gradient_count", "on": "feature", "warmup_steps": 24, "ramp_steps": 48},)


def main() -> None:
    """Print a table: means over the seeds, and each seed's Dice in the end."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in map(int, sys.argv[1:] or SEEDS):
        with tempfile.TemporaryDirectory() as directory:
            dense = _workspace(Path(directory) / "dense", seed, **_gradual(0.0))
            result = train_dense(dense, Silent())[1]
            found.setdefault("the dense net", []).append((0.0, 0.0, result.scores["dice"]))
            for label, sections in _variants().items():
                run = Path(directory) / str(len(found)) / label.replace(" ", "-")
                shutil.copytree(dense.stage("dense"), run / "stages" / "dense")
                scores = train_and_prune(_workspace(run, seed, **sections), Silent()).scores
                found.setdefault(label, []).append((*_lost(scores), scores["final"]["dice"]))
    print("| | lost at a cut | lost after mending | in the end | by seed |\n|---|---|---|---|---|")
    for label, rows in found.items():
        means = " | ".join(f"{mean(column):.3f}" for column in zip(*rows))
        print(f"| {label} | {means} | {', '.join(f'{row[2]:.3f}' for row in rows)} |")


def _variants() -> dict[str, dict[str, Any]]:
    found = {f"gradual, pressure {p:g}": _gradual(p) for p in (0.0, 1.0, 3.0, 5.0)}
    found |= {f"gradual, pressure 3, {cuts} cuts": _gradual(3.0, cuts=cuts) for cuts in (3, 20)}
    found |= {
        "gradual, pressure 3, redundancy": _gradual(3.0, REDUNDANCY),
        "gradual, pressure 3, redundancy and counts": _gradual(3.0, REDUNDANCY + COUNTS),
        f"{ROUNDS} rounds": _rounds(),
        f"{ROUNDS} rounds, redundancy": _rounds(REDUNDANCY),
    }
    return found


def _gradual(pressure: float, regularizers: tuple[Mapping[str, Any], ...] = (), cuts: int = 10) -> dict[str, Any]:
    return {
        "sparsify": {"fit": _fit(STEPS), "regularizers": list(regularizers)},
        "schedule": {"name": "gradual", "cuts": cuts, "pressure": pressure},
    }


def _rounds(regularizers: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    each = STEPS // (ROUNDS + 1)
    return {
        "sparsify": {"fit": _fit(STEPS - (ROUNDS - 1) * each), "regularizers": list(regularizers)},
        "schedule": {"name": "iterative", "rounds": ROUNDS, "between": _fit(each)},
    }


def _fit(steps: int) -> dict[str, int]:
    return {"steps": steps, "batch_size": 8, "evaluate_every": max(10, steps // 8)}


def _lost(scores: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    """The mean loss of Dice from before a cut to just after it, and to when it was mended; of rounds not known."""
    cuts = [name.removesuffix(", before") for name in scores if name.endswith(", before")]
    if not cuts:
        return float("nan"), float("nan")
    before = mean(scores[f"{cut}, before"]["dice"] for cut in cuts)
    return tuple(before - mean(scores[f"{cut}, {when}"]["dice"] for cut in cuts) for when in ("just cut", "mended"))  # type: ignore[return-value]


def _workspace(directory: Path, seed: int, *, sparsify: dict[str, Any], schedule: dict[str, Any]) -> Workspace:
    recipe = parse_recipe(
        {
            "name": "gradual",
            "seed": seed,
            "model": {"name": "unet", "args": {"width": 16, "depth": 2}},
            "data": {"name": "vessels", "train": 24, "test": 4, "seed": seed},
            "augment": {"crop": [64, 64]},
            "train": _fit(150),
            "sparsify": sparsify,
            "prune": {
                "budget": {"name": "macs", "keep": 0.2},
                "schedule": schedule,
                "width_multiple": 2,
                "min_width": 2,
            },
            "finetune": {"fit": _fit(FINAL)},
        }
    )
    return open_workspace(recipe, directory, Silent())


if __name__ == "__main__":
    main()
