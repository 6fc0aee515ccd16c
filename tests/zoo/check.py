"""Does the compact graph of a net equal its masked self, and is there a reason for every layer that stayed?

Batch-norm statistics are set to what the net really sees, then moved at random: with arbitrary ones a deep net answers
the same to every image, and a comparison would prove little. `input_effect` says
how much the answer depends on the image. Where the dense net's float32 answer is noise, float64 is compared instead.
"""

from __future__ import annotations

import copy
import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeslim.exporter.certificate import Runner
from edgeslim.exporter.channels import ChannelMap, Coverage, analyze
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.graph_runner import runner_from_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.trace import runner_from_module, trace
from edgeslim.trainer.budget import spare_one
from edgeslim.trainer.pruned import PrunedModel
from tests.torch.nets import randomized

from .float64 import float64_runner_from_graph, float64_runner_from_module

TOLERANCE = 1e-4
"""Largest |compact - masked| relative to the largest masked output: float32 sums in another order, 200 layers deep."""

NOISE = TOLERANCE / 5
"""Largest error of the dense graph in float32 that leaves room to see a wrong cut; float64 is used above it."""

EFFECT = {"float32": TOLERANCE, "float64": 1e-8}
"""How far the answers to two images must lie apart, relative to the largest: else the comparison proves little."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen of one net. Seconds are processor seconds; errors are relative to the largest output.

    error_dense: of the traced graph in float32 before anything is cut, which is the noise on this net.
    precision: of the other two errors.
    stayed: layer -> why none of it is open. reasons: how many layers stay for which reason.
    """

    name: str
    layers: int = 0
    prunable_layers: int = 0
    pruned_layers: int = 0
    families: int = 0
    channels: int = 0
    prunable_channels: int = 0
    trace_s: float | None = None
    analyze_s: float | None = None
    remove_s: float | None = None
    error_dense: float | None = None
    precision: str = "float32"
    error_half: float | None = None
    error_single: float | None = None
    input_effect: float | None = None
    unexplained: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    stayed: dict[str, str] = field(default_factory=dict)
    exception: str | None = None

    @property
    def verdict(self) -> str:
        """equal, wrong, exception, blind (proves nothing), unexplained (a layer without a reason)."""
        if self.exception is not None:
            return "exception"
        errors = [e for e in (self.error_half, self.error_single) if e is not None]
        if not all(e <= TOLERANCE for e in errors):  # a NaN is wrong, too
            return "wrong"
        if self.input_effect is not None and self.input_effect < EFFECT[self.precision]:
            return "blind"
        return "unexplained" if self.unexplained else "equal"


def check(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], singles: int = 2) -> Outcome:
    """Cut half of every family, then `singles` units alone, and compare. shape: of the example. Raises nothing."""
    outcome = Outcome(name=name)
    try:
        _check(outcome, build, shape, singles)
    except Exception as error:  # the finding itself
        first = (str(error).strip() or "no message").splitlines()[0]
        outcome.exception = f"{type(error).__name__}: {first}"
    gc.collect()
    return outcome


def _check(outcome: Outcome, build: Callable[[], nn.Module], shape: tuple[int, ...], singles: int) -> None:
    torch.manual_seed(0)
    example = torch.randn(shape)
    net = alive(build(), example)
    dense = copy.deepcopy(net.state_dict())  # with its metadata, for which some nets look
    with _timed(outcome, "trace_s"):
        graph = trace(net, example)
    with _timed(outcome, "analyze_s"):
        channels = analyze(graph, set(dense))
    _describe(outcome, coverage(channels), channels)
    cuts = half_of_every_family(channels)
    model = PrunedModel(net, example, channels)
    images = np.random.default_rng(1).standard_normal((2, *shape[1:]), np.float32)
    outcome.error_dense = _largest(runner_from_graph(graph)(images), runner_from_module(net)(images))
    model.apply_cut(cuts)
    masked = model.graph
    with _timed(outcome, "remove_s"):
        remove_channels(masked, channels, model.cut)
    outcome.pruned_layers = sum(e.width_after < e.width_before for e in model.coverage)
    del masked
    cut = [cuts, *_single_units(channels, singles)]
    if outcome.error_dense <= NOISE:
        _compare(outcome, model, dense, cut, images, runner_from_graph, runner_from_module)
    if outcome.error_dense > NOISE or outcome.verdict == "wrong":  # is it, or is that rounding?
        outcome.precision = "float64"
        _compare(outcome, model, dense, cut, images, float64_runner_from_graph, float64_runner_from_module)


