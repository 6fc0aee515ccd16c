"""Method B on MNIST: how many weights LeNets need, and how many channels.

    dense        no penalty, nothing pruned: the net that all others start from
    l2, l1, l0   training under the penalty, then rounds of pruning down to one fraction of the weights
    magnitude    l0, and the fraction by plain magnitudes where the recipe has layer-adaptive ones
    threshold    l0, then rounds of the largest threshold that the loss on the validation images allows
    channels     no penalty; whole channels by a budget, as structured methods are compared

All settings are in the recipes and in the overrides below, one set a net. They were chosen on validation images, see
docs/results/mnist.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .case import Case, Experiment
from .records import Record, Records
from .runs import recipe_case
from .tables import Column, spread, table

_WIDTHS = ("conv1", "conv2", "fc1")
_PIXELS = 16
"""What LeNet-5's second pooling leaves of a channel: 4 x 4, so many inputs of the first linear layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """The cases of one net. quick: overrides of the ten-minute subset."""

    title: str
    recipe: str
    cases: Sequence[tuple[str, Sequence[str]]]
    quick: Sequence[str]

    def built(self, quick: bool) -> list[Case]:
        """One case a line of the table; of the subset, the first."""
        chosen = self.cases[:1] if quick else self.cases
        root, short = "data.root={data}/mnist", self.quick if quick else ()
        return [recipe_case(f"{self.title}, {name}", self.recipe, [root, *own, *short]) for name, own in chosen]


def _penalties(l1: str, delta: str) -> list[tuple[str, Sequence[str]]]:
    """The recipe's own l0 and what it is compared with. l1: the penalty's weight. delta: of the threshold."""
    return [
        ("l0", ()),
        ("threshold", ("weights.method=threshold", "weights.fraction=null", f"weights.delta={delta}")),
        ("l1", (f"sparsify.regularizers=[{{name: l1, weight: {l1}}}]",)),
        ("l2", ("sparsify.regularizers=[{name: l2, weight: 1.0e-4}]",)),
    ]


_SHORT = ["weights.schedule.rounds=3", "weights.schedule.between.steps=100", "weights.finetune.steps=100"]
_NETS = (
    Net(
        title="LeNet-300-100",
        recipe="l0-mnist-lenet-300-100",
        cases=_penalties(l1="1.0e-4", delta="0.1"),
        quick=["train.steps=600", "sparsify.fit.steps=600", *_SHORT, "finetune.fit.steps=600", "weights.fraction=0.95"],
    ),
    Net(
        title="LeNet-5",
        recipe="l0-mnist-lenet-5",
        cases=[*_penalties(l1="1.0e-4", delta="0.1"), ("l0, magnitude", ("weights.method=magnitude",))],
        quick=["train.steps=300", "sparsify.fit.steps=300", *_SHORT, "finetune.fit.steps=200", "weights.fraction=0.98"],
    ),
)
_CHANNELS = Net(title="LeNet-5", recipe="reconstruction-mnist-lenet-5", cases=[("channels", ())], quick=[])


def _cases(quick: bool) -> Sequence[Case]:
    return [case for net in (*_NETS, *(() if quick else (_CHANNELS,))) for case in net.built(quick)]


def _tables(records: Records, cases: Sequence[Case]) -> str:
    error = _error("compact")
    weights: list[Column] = [
        ("error, %", error, ".2f"),
        ("compression", _compression, ".1f"),
        ("weights", _left, ",.0f"),
    ]
    channels: list[Column] = [("error, %", error, ".2f"), *((name, _width(name), ".0f") for name in _WIDTHS)]
    channels[3:3] = [("inputs of fc1", lambda r: _PIXELS * _width("conv2")(r), ".0f")]
    parts = []
    for net in _NETS:
        own = [c for c in cases if c.name.startswith(f"{net.title}, ") and not c.name.endswith("channels")]
        head, rule, *lines = table(records, own, net.title, weights).splitlines()
        if lines:
            parts.append("\n".join([head, rule, *_dense(records, own, net.title), *lines]))
    structured = [c for c in cases if c.name.endswith("channels")]
    if any(records.find(c.name, c.digest) for c in structured):
        parts.append(table(records, structured, "LeNet-5, 20-50-800-500", channels))
    parts.append(
        "compression = weights of the dense net's kernels / weights of the shipped net's kernels that are not zero; "
        "biases are not counted.\nerror: on the 10,000 test images, by the shipped bundle; of the dense net, by torch."
    )
    return "\n\n".join(parts)


def _dense(records: Records, cases: Sequence[Case], title: str) -> list[str]:
    """The line of the net that the cases start from, which the records of any of them hold."""
    for case in cases:
        if found := records.find(case.name, case.digest):
            errors = [_error("dense")(record) for record in found]
            weights = found[0].numbers["compact.dense_weights"]
            return [f"| {title}, dense | {spread(errors, '.2f')} | 1 | {weights:,.0f} | {len(found)} |"]
    return []


def _error(net: str) -> Callable[[Record], float]:
    return lambda record: 100 - 100 * record.numbers[f"{net}.accuracy"]


def _compression(record: Record) -> float:
    return record.numbers["compact.dense_weights"] / record.numbers["compact.nonzero_weights"]


def _left(record: Record) -> float:
    return record.numbers["compact.nonzero_weights"]


def _width(layer: str) -> Callable[[Record], float]:
    return lambda record: record.numbers[f"width.{layer}.weight"]


MNIST = Experiment(name="mnist", about="MNIST, LeNet-300-100 and LeNet-5", cases=_cases, tables=_tables)
