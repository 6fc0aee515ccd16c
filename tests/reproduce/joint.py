"""Method A beside what it has to beat: the same net made narrow and trained from scratch, and channels cut by chance.

On retinal vessels (STARE) and road scenes (CamVid at 240 x 180), with a U-Net and MobileNetV3 each. All nets of a
setting end at the same MACs as nearly as widths allow. Scores are those of the shipped bundle on the test images.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgeslim.trainer.bundles import export_net, score_bundle
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe_file import load_recipe
from edgeslim.trainer.stages import train_dense
from edgeslim.trainer.workspace import open_workspace

from .case import Case, Experiment, Numbers, Place
from .notes import Log
from .records import Record, Records
from .runs import NOT_TRAINING, RECIPES, file_name, recipe_case
from .tables import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A data set and a net.

    narrow: the arguments of the narrow net, in YAML.  keep: its share of the dense net's MACs, which is what pruning
    leaves.  steps: of the dense net's training, under penalties, and of the last training.  rest: more of the recipe.
    """

    name: str
    recipe: str
    model: str
    dense: str
    narrow: str
    keep: float
    steps: tuple[int, int, int]
    rest: tuple[str, ...]

    @property
    def common(self) -> list[str]:
        """What all nets of this setting share."""
        return [f"data.root={{data}}/{self.recipe.split('-')[1]}", f"model.name={self.model}", *self.rest]

    def trained(self, args: str, steps: int) -> list[str]:
        """A net trained so long, and scored once, at the end: none gains by more looks at the validation images."""
        return [*self.common, f"model.args={args}", f"train.steps={steps}", f"train.evaluate_every={steps}"]

    @property
    def pruned(self) -> list[str]:
        """What the two pruned nets share."""
        dense, sparse, final = self.steps
        return [
            *self.trained(self.dense, dense),
            f"sparsify.fit.steps={sparse}",
            f"sparsify.fit.evaluate_every={sparse}",
            f"prune.budget.keep={self.keep}",
            "prune.width_multiple=4",
            "prune.min_width=4",
            f"finetune.fit.steps={final}",
            f"finetune.fit.evaluate_every={final}",
        ]

    def cases(self) -> list[Case]:
        """Method A and chance, both also with a teacher, and the narrow net by both ways to count steps."""
        total, final = sum(self.steps), self.steps[-1]
        taught = "finetune.distill={weight: 1.0, temperature: 2.0}"
        by_chance = ["sparsify.regularizers=[]", "prune.criterion={name: random, seed: {seed}}"]
        return [
            self._pruned("method A", []),
            self._pruned("channels by chance", by_chance),
            self._scratch(self.narrow, total),
            self._scratch(self.narrow, final),
            self._pruned("method A, with a teacher", [taught]),
            self._pruned("channels by chance, with a teacher", [*by_chance, taught]),
        ]

    def _pruned(self, name: str, overrides: Sequence[str]) -> Case:
        """A case that does not change with the recipe's comments, nor with what the overrides replace."""
        name, given = f"{self.name}: {name}", [*self.pruned, *overrides]
        return dataclasses.replace(recipe_case(name, self.recipe, given), settings=_settings(self.recipe, given))

    def _scratch(self, args: str, steps: int) -> Case:
        return scratch_case(f"{self.name}: narrow, {steps} steps", self.recipe, self.trained(args, steps))


TRAINING = ("model", "data", "augment", "loss", "train")


