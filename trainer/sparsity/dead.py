"""Filters that lost all their weights become removed channels, and the net computes the same.

A filter of zeros still speaks: its bias or the shift of its batch norm sends a constant to every reader. Which
channels are constant, and which number arrives where, `exporter.dead` finds out; here the numbers move inside the
module, and the units are cut by its plan like any others:

    reader without padding       b += sum_i k_i sum_t w[o, i, t]        into its bias, or
                                 mean -= the same                      into the batch norm behind it
    reader with zero padding     one dead channel stays and carries the others

A dead unit stays where its constant has no such home, where the channel analysis does not offer it, and where cutting
it would leave a width that is no use on the device; the notes say so. What was cut is compared with the net before.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from edgeslim.exporter.certificate import Probe, certify
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.channels.families import Unit
from edgeslim.exporter.dead import Verdict, fold, judge
from edgeslim.exporter.dead.arrivals import measure
from edgeslim.exporter.dead.sites import Way
from edgeslim.exporter.graph_runner import runner_from_graph
from edgeslim.exporter.trace import runner_from_module

from ..budget import WidthLimits, spare_one
from ..checkpoint import copy_state
from ..pruned import PrunedModel

_MOST_ROUNDS = 32
_WIDTH = "for the width without them is no use on the device"
_LAST = "for without them a tensor would have no channel"
_HOMELESS = "for a layer without a bias reads their constant"

Images = NDArray[np.float32]
Members = tuple[tuple[str, int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadCut:
    """cut: labels of the units that left, as in `PrunedModel.channels`. notes: how many, and which stay and why."""

    cut: frozenset[int]
    notes: tuple[str, ...]


def cut_dead(net: PrunedModel, images: Images, limits: WidthLimits | None = None) -> DeadCut:
    """Cut the units of `net` that cannot depend on the image or that nobody reads, its outputs staying as they are.

    images: (N, C, H, W) float32, normalised, of the size the net was traced with.  limits: widths worth having; any
    where None. Cutting can kill more, so it goes on until nothing leaves.
    Raises UnsupportedGraphError if the net is no longer float32, ExportError if ONNX Runtime refuses its graph,
    CertificateError if its answers are not finite.
    """
    cut: frozenset[int] = frozenset()
    staying: list[str] = []
    for _ in range(_MOST_ROUNDS):
        graph = net.graph
        batches = _batches(graph, images)
        recorded = analyze(graph, net.channels.parameters, constants="record")
        verdict = _judge(recorded, batches)
        ours = _twins(recorded, net.channels)
        staying = [why for root, why in verdict.staying.items() if ours.get(root) not in net.cut]
        homeless = _homeless(recorded, verdict) & verdict.leaving
        staying += [_HOMELESS] * len(homeless)
        verdict = dataclasses.replace(verdict, leaving=verdict.leaving - homeless)
        wanted = {ours[root] for root in verdict.leaving if root in ours} - net.cut
        possible = _useful(net, wanted, WidthLimits(multiple=1, minimum=1))
        useful = possible if limits is None else _useful(net, wanted, limits)
        leaving = spare_one(net.channels, net.cut | useful, np.zeros(len(net.channels.unit_labels))) - net.cut
        staying += [_LAST] * (len(wanted) - len(possible) + len(useful) - len(leaving))
        staying += [_WIDTH] * (len(possible) - len(useful))
        if not leaving:
            break
        roots = frozenset(root for root, label in ours.items() if label in leaving)
        if not _cut(net, dataclasses.replace(verdict, leaving=roots), graph, leaving, batches):
            staying += ["for the net without them does not compute the same"] * len(leaving)
            break
        cut |= leaving
    gone = [f"dead units cut, their constants folded into what reads them: {len(cut)}"] if cut else []
    left = [f"dead units that stay, {why}: {count}" for why, count in Counter(staying).most_common(3)]
    return DeadCut(cut=cut, notes=(*gone, *left))


def _judge(channels: ChannelMap, batches: list[Images]) -> Verdict:
    feed = channels.model.graph.inputs[0].name or ""
    return judge(channels, lambda places: measure(channels.model, places, [{feed: batch} for batch in batches]))


def _batches(graph: ir.Model, images: Images) -> list[Images]:
    """Real and random images, and random ones of another size where the graph takes them."""
    dims = tuple(graph.graph.inputs[0].shape or (2,))
    count = dims[0] if isinstance(dims[0], int) else 2
    real = np.concatenate([images] * -(-count // len(images)))[:count]
    rng = np.random.default_rng(0)
    found = [real, rng.standard_normal(real.shape, np.float32)]
    if not any(isinstance(side, int) for side in dims[2:]):
        larger = rng.standard_normal((*real.shape[:2], *(2 * side for side in real.shape[2:])), np.float32)
        try:
            runner_from_graph(graph, quiet=True)(larger)
        except Exception:  # a net may refuse a size in any way it likes
            return found
        found.append(larger)
    return found


def _twins(recorded: ChannelMap, own: ChannelMap) -> dict[int, int]:
    """Root label in the analysis of constants -> label of the same unit in the net's own; those it has."""
    known = {_members(u): u.label for f in own.families for u in f.units}
    pairs = ((u.label, known.get(_members(u))) for f in recorded.families for u in f.units)
    return {root: label for root, label in pairs if label is not None}


