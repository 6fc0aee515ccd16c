"""The claim of METHODS, section C: an n that grows with depth beats every constant n, and the norm of kernels.

The main table cuts the same share of every family, as the paper does of every layer: there a criterion decides which
channels of a layer go and nothing else. With a budget of MACs it also decides how many, by scores of one layer against
those of another. The third way is the paper's own schedule, layer by layer with a short training after each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .case import Case, Experiment
from .one_cut import FIT, Cut, cut_case
from .records import Records
from .runs import recipe_case
from .tables import number, table

LAWS: dict[str, Mapping[str, Any]] = {
    "depth": {"name": "ln_norm"},
    "stages": {"name": "ln_norm", "n": "stages"},
    "n = 1": {"name": "ln_norm", "n": 1.0},
    "n = 2": {"name": "ln_norm", "n": 2.0},
    "n = inf": {"name": "ln_norm", "n": "inf"},
    "kernel l1": {"name": "l1"},
    "random": {"name": "random"},
}
RATIO = {"ratio": 0.375}
"""10 of 16, 20 of 32, 40 of 64 channels stay, about half of the MACs."""
HALF = {"target": "macs=0.5x"}
RECURSIVE = ("depth", "n = 1", "n = inf", "kernel l1")
RECIPE = "ln-norm-cifar10-resnet20"
GIVEN = ("data.root={data}/cifar10", "model.weights={data}/weights/cifar10_resnet/resnet20-12fca82f.th")
EQUAL, GLOBAL, LAYERS = "equal ratios", "MACs over all layers", "layer by layer"


def _cases(quick: bool) -> Sequence[Case]:
    def case(law: str, place: str, trained: Sequence[str]) -> Case:
        wish = RATIO if place == EQUAL else HALF
        cut = Cut(criterion=LAWS[law], wish=wish, recovery=("batch_norm",), trained=trained)
        short = FIT.model_copy(update={"steps": 15})
        return cut_case(_name(law, place), replace(cut, images=128, tested=1000, fit=short) if quick else cut)

    if quick:
        return [case(law, EQUAL, ("cut",)) for law in ("depth", "kernel l1")]
    return [
        *(case(law, EQUAL, ("cut",)) for law in LAWS),
        *(case(law, GLOBAL, ()) for law in LAWS),
        *(recipe_case(_name(law, LAYERS), RECIPE, [*GIVEN, *_criterion(law)]) for law in RECURSIVE),
    ]


def _criterion(law: str) -> list[str]:
    """What of the recipe's criterion is replaced."""
    if LAWS[law]["name"] == "l1":
        return ["prune.criterion={name: l1}"]
    return [f"prune.criterion.n={LAWS[law]['n']}"] if "n" in LAWS[law] else []


def _name(law: str, place: str) -> str:
    return f"{law}, {place}"


def _tables(records: Records, cases: Sequence[Case]) -> str:
    """One a way of cutting; an empty one where nothing was run."""
    cut = [("cut", number("cut"), ".2f"), ("batch norm measured anew", number("mended"), ".2f")]
    final = [("3 epochs", number("cut, trained"), ".2f")]
    size = [("MACs, %", number("macs", 100), ".1f")]
    bundle = [
        ("bundle", number("compact.accuracy", 100), ".2f"),
        ("MACs", number("compact.macs"), ",.0f"),
    ]
    kinds = [(EQUAL, [*size, *cut, *final]), (GLOBAL, [*size, *cut]), (LAYERS, bundle)]
    own = [[case for case in cases if case.name.endswith(f", {place}")] for place, _ in kinds]
    return "\n\n".join(
        table(records, those, f"ResNet-20, {place}", columns) for those, (place, columns) in zip(own, kinds) if those
    )


DEPTH_LAW = Experiment(
    name="depth-law",
    about="The depth law of the Ln-norm against constant n and kernel norms: accuracy on all test images, %",
    cases=_cases,
    tables=_tables,
)
