"""What must hold of every net, whatever the analysis makes of it.

    exact        compact == masked on random inputs, for any set of units; all weights as small as the plan says
    unit         the same for one unit at a time, silenced by hand: every kernel row, bias and shift that makes the channel is
                 zero, and whatever reads it is garbage, because a silent channel leaves nothing to multiply
    accounted    every layer with weights has units or a reason, for each of its channels
    replayed     a plan that went through JSON cuts the same units of a freshly loaded graph, and the same slices
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.channels.analyze import Unit
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.passes.slices_to_gathers import slices_to_gathers
from edgeslim.exporter.plan import PruningPlan, cut_of_plan, plan_from_cut
from edgeslim.exporter.weights import with_weights

from .graphs import Graph, Net, build

Arrays = dict[str, NDArray[np.generic]]

TOLERANCE = 1e-4
"""Largest error relative to the largest output. float32 sums in another order differ by 1e-6 or so here."""


class Broken(AssertionError):
    """A property does not hold of a net."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Which units go. share: of every family; 0 = one unit of the net alone, 1 = all but one of every family."""

    share: float = 0.5
    seed: int = 0

    def labels(self, channels: ChannelMap) -> frozenset[int]:
        """The units of this net that go; some may stay although drawn, see `without_emptied_axes`."""
        rng = np.random.default_rng(self.seed)
        families = channels.families
        if not families:
            return frozenset()
        if self.share == 0:
            family = families[self.seed % len(families)]
            gone = [family.units[self.seed % family.width].label] if family.width > 1 else []
            return frozenset(gone)
        chosen: list[int] = []
        for family in families:
            count = min(round(self.share * family.width), family.width - 1)
            chosen += [family.units[i].label for i in rng.permutation(family.width)[:count]]
        return frozenset(chosen)


def cuts() -> st.SearchStrategy[Cut]:
    """One unit, all but one, or any share."""
    return st.builds(Cut, st.sampled_from([0.5, 0.0, 1.0, 0.25, 0.75]), st.integers(0, 99))


@dataclasses.dataclass
class Case:
    """A net with its analysis."""

    graph: Graph
    channels: ChannelMap
    weights: Arrays

    @classmethod
    def of(cls, net: Net) -> Case:
        """Build and analyse; a rule that meets what it never expected is a fault, though the analysis survives it."""
        graph = build(net)
        channels = analyze(_load(graph), graph.parameters)
        failed = [reason for reason in channels.pinned.values() if "its rule failed" in reason]
        _require(not failed, f"a rule failed: {failed[:1]}")
        values = channels.model.graph.initializers.items()
        return cls(graph, channels, {n: v.const_value.numpy() for n, v in values if v.const_value is not None})

    def inputs(self) -> list[NDArray[np.float32]]:
        rng = np.random.default_rng(7)
        shape = self.graph.input_shape
        return [rng.standard_normal(shape, np.float32), 3 * rng.standard_normal(shape, np.float32) + 1]

    def dense(self) -> list[NDArray[np.generic]]:
        """All outputs on all inputs."""
        return _run(self.channels.model, self.inputs())


# --- the properties -------------------------------------------------------------------------------------------


def check_exact(case: Case, cut: Collection[int]) -> ir.Model:
    """compact == masked, and compact is as small as the plan says. Returns the compact graph."""
    plan = plan_from_cut(case.channels, cut)
    masked = with_weights(case.channels.model, {n: plan.mask(n, a) for n, a in case.weights.items() if _cut(plan, n)})
    compact = remove_channels(case.channels.model, case.channels, cut)
    _compare(case, masked, compact)
    small = compact.graph.initializers
    for name in plan.initializers:
        if name in small:
            array, wanted = _numpy(small[name]), plan.shrink(name, case.weights[name])
            _require(np.array_equal(array, wanted), f"{name} has shape {array.shape}, the plan says {wanted.shape}")
            _require(array.size < case.weights[name].size, f"{name} did not shrink")
    _require(not cut or any(name in small for name in plan.initializers), "the cut made nothing smaller")
    return compact


def check_unit(case: Case, unit: Unit) -> None:
    """One unit, silenced without asking the analysis what to silence; its readers filled with garbage."""
    rng = np.random.default_rng(unit.label)
    producers = set(_producers(case.channels.model.graph))
    arrays: Arrays = {}
    for member in unit.members:
        if member.initializer in case.graph.parameters:
            array = arrays.setdefault(member.initializer, case.weights[member.initializer].copy())
            where = (slice(None),) * member.axis + (list(member.indices),)
            if (member.initializer, member.axis) in producers:
                array[where] = 0
            else:  # positive: it may be a variance
                array[where] = 1 + rng.random(array[where].shape)
    for member in unit.members:  # garbage may have been written across what is silent
        if member.initializer in arrays and (member.initializer, member.axis) in producers:
            arrays[member.initializer][(slice(None),) * member.axis + (list(member.indices),)] = 0
    compact = remove_channels(case.channels.model, case.channels, {unit.label})
    _compare(case, with_weights(case.channels.model, arrays), compact)


