"""What a criterion is, and what it may ask of a net.

weights         scores by the graph's initializers: works on any net, also on one that came as an ONNX file
feature maps    runs the graph on images
gradients       needs a net that learns: a module, a loss, and what the images should give (`Differentiable`)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from .units import Pooling, Scored

LooksAt = Literal["weights", "feature maps", "gradients"]


@runtime_checkable
class Criterion(Protocol):
    """How much each unit matters."""

    @property
    def name(self) -> str:
        """How a recipe calls it."""
        ...

    @property
    def looks_at(self) -> LooksAt:
        """What it needs beside the analysis; all but weights need images."""
        ...

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep.

        images: (N, C, H, W) float32, normalised. Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        ...


@runtime_checkable
class Pooled(Criterion, Protocol):
    """A criterion that scores channels, and units by way of a `Pooling`."""

    @property
    def pool(self) -> Pooling:
        """How scores of channels become scores of units."""
        ...


@runtime_checkable
class AddsUp(Pooled, Protocol):
    """A criterion that may score a sum over images, so that several processes can share the images out."""

    @property
    def adds_up(self) -> bool:
        """What it gives to its pooling is a sum over images, or over batches of `lesson.BATCH` of them."""
        ...


@runtime_checkable
class Differentiable(Scored, Protocol):
    """A net that can be asked for gradients of its loss."""

    def gradients(
        self, images: NDArray[np.float32], steps: int | None = None, rate: float = 0.0
    ) -> Iterator[Mapping[str, NDArray[np.float64]]]:
        """Yield dloss/dparameter, by initializer, batch by batch.

        images: (N, C, H, W) float32.  steps: so many batches, from the beginning again where they end; each once where
        None.  rate: of a step of gradient descent on a copy of the net after each batch; 0 leaves its weights alone.
        """
        ...


def gradients_of(
    name: str, net: Scored, images: NDArray[np.float32], steps: int | None = None, rate: float = 0.0
) -> Iterator[Mapping[str, NDArray[np.float64]]]:
    """`Differentiable.gradients` for the criterion `name`. Raises ConfigError for a net that has none."""
    if not isinstance(net, Differentiable):
        raise ConfigError(
            f"criterion {name} looks at gradients of the loss, and this net has none: it is a graph, not a module",
            "choose a criterion that looks at weights or feature maps, such as l1 or ln_norm",
        )
    return net.gradients(images, steps, rate)
