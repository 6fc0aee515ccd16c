"""Method B on MNIST: how many weights LeNets need."""

from __future__ import annotations

from collections.abc import Sequence

from .case import Case, Experiment
from .records import Records
from .runs import recipe_case
from .tables import number, table


def _cases(quick: bool) -> Sequence[Case]:
    steps = ["train.steps=200", "finetune.fit.steps=100"] if quick else []
    return [recipe_case("channels alone", "mnist-lenet5", ["data.root={data}/mnist", *steps])]


def _tables(records: Records, cases: Sequence[Case]) -> str:
    return table(
        records,
        cases,
        "LeNet-5",
        [
            ("error, %", lambda r: 100 - 100 * r.numbers["compact.accuracy"], ".2f"),
            ("parameters", number("compact.parameters"), ",.0f"),
        ],
    )


MNIST = Experiment(name="mnist", about="MNIST, LeNet-300-100 and LeNet-5", cases=_cases, tables=_tables)