def scratch_case(name: str, recipe: str, overrides: Sequence[str]) -> Case:
    """The recipe's net trained and exported as it is. Numbers: those of `recipe_case` that begin with `compact`."""
    path = RECIPES / f"{recipe}.yaml"

    def run(seed: int, place: Place) -> Numbers:
        values = [*(o.replace("{data}", str(place.data)) for o in overrides), f"seed={seed}"]
        directory = place.work / f"{file_name(name)}-{seed}"
        log = Log(directory.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns about itself
            workspace = open_workspace(load_recipe(path, values), directory, log)
            module, _ = train_dense(workspace, log)
            net = PrunedModel.from_module(module, torch.from_numpy(workspace.calibration(1)))
            manifest = score_bundle(workspace, export_net(workspace, net, "dense", log), log)
        sizes = {"parameters": manifest.sizes.parameters, "macs": manifest.sizes.macs or 0}
        return {f"compact.{key}": value for key, value in {**manifest.metrics, **sizes}.items()}

    # Not trained again when the recipe prunes in another way.
    return Case(name=name, settings=_settings(recipe, overrides, *TRAINING), run=run)


def _settings(recipe: str, overrides: Sequence[str], *sections: str) -> dict[str, Any]:
    """What a net depends on beside the seed: the recipe's sections (all where none is named) as they are resolved."""
    values = [o.replace("{data}", "data").replace("{seed}", "0") for o in overrides]
    resolved = load_recipe(RECIPES / f"{recipe}.yaml", values).model_dump(mode="json", exclude=NOT_TRAINING)
    return {key: value for key, value in resolved.items() if key in sections or not sections}


_UNET = ("train.precision=bf16-mixed", "sparsify.fit.precision=bf16-mixed", "finetune.fit.precision=bf16-mixed")
_MOBILE = ("train.precision=32-true", "sparsify.fit.precision=32-true", "finetune.fit.precision=32-true")
"""The faster precision of each net on a processor."""

SETTINGS = (
    Setting(
        name="STARE, U-Net",
        recipe="joint-stare-unet",
        model="unet",
        dense="{width: 16, depth: 3}",
        narrow="{width: 8, depth: 3}",
        keep=0.2533,
        steps=(200, 60, 120),
        rest=(*_UNET, "augment.crop=[96, 96]"),
    ),
    Setting(
        name="STARE, MobileNetV3",
        recipe="joint-stare-unet",
        model="mobilenetv3-small",
        dense="{}",
        narrow="{width: 0.4, head_width: 48}",
        keep=0.2572,
        steps=(300, 60, 180),
        rest=(*_MOBILE, "augment.crop=[128, 128]"),
    ),
    Setting(
        name="CamVid, U-Net",
        recipe="joint-camvid-mobilenetv3",
        model="unet",
        dense="{width: 16, depth: 3}",
        narrow="{width: 8, depth: 3}",
        keep=0.2543,
        steps=(200, 60, 120),
        rest=(*_UNET, "augment.crop=[96, 96]"),
    ),
    Setting(
        name="CamVid, MobileNetV3",
        recipe="joint-camvid-mobilenetv3",
        model="mobilenetv3-small",
        dense="{}",
        narrow="{width: 0.4, head_width: 48}",
        keep=0.2582,
        steps=(300, 60, 180),
        rest=(*_MOBILE, "augment.crop=[128, 160]"),
    ),
)

QUICK = Setting(
    name="STARE, tiny U-Net",
    recipe="joint-stare-unet",
    model="unet",
    dense="{width: 8, depth: 2}",
    narrow="{width: 4, depth: 2}",
    keep=0.26,
    steps=(40, 15, 30),
    rest=(*_UNET, "augment.crop=[64, 64]", "data.validation=0.1"),
)


def _cases(quick: bool) -> Sequence[Case]:
    """Quick: one small setting, without the cases with a teacher."""
    return QUICK.cases()[:4] if quick else [case for setting in SETTINGS for case in setting.cases()]


def _tables(records: Records, cases: Sequence[Case]) -> str:
    """One table a setting, the dense net of method A's runs first."""
    settings: dict[str, list[Case]] = {}
    for case in cases:
        settings.setdefault(case.name.partition(":")[0], []).append(case)
    return "\n\n".join(f"### {name}\n\n{_table(records, own)}" for name, own in settings.items())


def _table(records: Records, cases: Sequence[Case]) -> str:
    found = {case.name.partition(": ")[2]: records.find(case.name, case.digest) for case in cases}
    scores = ("dice", "auc") if cases[0].name.startswith("STARE") else ("miou", "accuracy")
    rows = [("dense", [_of(r, "dense") for r in found["method A"]])]
    rows += [(name, [_of(r, "compact") for r in own]) for name, own in found.items()]
    columns = [*((score, ".4f") for score in scores), ("parameters", ",.0f"), ("macs", ",.0f")]
    lines = [f"| net | {' | '.join(c for c, _ in columns)} | seeds |", f"|---{'|---:' * (len(columns) + 1)}|"]
    for name, runs in rows:
        if runs:
            cells = [spread([r[c] for r in runs], form) if c in runs[0] else "" for c, form in columns]
            lines.append(f"| {name} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines)


def _of(record: Record, net: str) -> Mapping[str, float]:
    """The numbers of one of the record's nets."""
    return {key.removeprefix(f"{net}."): v for key, v in record.numbers.items() if key.startswith(f"{net}.")}


JOINT = Experiment(name="joint", about="Method A, a narrow net and chance at equal MACs", cases=_cases, tables=_tables)
