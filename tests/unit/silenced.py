"""Nets with silenced units, and what they say: for tests of what makes up for a cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.foreign.feeds import Arrays
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.exporter.taps import tapped
from edgeslim.exporter.weights import with_weights
from edgeslim.trainer.criteria.reconstruction import Reconstruction


def images(count: int = 10, seed: int = 7) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((2, 3, 12, 10)).astype(np.float32)} for _ in range(count)]


@dataclass(frozen=True)
class Cut:
    dense: ir.Model
    masked: ir.Model
    channels: ChannelMap
    labels: Collection[int]


def cut(model: ir.Model, family: str, units: Sequence[int], **more: Sequence[int]) -> Cut:
    """The net with units of a family, and of others by their names, silenced."""
    channels = analyze(model)
    labels = [int(channels.family(f).labels[u]) for f, us in {family: units, **more}.items() for u in us]
    plan = plan_from_cut(channels, labels)
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}
    masked = with_weights(model, {name: plan.mask(name, arrays[name]) for name in plan.initializers})
    return Cut(model, masked, channels, labels)


def values(model: ir.Model, names: Sequence[str], given: Arrays) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(tapped(model, names))
    return [np.asarray(a) for a in session.run(list(names), dict(given))]


def array(model: ir.Model, name: str) -> NDArray[np.float32]:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return np.asarray(value.numpy(), np.float32)


@dataclass(frozen=True)
class Net:
    graph: ir.Model
    channels: ChannelMap


def scores(model: ir.Model) -> dict[str, NDArray[np.float64]]:
    channels = analyze(model)
    stack = np.concatenate([np.asarray(one["x"], np.float32) for one in images(20)])
    found = Reconstruction().score(Net(model, channels), stack)
    ends = np.cumsum([family.width for family in channels.families])[:-1]
    return {family.name: part for family, part in zip(channels.families, np.split(found, ends), strict=True)}
