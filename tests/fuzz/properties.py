"""What must hold of every net, whatever the analysis makes of it.

exact        compact == masked on random inputs, for any set of units; all weights as small as the plan says
    unit         the same for one unit at a time, silenced by hand: every kernel row, bias and shift that makes the
                 channel is zero, and whatever reads it is garbage, because silence leaves nothing to multiply
accounted    every layer with weights has units or a reason, for each of its channels
replayed     a plan that went through JSON cuts the same units of a freshly loaded graph, and the same slices
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator

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

from .builder import Graph, Net
from .graphs import build

Array = NDArray[np.float32]

TOLERANCE = 1e-4
"""Largest error relative to the largest output. float32 sums in another order differ by 1e-6 or so here."""
FLOOR = 1e-6
"""Largest error of outputs that are zero, or nearly."""
JUMPS = frozenset({"ArgMax", "Greater", "QuantizeLinear", "Shrink", "ThresholdedRelu"})
"""Operators that make a step of a rounding error. A fault shows on every input, a step on one in thousands: nets with
such operators see five inputs and must be right on most of them.
"""


class Broken(AssertionError):
    """A property does not hold of a net."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Which units go. share: of every family; 0 = one unit of the net alone, 1 = all but one of every family."""

    share: float = 0.5
    seed: int = 0

    def labels(self, channels: ChannelMap) -> frozenset[int]:
        """The units of this net that go; some may stay although drawn, see `spares_every_axis`."""
        rng = np.random.default_rng(self.seed)
        families = channels.families
        if not families:
            return frozenset()
        if self.share == 0:
            family = families[self.seed % len(families)]
            gone = [family.units[self.seed % family.width].label] if family.width > 1 else []
            return self._sparing_every_axis(channels, gone)
        chosen: list[int] = []
        for family in families:
            count = min(round(self.share * family.width), family.width - 1)
            chosen += [family.units[i].label for i in rng.permutation(family.width)[:count]]
        return self._sparing_every_axis(channels, chosen)

    @staticmethod
    def spares_every_axis(channels: ChannelMap, cut: Collection[int]) -> bool:
        """Whether every tensor keeps an element.

        Nothing keeps a plan from cutting a whole piece of a Split, and engines refuse tensors without elements.
        """
        emptied = (ids for axes in channels.value_ids.values() for ids in axes if ids is not None)
        return not any(set(cut).issuperset(ids.tolist()) for ids in emptied)

    @staticmethod
    def _sparing_every_axis(channels: ChannelMap, chosen: Collection[int]) -> frozenset[int]:
        """Without the first unit of every axis that would vanish."""
        cut = set(chosen)
        for axes in channels.value_ids.values():
            for ids in axes:
                if ids is not None and cut.issuperset(ids.tolist()):
                    cut.discard(int(ids[0]))
        return frozenset(cut)


def cuts() -> st.SearchStrategy[Cut]:
    """One unit, all but one, or any share."""
    return st.builds(Cut, st.sampled_from([0.5, 0.0, 1.0, 0.25, 0.75]), st.integers(0, 99))


@dataclasses.dataclass
class Case:
    """A net with its analysis, and the weights that it has when it is cut."""

    graph: Graph
    channels: ChannelMap
    model: ir.Model
    weights: dict[str, Array]

    @classmethod
    def of(cls, net: Net) -> Case:
        """Build and analyse; a rule that meets what it never expected is a fault, though the analysis survives it."""
        graph = build(net)
        channels = analyze(_load(graph), graph.parameters)
        failed = [reason for reason in channels.pinned.values() if "its rule failed" in reason]
        _require(not failed, f"a rule failed: {failed[:1]}")
        values = channels.model.graph.initializers.items()
        weights = {n: _trained(_numpy(v)) for n, v in values if n in graph.parameters}
        return cls(graph, channels, with_weights(channels.model, weights), weights)

    def inputs(self, count: int = 2) -> list[Array]:
        """Random images; every second one brighter and of more contrast."""
        rng = np.random.default_rng(7)
        return [
            (1 + 2 * (i % 2)) * rng.standard_normal(self.graph.input_shape, np.float32) + np.float32(i % 2)
            for i in range(count)
        ]

    def dense(self) -> list[Array]:
        """All outputs on all inputs."""
        return _run(self.model, self.inputs())


# --- the properties -------------------------------------------------------------------------------------------


