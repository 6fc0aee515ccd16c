"""What is left of a small U-Net right after a cut, by criterion: no recovery, no correction.

Three nets (and data sets) by seed; the same share of every family goes. It tells criteria apart cheaply, and says
nothing about nets after fine-tuning.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from edgeslim.progress import Silent
from edgeslim.trainer.budget import Ratio, WidthLimits
from edgeslim.trainer.criteria import CRITERIA, Criterion
from edgeslim.trainer.criteria.gradient_count import GradientCount
from edgeslim.trainer.criteria.ln_norm import LnNorm
from edgeslim.trainer.criteria.random import Random
from edgeslim.trainer.lesson import NO_LESSON, Lesson
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.schedules import Iterative, Scoring
from edgeslim.trainer.stages import train_dense
from edgeslim.trainer.workspace import Workspace, open_workspace

SEEDS, RATIOS, IMAGES = (1, 2, 3), (0.125, 0.25, 0.375), 16
RULES: dict[str, Criterion] = {
    name: make() for name, make in CRITERIA.items() if name not in ("random", "gradient_count")
}
RULES |= {f"ln_norm, n: {n}": LnNorm(n=n) for n in (1.0, 2.0)}
RULES |= {"ln_norm, n: stages": LnNorm(n="stages"), "ln_norm, n: inf": LnNorm(n="inf")}
RULES |= {
    f"gradient_count, on: {on}, beta: {beta or 'null'}": GradientCount(on=on, beta=beta)
    for on in ("kernel", "feature", "loss")
    for beta in (None, 1.0, 0.2)
}  # type: ignore[misc]


def main() -> None:
    """Print a table: the mean Dice over the seeds, for each criterion and share of the channels cut."""
    found: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as directory:
            for label, scores in _one(_workspace(seed, Path(directory)), seed).items():
                found.setdefault(label, []).append(scores)
    print("| criterion | " + " | ".join(f"{r:.1%} cut" for r in RATIOS) + " |\n" + "|---" * (len(RATIOS) + 1) + "|")
    for label, rows in found.items():
        print(f"| {label} | " + " | ".join(f"{mean(column):.3f}" for column in zip(*rows)) + " |")


def _one(workspace: Workspace, seed: int) -> dict[str, list[float]]:
    dense, result = train_dense(workspace, Silent())
    example = torch.from_numpy(workspace.calibration(1))
    channels = PrunedModel.from_module(dense, example).channels
    images = workspace.calibration(IMAGES)
    targets = torch.stack([workspace.task.draws[i][1] for i in range(IMAGES)])
    lesson = Lesson(loss=workspace.task.loss, targets=targets)

    def dice(rule: Criterion, ratio: float, given: Lesson) -> float:
        net = PrunedModel(copy.deepcopy(dense).eval(), example, channels)
        budget = Ratio(ratio=ratio, limits=WidthLimits(multiple=1, minimum=1))
        Iterative().prune(net, Scoring(criterion=rule, images=images, lesson=given), budget)
        return workspace.task.evaluate(net.module)["dice"]

    def row(rule: Criterion, given: Lesson = lesson) -> list[float]:
        return [dice(rule, ratio, given) for ratio in RATIOS]

    rows = {"the dense net": [result.scores["dice"]] * len(RATIOS)}
    rows |= {label: row(rule) for label, rule in RULES.items()}
    rows["taylor, without targets"] = row(RULES["taylor"], NO_LESSON)
    chances = np.array([row(Random(seed=10 * seed + i)) for i in range(5)])
    return rows | {"random, mean of five": chances.mean(0).tolist()}


def _workspace(seed: int, directory: Path) -> Workspace:
    recipe = parse_recipe(
        {
            "name": "criteria",
            "seed": seed,
            "model": {"name": "unet", "args": {"width": 16, "depth": 2}},
            "data": {"name": "vessels", "train": 24, "test": 4, "seed": seed},
            "augment": {"crop": [64, 64]},
            "train": {"steps": 150, "batch_size": 8, "evaluate_every": 150},
            "prune": {"budget": {"name": "ratio", "ratio": 0.5}},
            "finetune": {"fit": {"steps": 1}},
        }
    )
    return open_workspace(recipe, directory, Silent())


if __name__ == "__main__":
    main()
