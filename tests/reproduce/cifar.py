"""Given CIFAR-10 nets at half of their MACs: every criterion, with recovery and without, and ResNet-56.

The mark: Torch-Pruning 1.6.1 with l1 fell to 25.3 % right after the cut and had 88.81 % after 3 epochs on 50,000 images
(METHODS, section C); here there are 10,000 images. ResNet-56 is to end within one point of the dense net.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgeslim.trainer.recipe import DistillSection

from .case import Case, Experiment
from .one_cut import FIT, Cut, cut_case
from .records import Records
from .runs import recipe_case
from .tables import number, table

CRITERIA = (
    "reconstruction", "l1", "ln_norm", "taylor", "bn_scale", "l2", "geometric_median", "redundancy", "gradient_count",
    "random",
)  # fmt: skip
RECOVERY = ("least_squares",)
HALF = {"target": "macs=0.5x"}
COLUMNS = (
    ("MACs, %", "macs", 100),
    ("cut", "cut", 1),
    ("cut, fine-tuned", "cut, trained", 1),
    ("mended", "mended", 1),
    ("mended, fine-tuned", "mended, trained", 1),
)
RESNET56 = "ResNet-56, reconstruction"
MIXED = "ResNet-56, reconstruction, taught on mixtures"
BUNDLE = "ResNet-20, the recipe's bundle"


def _cases(quick: bool) -> Sequence[Case]:
    if quick:
        short = FIT.model_copy(update={"steps": 30})
        return [
            cut_case(name, Cut(criterion={"name": name}, wish=HALF, recovery=RECOVERY, images=256, tested=1000,
                               trained=("mended",), fit=short))
            for name in ("l1", "reconstruction")
        ]  # fmt: skip
    big = Cut(model="resnet56", criterion={"name": "reconstruction"}, wish=HALF, recovery=RECOVERY, trained=("mended",))
    taught = dataclasses.replace(
        big,
        fit=FIT.model_copy(update={"lr": 5e-3}),
        distill=DistillSection(weight=1.0, temperature=4.0, mixed=True),
    )
    shipped = ["data.root={data}/cifar10", "model.weights={data}/weights/cifar10_resnet/resnet20-12fca82f.th"]
    return [
        *(cut_case(name, Cut(criterion={"name": name}, wish=HALF, recovery=RECOVERY)) for name in CRITERIA),
        cut_case(RESNET56, big),
        cut_case(MIXED, taught),
        recipe_case(BUNDLE, "reconstruction-cifar10-resnet20", shipped),
    ]


def _tables(records: Records, cases: Sequence[Case]) -> str:
    """One of the criteria, one of ResNet-56, one of the recipe's bundle; a column that no run has is left out."""
    groups = [
        ("ResNet-20", [c for c in cases if c.name in CRITERIA]),
        ("ResNet-56", [c for c in cases if c.name in (RESNET56, MIXED)]),
    ]
    made = []
    for heading, own in groups:
        measured = {name for case in own for r in records.find(case.name, case.digest) for name in r.numbers}
        columns = [(title, number(name, factor), ".2f") for title, name, factor in COLUMNS if name in measured]
        made.append(table(records, own, heading, columns))
    bundle = [
        ("dense, %", number("dense.accuracy", 100), ".2f"),
        ("compact, %", number("compact.accuracy", 100), ".2f"),
        ("MACs", number("compact.macs"), ",.0f"),
    ]
    made.append(table(records, [c for c in cases if c.name == BUNDLE], "a whole recipe, its bundle", bundle))
    return "\n\n".join(part for part in made if part.count("\n") > 1)


CIFAR = Experiment(
    name="cifar",
    about="CIFAR-10, given ResNets at half of their MACs: accuracy on all test images, %",
    cases=_cases,
    tables=_tables,
)
