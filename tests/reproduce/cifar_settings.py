"""How the fine-tuning of the CIFAR-10 experiments was chosen: on training images that it does not see.

The given nets were trained on these images, too: accuracy on them is far too high, and settings that leave a net close
to what it was look better than they are. No test image is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edgeslim.trainer.recipe import DistillSection, FitSection

from .case import Case, Experiment, Numbers, Place
from .cifar_data import open_cifar
from .one_cut import FIT, Cut, cut_case, measure
from .records import Records
from .tables import number, table

HELD = slice(8000, 10_000)
STEPS = 187
"""Three epochs of the other 8,000 images, 128 at a time."""
RATES = (0.05, 0.02, 0.01, 0.005)
TEACHER = DistillSection(weight=1.0, temperature=4.0)


def _cases(quick: bool) -> Sequence[Case]:
    if quick:
        return [_case(0.01, steps=5)]
    return [*(_case(rate) for rate in RATES), _case(0.01, TEACHER)]


def _case(rate: float, teacher: DistillSection | None = None, steps: int = STEPS) -> Case:
    name = f"rate {rate}" if teacher is None else f"rate {rate}, with a teacher"
    fit: FitSection = FIT.model_copy(update={"steps": steps, "lr": rate})
    wish = {"target": "macs=0.5x"}
    cut = Cut(criterion={"name": "taylor"}, wish=wish, trained=("cut",), fit=fit, distill=teacher)
    settings = {**cut_case(name, cut).settings, "held": [HELD.start, HELD.stop]}
    return Case(name=name, settings=settings, run=partial(_run, cut))


def _run(cut: Cut, seed: int, place: Place) -> Numbers:
    return measure(cut, seed, open_cifar(place.data, seed, held=HELD), place)


def _tables(records: Records, cases: Sequence[Case]) -> str:
    columns = [("cut", number("cut"), ".2f"), ("fine-tuned", number("cut, trained"), ".2f")]
    return table(records, cases, "ResNet-20, half of the MACs by taylor", columns)


CIFAR_SETTINGS = Experiment(
    name="cifar-settings",
    about="Fine-tuning of the CIFAR-10 experiments, on training images that were set aside, %",
    cases=_cases,
    tables=_tables,
)