def _members(unit: Unit) -> Members:
    return tuple(sorted((m.initializer, m.axis, m.indices) for m in unit.members))


def _useful(net: PrunedModel, wanted: Collection[int], limits: WidthLimits) -> frozenset[int]:
    """Those of the wanted units that leave every family a useful width."""
    chosen: set[int] = set()
    for family in net.channels.families:
        labels = family.labels.tolist()
        dead = [label for label in labels if label in wanted]
        present = sum(label not in net.cut for label in labels)
        kept = limits.in_units(family).round_up(present - len(dead), family.width)
        chosen.update(dead[: max(present - kept, 0)])
    return frozenset(chosen)


def _homeless(channels: ChannelMap, verdict: Verdict) -> frozenset[int]:
    """Units whose constant arrives at a reader that has neither a bias of its own nor a batch norm behind it."""
    found: set[int] = set()
    for arrival in verdict.arrivals:
        node = arrival.site.node
        if arrival.site.way is Way.BIAS and not _own_bias(node, channels) and _mean_behind(node, channels) is None:
            speaks = ~arrival.site.unread() & (arrival.constants != 0)
            found.update(arrival.ids[speaks].tolist())
    return frozenset(found)


def _own_bias(node: ir.Node, channels: ChannelMap) -> bool:
    """Whether `fold` changes a bias of the module, and nothing else reads that."""
    users = list(node.outputs[0].uses())
    if node.op_type == "MatMul":
        adds = len(users) == 1 and users[0].node.op_type == "Add" and not node.outputs[0].is_graph_output()
        bias = users[0].node.inputs[1 - users[0].idx] if adds else None
    else:
        bias = _bias(node)
    return bias is not None and bias.name in channels.parameters and len(bias.uses()) == 1


def _mean_behind(node: ir.Node, channels: ChannelMap) -> str | None:
    """The running mean of the batch norm that alone reads a convolution without a bias (a trace may give it zeros)."""
    users = list(node.outputs[0].uses())
    bias = _bias(node)
    if node.op_type != "Conv" or (bias is not None and bias.name in channels.parameters) or len(users) != 1:
        return None
    norm = users[0].node
    mean = norm.inputs[3] if norm.op_type == "BatchNormalization" and users[0].idx == 0 else None
    alone = mean is not None and mean.name in channels.parameters and len(mean.uses()) == 1
    return mean.name if alone and mean is not None and not node.outputs[0].is_graph_output() else None


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _cut(net: PrunedModel, verdict: Verdict, graph: ir.Model, leaving: frozenset[int], batches: list[Images]) -> bool:
    """Fold and cut; put everything back and return False if the net then answers otherwise."""
    module, plan = net.module, net.plan
    before = copy_state(module.state_dict())
    reference = ("before", runner_from_module(copy.deepcopy(module)))
    with torch.no_grad():
        state = module.state_dict()
        for name, array in _changed(fold(graph, verdict), graph, net.channels).items():
            state[name].copy_(torch.from_numpy(array))
    net.load_dense_state(module.state_dict())
    net.apply_cut(net.cut | leaving)
    same = certify(reference, {"after": runner_from_module(net.module)}, [Probe("images", batches)])
    if not same.passed:
        net.apply(plan)
        net.load_dense_state(before)
    return same.passed


def _changed(folded: ir.Model, graph: ir.Model, channels: ChannelMap) -> dict[str, NDArray[np.generic]]:
    """Parameter or buffer -> its new value."""
    new = {
        name: np.array(_array(value))
        for name, value in folded.graph.initializers.items()
        if name in channels.parameters and value.const_value is not graph.graph.initializers[name].const_value
    }
    twins = {node.outputs[0].name: node for node in folded.graph}
    for node in graph.graph:
        mean = _mean_behind(node, channels)
        if mean is not None:
            old, bias = _bias(node), _bias(twins[node.outputs[0].name])
            if bias is not None and (old is None or bias.const_value is not old.const_value):
                added = _array(bias) - (_array(old) if old is not None else 0)
                new[mean] = np.array(_array(graph.graph.initializers[mean]) - added)
    return new


def _array(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()
