"""How much worse the layers that read a unit can be reconstructed without it.

For a layer with inputs X and weights W (rows scaled to where the layer is heard), and H = (X'X + ridge)^-1, to remove
the rows g of a unit and to let all others make up for it costs

    cost(g) = tr( W_g' (H_gg)^-1 W_g ),       W <- W - H_:g (H_gg)^-1 W_g,     H <- H - H_:g (H_gg)^-1 H_g:

relative to |q|^2, summed over the layers that read the unit. Units of a family go one by one, the cheapest first, and
a unit's score is what its removal costs at that moment, never less than the one before it: so the sum of the lowest
scores of a family is the error after those units have left. The groups of a layer are products side by side, and H has
a block for each; depthwise layers lose what they say with what they read, and nothing is left to be made up for.
Layers that are no plain matrix product over channels count with what the unit contributes, |x_g|^2 |W_g|^2, as if
nobody could make up for it.

In wide families the large matrices are updated for a 32nd of the units at a time; which they are is found among the
cheapest two 32nds with the exact updates of their own rows, which need no others.

Source: the elimination is Optimal Brain Surgeon (Hassibi & Stork 1993) in blocks; layer-wise reconstruction error as a
score is from ThiNet (Luo et al. 2017). The residual's place and the sum over readers are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.walk import Walk

from ..recovery.held_out import image_batches
from ..recovery.normal import Matrix, Normal
from ..recovery.readers import Reader, find_heard, find_readers
from .protocol import LooksAt
from .units import Scored

RIDGE = 1e-4
LARGEST_FEATURES = 2304
"""256 channels of a 3x3 kernel; wider layers count with contributions, for elimination takes the cube of it."""
ROWS_A_FEATURE = 64
MOST_ROWS = 65_536
BATCHES = 32
"""How often the large matrices of a family are updated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """The criterion; see the module docstring."""

    name: str = "reconstruction"
    looks_at: LooksAt = "feature maps"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, in the order of `unit_labels`, higher = keep. images: (N, C, H, W) normalised."""
        walk = Walk(net.graph, image_batches(net.graph, images))
        readers = []
        for reader in find_readers(net.channels):
            if reader.depthwise:  # what it reads leaves with what it says: nothing is left to be made up for
                continue
            walk.advance(reader.node.outputs[0].name or "")
            readers.append(_observe(walk, reader, net.channels.parameters))
        scores = [np.empty(0)]
        for family in net.channels.families:
            scores.append(_eliminate(family.labels, readers))
        return np.concatenate(scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One layer. ids: (features,) root label of each. inverse: H (features, features), or its diagonal (features,)."""

    ids: NDArray[np.int64]
    inverse: Matrix
    weights: Matrix


def _observe(walk: Walk, reader: Reader, parameters: Collection[str]) -> _Read:
    weight = walk.weights[reader.layer]
    heard = find_heard(reader, parameters, walk.weights)
    if reader.unfit or len(reader.ids) * reader.taps > LARGEST_FEATURES:
        return _contributions(walk, reader)
    features = len(reader.ids) // reader.groups * reader.taps
    shifted = heard.shift is not None
    normal = Normal(reader.groups, features + shifted, 1)
    read, said = walk.peek([reader.source, heard.value])
    count = -(-min(ROWS_A_FEATURE * features + 1024, MOST_ROWS) // len(read))
    energy = 0.0
    for seed, (x, q) in enumerate(zip(read, said)):
        seen, now = reader.look(x, q, count, np.random.default_rng(seed))
        energy += float(np.square(now, dtype=np.float64).sum())
        rows = np.swapaxes(seen.reshape(len(seen), reader.groups, -1), 0, 1)
        if shifted:
            rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1), np.float32)], axis=2)
        normal.add(rows, np.zeros((*rows.shape[:2], 1), np.float32))
    scale = heard.scale.reshape(reader.groups, 1, -1) / np.sqrt(max(energy, 1e-30))
    matrix = reader.matrix(weight) * scale
    ids = np.repeat(reader.ids, reader.taps).reshape(reader.groups, -1)
    if shifted:  # the bias makes up for means, and never leaves
        matrix, ids = np.pad(matrix, ((0, 0), (0, 1), (0, 0))), np.pad(ids, ((0, 0), (0, 1)), constant_values=-1)
    inverse = np.asarray(np.linalg.inv(normal.damped(RIDGE)), np.float64)
    return _Read(ids=ids.ravel(), inverse=_diagonal(inverse), weights=_diagonal(matrix))


def _diagonal(blocks: Matrix) -> Matrix:
    """(G, a, b) -> (G a, G b), zero between the blocks."""
    count, height, width = blocks.shape
    whole = np.zeros((count, height, count, width))
    whole[np.arange(count), :, np.arange(count)] = blocks
    return whole.reshape(count * height, count * width)