def _single_units(channels: ChannelMap, count: int) -> list[list[int]]:
    """One unit of `count` families each, but where that would leave a tensor empty."""
    chosen = np.linspace(0, len(channels.families) - 1, num=min(count, len(channels.families)))
    families = [channels.families[i] for i in chosen.astype(int)]
    units = [[int(family.labels[family.width // 2])] for family in families if family.width > 1]
    return [unit for unit in units if not channels.emptied(unit)]


def _compare(
    outcome: Outcome,
    model: PrunedModel,
    dense: Mapping[str, torch.Tensor],
    cuts: Sequence[Collection[int]],
    images: NDArray[np.float32],
    run_graph: Callable[[ir.Model], Runner],
    run_module: Callable[[nn.Module], Runner],
) -> None:
    """Compact beside masked, after each of the cuts, of which the first is the large one."""
    errors = []
    for number, cut in enumerate(cuts):
        model.apply_cut(())
        model.load_dense_state(dense)
        model.apply_cut(cut)
        wanted = run_module(model.module)(images)
        errors.append(_largest(run_graph(remove_channels(model.graph, model.channels, model.cut))(images), wanted))
        if not number:
            outcome.input_effect = min(largest_error(w[:1], w[1:2]) for w in wanted)
    outcome.error_half, outcome.error_single = errors[0], max(errors[1:], default=None)


def alive(net: nn.Module, example: torch.Tensor, seed: int = 0) -> nn.Module:
    """`randomized`, with batch-norm statistics near those of `example` and residual scales that are not tiny."""
    net = randomized(net, seed)
    generator = torch.Generator().manual_seed(seed)

    def follow(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        rest = [axis for axis in range(inputs[0].ndim) if axis != 1]
        mean = inputs[0].mean(rest)
        # Damped: with unit variance everywhere a deep net is chaotic, and blows float32 noise up to its own size.
        var = inputs[0].var(rest, unbiased=False)
        var = var + 0.25 * var.mean() + 0.01 * mean.square() + 1e-3
        shift, scale = torch.rand((2, len(mean)), generator=generator)
        norm.running_mean.copy_(mean + (shift - 0.5) * var.sqrt())
        norm.running_var.copy_(var * (2.0 + 2.0 * scale))

    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("layer_scale"):  # starts at 1e-6: its block would not count
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif parameter.ndim > 1 and not parameter.any():  # a head that starts at zero is blind
                parameter.normal_(0.0, 0.1, generator=generator)
        hooks = [m.register_forward_pre_hook(follow) for m in net.modules() if isinstance(m, _BatchNorm)]
        net(torch.cat([example, example.flip(-1)]))
    for hook in hooks:
        hook.remove()
    return net


def half_of_every_family(channels: ChannelMap, seed: int = 0) -> list[int]:
    """Labels of half of the units of every family, at random."""
    generator = np.random.default_rng(seed)
    chosen = [
        int(label)
        for family in channels.families
        for label in generator.permutation(family.labels)[: max(1, family.width // 2)]
        if family.width > 1
    ]
    return list(spare_one(channels, frozenset(chosen), np.zeros(len(channels.unit_labels))))


def _largest(seen: list[NDArray[np.generic]], wanted: list[NDArray[np.generic]]) -> float:
    return max(largest_error(a, b) for a, b in zip(seen, wanted, strict=True))


def largest_error(seen: NDArray[np.generic], wanted: NDArray[np.generic]) -> float:
    """max |seen - wanted| / max |wanted|; infinite where the shapes differ."""
    if seen.shape != wanted.shape:
        return float("inf")
    a, b = seen.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def unexplained(report: Coverage) -> list[str]:
    """Layers that are in no family and give no reason."""
    return [e.layer for e in report if not e.family and not e.reason]


def _describe(outcome: Outcome, report: Coverage, channels: ChannelMap) -> None:
    offered = {unit.label for family in channels.families for unit in family.units}
    outcome.layers, outcome.families = len(report), len(channels.families)
    outcome.unexplained = unexplained(report)
    reasons: Counter[str] = Counter()
    layers = {layer.layer: layer for layer in channels.layers}
    for entry in report:
        layer = layers[entry.layer]
        open_ = sum(root in offered for root in channels.labels.find(layer.ids).tolist())
        outcome.channels += entry.width_before
        outcome.prunable_channels += open_
        outcome.prunable_layers += open_ > 0
        if not open_:
            outcome.stayed[entry.layer] = entry.reason or "no reason"
            reasons[entry.kind or "no reason"] += 1
    outcome.reasons = dict(reasons.most_common())


@contextmanager
def _timed(outcome: Outcome, name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    setattr(outcome, name, round(time.process_time() - started, 3))


def seen_reasons(outcomes: Collection[Outcome]) -> Counter[str]:
    """How many layers of all nets stayed for which reason."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.reasons)
    return total