def check_accounted(case: Case) -> Counter[str]:
    """Every weighted layer is in a family or has a reason. Returns how many layers stayed whole, by reason."""
    layers = {layer.layer: layer for layer in case.channels.layers}
    units = {unit.label for family in case.channels.families for unit in family.units}
    for name, entry in zip((layer.layer for layer in case.channels.layers), coverage(case.channels)):
        _require(entry.family is not None or bool(entry.reason), f"{name} is in no family and has no reason")
        roots = set(case.channels.labels.find(layers[name].ids).tolist())
        lost = roots - units - set(case.channels.pinned)
        _require(not lost, f"{len(lost)} channels of {name} are in no family and not pinned")
    for node in case.channels.model.graph:
        weight = _kernel(node)
        _require(weight is None or weight.name in layers, f"{node.op_type} {node.name} is not among the layers")
    return Counter(e.reason for e in coverage(case.channels) if e.family is None and e.reason)


def check_replayed(case: Case, cut: Collection[int], compact: ir.Model) -> None:
    """The plan as JSON does to a fresh graph what the cut did to this one."""
    text = plan_from_cut(case.channels, cut).to_json()
    plan = PruningPlan.from_json(text)
    fresh = analyze(_load(case.graph), case.graph.parameters)
    again = cut_of_plan(fresh, plan)
    _require(plan.to_json() == text, "the plan changes on its way through JSON")
    _require(again == frozenset(cut), "the plan cuts other units of a fresh graph")
    replayed = remove_channels(fresh.model, fresh, again).graph.initializers
    wanted = compact.graph.initializers
    _require(list(replayed) == list(wanted), "the replayed graph has other initializers")
    for name in wanted:
        _require(np.array_equal(_numpy(wanted[name]), _numpy(replayed[name])), f"{name} is replayed differently")


# --- how they are checked ---------------------------------------------------------------------------------------


def _compare(case: Case, masked: ir.Model, compact: ir.Model) -> None:
    for wanted, seen in zip(_run(masked, case.inputs()), _run(compact, case.inputs())):
        _require(wanted.shape == seen.shape, f"an output has shape {seen.shape}, masked it has {wanted.shape}")
        error, scale = float(np.abs(seen - wanted).max()), float(np.abs(wanted).max())
        _require(bool(np.isfinite(seen).all()), "an output is not finite")
        message = f"compact differs from masked by {error:.3g} where the largest output is {scale:.3g}"
        _require(error <= TOLERANCE * scale + 1e-6, message)


def _run(model: ir.Model, inputs: list[NDArray[np.float32]]) -> list[NDArray[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # thousands of sessions: a pool of threads each would take most of the time
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        return [np.asarray(a) for x in inputs for a in session.run(None, {"x": x})]
    except Exception as error:  # onnxruntime raises its own exception types
        raise Broken(f"ONNX Runtime refuses the graph: {error}") from error


def _load(graph: Graph) -> ir.Model:
    """As the exporter has it: strided slices are gathers."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.model)
    return slices_to_gathers(ir.from_proto(proto))


def _producers(graph: ir.Graph) -> Iterator[tuple[str, int]]:
    """(initializer, axis) of all that makes channels: what a person would set to zero to silence one.

    Written for this test, from the definitions of the operators; it shares no code with the analysis.
    """
    for node in graph:
        names = [v.name or "" if v is not None and v.is_initializer() else "" for v in node.inputs]
        sizes = [() if v is None or v.shape is None else tuple(v.shape) for v in node.inputs]
        attributes = {key: value.value for key, value in node.attributes.items()}
        if node.op_type in ("Conv", "ConvTranspose"):
            depthwise = sizes[1][0] == attributes.get("group", 1) > 1
            yield names[1], 0 if node.op_type == "Conv" or depthwise else 1
            yield from ((name, 0) for name in names[2:])
        elif node.op_type == "Gemm":
            yield names[1], 0 if attributes.get("transB") else 1
            yield from ((name, len(size) - 1) for name, size in zip(names[2:], sizes[2:]))
        elif node.op_type == "MatMul":
            yield names[0], len(sizes[0]) - 2
            yield names[1], len(sizes[1]) - 1
            turned = node.inputs[1].producer() if node.inputs[1] is not None else None
            if turned is not None and turned.op_type == "Transpose" and turned.inputs[0] is not None:
                yield turned.inputs[0].name or "", 0  # as the generator writes a linear layer: (out, in), transposed
        elif node.op_type == "Einsum":
            yield names[1], 0
        elif node.op_type.endswith("Normalization"):
            yield from ((name, 0) for name in names[1:3])
        elif node.op_type in ("Add", "Sub", "Sum"):
            yield from ((name, axis) for name, size in zip(names, sizes) for axis in range(len(size)))


def _kernel(node: ir.Node) -> ir.Value | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    weight = node.inputs[1]
    return weight if weight is not None and weight.is_initializer() else None


def _cut(plan: PruningPlan, name: str) -> bool:
    return name in plan.initializers


def _numpy(value: ir.Value) -> NDArray[np.generic]:
    if value.const_value is None:
        raise Broken(f"{value.name} has no value")
    return value.const_value.numpy()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)
