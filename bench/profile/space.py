"""The plans among which widths are chosen: a net, its families' candidate widths, and a graph for every choice.

A plan is given by one width a family, in units. Which of a family's units go says nothing about the latency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.labels import Ids
from edgeslim.exporter.channels.rules.contraction import WEIGHTED
from edgeslim.exporter.memory import AxisTerms, FamilyIndex
from edgeslim.exporter.passes.embed_preprocess import embed_preprocess
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.runtime.backends import Array

from .net_digest import net_digest

Widths = tuple[int, ...]
"""Units that stay, one number a family."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WidthSpace:
    """candidates: ascending widths of every family, the dense one last.  shape: (N, C, H, W) of the image.

    takes_frames: measure the graph that a camera feeds, uint8 (N, H, W, C), not the net's own input.
    """

    channels: ChannelMap
    candidates: tuple[Widths, ...]
    shape: tuple[int, ...]
    takes_frames: bool = True

    @property
    def dense(self) -> Widths:
        """Every family as wide as it is."""
        return tuple(family.width for family in self.channels.families)

    @cached_property
    def feeds(self) -> dict[str, Array]:
        """What a graph of the space is run on."""
        generator = np.random.default_rng(0)
        if self.takes_frames:
            batch, channels, height, width = self.shape
            return {"frame": generator.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)}
        image = self.channels.model.graph.inputs[0]
        dtype = np.dtype(np.float32) if image.dtype is None else image.dtype.numpy()
        numbers = generator.standard_normal(self.shape) if dtype.kind == "f" else generator.integers(0, 128, self.shape)
        return {image.name or "": numbers.astype(dtype)}

    def cut(self, widths: Sequence[int], orders: Sequence[Ids] | None = None) -> frozenset[int]:
        """Labels of the units that go: the last of each family. orders: its labels, those that stay longest first.

        No tensor is left without a channel, a piece of a Split for one: its first stays, and another unit of the family
        goes in its place, so that the widths are what they were. Where none can, one more stays.
        """
        lists = [own.tolist() for own in orders or [family.labels for family in self.channels.families]]
        kept = [own[:width] for own, width in zip(lists, widths)]
        cut = {label for own, width in zip(lists, widths) for label in own[width:]}
        place = {label: (number, order) for number, own in enumerate(lists) for order, label in enumerate(own)}
        for _, ids in self.channels.emptied(cut):
            if not cut.issuperset(ids.tolist()):  # spared for another tensor already
                continue
            first = min(ids.tolist(), key=lambda label: place[label][1])
            cut.remove(first)
            missing = len(self.channels.emptied(cut))
            own = kept[place[first][0]]
            instead = next((one for one in reversed(own) if len(self.channels.emptied({*cut, one})) == missing), None)
            if instead is not None:
                own.remove(instead)
                cut.add(instead)
            own.insert(0, first)
        return frozenset(cut)

    def widths(self, cut: frozenset[int]) -> Widths:
        """How many units of every family a cut leaves."""
        return tuple(sum(label not in cut for label in family.labels.tolist()) for family in self.channels.families)

    def digest(self, widths: Sequence[int]) -> str:
        """SHA-256 of the net of a plan, as far as latencies depend on it: it names the net in a device profile."""
        return hashlib.sha256(f"{self._dense_digest} {list(widths)}".encode()).hexdigest()

    def graph(self, cut: frozenset[int]) -> bytes:
        """The compact graph as it is measured. Its nodes bear the names of what they compute.

        It is not simplified, which would take longer than measuring: a backend folds batch norms by itself.
        """
        compact = remove_channels(self.channels.model, self.channels, cut)
        if self.takes_frames:
            zeros, ones = (0.0,) * self.shape[1], (1.0,) * self.shape[1]
            compact = embed_preprocess(compact, zeros, ones)
        for node in compact.graph:
            node.name = node.outputs[0].name
        return bytes(ir.to_proto(compact).SerializeToString())

    def layer_of(self, value: str) -> str:
        """The output of the layer with weights behind a value of the traced graph: how it is called whatever the
        backend fused it with. `value` itself where there is none."""
        layer = self._layer(value)
        return value if layer is None or layer.outputs[0].name is None else layer.outputs[0].name

    def read_and_written(self, value: str) -> tuple[AxisTerms, AxisTerms]:
        """The channels on which the cost of computing a value of the traced graph depends, as functions of the widths.

        Nothing is read where the value is no layer's output, for then only what is written counts, and where both are
        the same, as in a depthwise convolution.
        """
        written, node = self._channels(value), self._makers.get(value)
        source = node.inputs[0] if node is not None and node.op_type in WEIGHTED else None
        if source is None or source.name is None:
            return self._index.constant(0), written
        read = self._channels(source.name)
        same = read.fixed == written.fixed and np.array_equal(read.per_unit, written.per_unit)
        return (self._index.constant(0) if same else read), written

    def _channels(self, value: str) -> AxisTerms:
        """Of several axes that carry labels the one with the channels is that which the widths change most."""
        axes = [self._index.axis(ids) for ids in self.channels.value_ids.get(value, ()) if ids is not None]
        return max(axes, key=lambda axis: float(axis.per_unit.sum()), default=self._index.constant(0))

    def _layer(self, value: str) -> ir.Node | None:
        """The layer with weights behind a value: its own, or the nearest before its activation, norm or sum."""
        waiting, seen = [value], set[str]()
        while waiting:
            name = waiting.pop(0)
            node = self._makers.get(name)
            if node is None or name in seen:
                continue
            seen.add(name)
            if node.op_type in WEIGHTED:
                return node
            if node.op_type == "Concat":
                return None
            waiting += [v.name for v in node.inputs if v is not None and v.name and not v.is_initializer()]
        return None

    @cached_property
    def _dense_digest(self) -> str:
        return net_digest(self.graph(frozenset()), self.feeds)

    @cached_property
    def _makers(self) -> dict[str, ir.Node]:
        return {v.name: node for node in self.channels.model.graph for v in node.outputs if v.name}

    @cached_property
    def _index(self) -> FamilyIndex:
        return FamilyIndex(self.channels)