def check_exact(case: Case, cut: Collection[int]) -> ir.Model:
    """compact == masked, and compact is as small as the plan says. Returns the compact graph."""
    plan = plan_from_cut(case.channels, cut)
    masked = with_weights(case.model, {n: plan.mask(n, case.weights[n]) for n in plan.initializers})
    compact = remove_channels(case.model, case.channels, cut)
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
    arrays: dict[str, Array] = {}
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
    compact = remove_channels(case.model, case.channels, {unit.label})
    _compare(case, with_weights(case.model, arrays), compact)


def check_accounted(case: Case) -> Counter[str]:
    """Every weighted layer is in a family or has a reason. Returns how many layers stayed whole, by reason."""
    layers = case.channels.layers
    units = {unit.label for family in case.channels.families for unit in family.units}
    for layer, entry in zip(layers, coverage(case.channels)):
        _require(entry.family is not None or bool(entry.reason), f"{layer.layer} is in no family and has no reason")
        roots = set(case.channels.labels.find(layer.ids).tolist())
        lost = roots - units - set(case.channels.pinned)
        _require(not lost, f"{len(lost)} channels of {layer.layer} are in no family and not pinned")
    wanted = Counter(kernel for node in case.channels.model.graph if (kernel := _kernel(node)))
    _require(not wanted - Counter(layer.layer for layer in layers), "a layer is not in the report")
    for node in case.channels.model.graph:
        for value in node.outputs:
            for ids, size in zip(case.channels.value_ids.get(value.name or "", ()), value.shape or ()):
                same = ids is None or not isinstance(size, int) or len(ids) == size
                _require(same, f"{node.op_type} {value.name} has {size} channels and other labels")
    return Counter(e.reason for e in coverage(case.channels) if e.family is None and e.reason)


def check_replayed(case: Case, cut: Collection[int], compact: ir.Model) -> None:
    """The plan as JSON does to a fresh graph what the cut did to this one."""
    text = plan_from_cut(case.channels, cut).to_json()
    plan = PruningPlan.from_json(text)
    fresh = analyze(_load(case.graph), case.graph.parameters)
    again = cut_of_plan(fresh, plan)
    _require(plan.to_json() == text, "the plan changes on its way through JSON")
    _require(again == frozenset(cut), "the plan cuts other units of a fresh graph")
    replayed = remove_channels(with_weights(fresh.model, case.weights), fresh, again).graph.initializers
    wanted = compact.graph.initializers
    _require(list(replayed) == list(wanted), "the replayed graph has other initializers")
    for name in wanted:
        _require(np.array_equal(_numpy(wanted[name]), _numpy(replayed[name])), f"{name} is replayed differently")


# --- how they are checked ---------------------------------------------------------------------------------------


def _compare(case: Case, masked: ir.Model, compact: ir.Model) -> None:
    jumps = any(node.op_type in JUMPS for node in masked.graph)
    pairs = list(zip(_run(masked, case.inputs(5 if jumps else 2)), _run(compact, case.inputs(5 if jumps else 2))))
    for wanted, seen in pairs:
        _require(wanted.shape == seen.shape, f"an output has shape {seen.shape}, masked it has {wanted.shape}")
        _require(bool(np.isfinite(seen).all()), "an output is not finite")
    errors = [(float(np.abs(np.subtract(seen, wanted)).max()), float(np.abs(wanted).max())) for wanted, seen in pairs]
    far = [(error, scale) for error, scale in errors if error > TOLERANCE * scale + FLOOR]
    if far and (not jumps or 2 * len(far) > len(pairs)):
        error, scale = max(far)
        raise Broken(f"compact differs from masked by {error:.3g} where the largest output is {scale:.3g}")


def _run(model: ir.Model, inputs: list[Array]) -> list[Array]:
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


def _kernel(node: ir.Node) -> str | None:
    weight = node.inputs[1] if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") else None
    return weight.name if weight is not None and weight.is_initializer() else None


def _trained(values: Array) -> Array:
    """A parameter may be zero when the analysis sees it, and not for long."""
    rng = np.random.default_rng(values.size)
    return np.where(values == 0, rng.standard_normal(values.shape).astype(values.dtype), values)


def _numpy(value: ir.Value) -> Array:
    if value.const_value is None:
        raise Broken(f"{value.name} has no value")
    return value.const_value.numpy()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)