def _contributions(walk: Walk, reader: Reader) -> _Read:
    """|x_i|^2 |W_i|^2 / |y|^2, with the energies of all positions."""
    read, said = walk.peek([reader.source, reader.node.outputs[0].name or ""])
    axis = reader.site.axis
    rest = tuple(i for i in range(read[0].ndim) if i != axis % read[0].ndim)
    power = sum(np.square(x, dtype=np.float64).sum(axis=rest) for x in read)
    energy = sum(float(np.square(y, dtype=np.float64).sum()) for y in said)
    array = np.moveaxis(walk.weights[reader.layer].astype(np.float64), reader.site.weight_axis, 0)
    rows = array.reshape(len(array), -1)
    if len(rows) != len(reader.ids):  # of a grouped convolution: axis 1 is the position inside of a group
        rows = _per_input(walk.weights[reader.layer].astype(np.float64), reader.site.groups)
    inverse = 1.0 / np.maximum(power, 1e-30)
    return _Read(ids=reader.ids, inverse=inverse, weights=rows / np.sqrt(max(energy, 1e-30)))


def _per_input(array: Matrix, groups: int) -> Matrix:
    """A grouped kernel (O, I / groups, taps...) as one row an input: (I, O / groups * taps)."""
    wide = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)  # (g, O/g, I/g, taps)
    return np.ascontiguousarray(np.moveaxis(wide, 2, 1)).reshape(groups * array.shape[1], -1)


def _eliminate(labels: NDArray[np.int64], reads: list[_Read]) -> NDArray[np.float64]:
    """The scores of one family: (units,)."""
    mine = [read for read in reads if np.isin(read.ids, labels).any()]
    if not mine:
        return np.full(len(labels), np.inf)
    if not all(np.isfinite(read.inverse).all() and np.isfinite(read.weights).all() for read in mine):
        return np.full(len(labels), np.nan)  # said by whoever asked for scores; the running maximum would swallow it
    layers = [_Elimination.of(read, labels) for read in mine]
    scores, alive, reached = np.empty(len(labels)), np.arange(len(labels)), 0.0
    batch = -(-len(labels) // BATCHES)
    while len(alive):
        near = alive[np.argsort(_costs(layers, alive), kind="stable")[: 2 * batch]]
        small, picked = [layer.narrowed(near) for layer in layers], list[int]()
        left = np.arange(len(near))
        while len(left) and len(picked) < batch:
            costs = _costs(small, left)
            first = int(np.argmin(costs))
            reached = max(reached, float(costs[first]))
            unit, left = int(left[first]), np.delete(left, first)
            scores[near[unit]] = reached
            picked.append(unit)
            for layer in small:
                layer.remove(np.array([unit]))
        gone = near[picked]
        alive = np.setdiff1d(alive, gone)
        for layer in layers:
            layer.remove(gone)
    return scores


def _costs(layers: list[_Elimination], units: NDArray[np.int64]) -> Matrix:
    return np.asarray(sum(layer.costs(units) for layer in layers), np.float64)


class _Elimination:
    """One layer while units of one family leave it. rows: which rows of the weights belong to each unit."""

    def __init__(self, rows: list[NDArray[np.int64]], inverse: Matrix, weights: Matrix) -> None:
        self._rows, self._inverse, self._weights = rows, inverse, weights
        self._full = inverse.ndim == 2

    @classmethod
    def of(cls, read: _Read, labels: NDArray[np.int64]) -> _Elimination:
        """All rows of a layer, those of other families too: they help to make up."""
        order = np.argsort(read.ids, kind="stable")
        first = np.searchsorted(read.ids[order], labels, side="left")
        last = np.searchsorted(read.ids[order], labels, side="right")
        rows = [order[a:b] for a, b in zip(first, last)]
        return cls(rows, read.inverse.copy(), read.weights.copy())

    def narrowed(self, units: NDArray[np.int64]) -> _Elimination:
        """The rows of these units alone: what they cost while they leave depends on no others."""
        rows = [self._rows[u] for u in units.tolist()]
        every = np.concatenate([np.empty(0, np.int64), *rows])
        ends = np.cumsum([0, *map(len, rows)])
        inverse = self._inverse[np.ix_(every, every)] if self._full else self._inverse[every]
        return _Elimination([np.arange(a, b) for a, b in itertools.pairwise(ends)], inverse, self._weights[every])

    def costs(self, units: NDArray[np.int64]) -> Matrix:
        """What the removal of each unit alone would cost now: (len(units),)."""
        costs = np.zeros(len(units))
        sizes = np.array([len(self._rows[u]) for u in units.tolist()])
        for size in set(sizes.tolist()) - {0}:
            mine = np.flatnonzero(sizes == size)
            rows = np.stack([self._rows[u] for u in units[mine].tolist()])  # (units, size)
            weights = self._weights[rows]
            if self._full:
                blocks = self._inverse[rows[:, :, None], rows[:, None, :]]
                costs[mine] = (weights * np.linalg.solve(blocks, weights)).sum(axis=(1, 2))
            else:
                costs[mine] = (np.square(weights).sum(axis=2) / self._inverse[rows]).sum(axis=1)
        return costs

    def remove(self, units: NDArray[np.int64]) -> None:
        """Let the others make up for these units."""
        rows = np.concatenate([np.empty(0, np.int64), *(self._rows[u] for u in units.tolist())])
        if not self._full or not len(rows):
            return
        block = self._inverse[np.ix_(rows, rows)]
        gain = np.linalg.solve(block, self._inverse[rows]).T  # H_:g (H_gg)^-1
        self._weights -= gain @ self._weights[rows]
        self._inverse -= gain @ self._inverse[rows]
