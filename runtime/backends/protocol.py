"""What every inference engine looks like to the rest of edgeslim."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from ..manifest import TensorSpec

Array: TypeAlias = NDArray[Any]
"""An array whose element type is the one that its TensorSpec names."""


class Backend(Protocol):
    """A graph that is loaded and ready to run, until the `with` block ends."""

    @property
    def name(self) -> str:
        """The engine's name in the registry."""

    @property
    def version(self) -> str:
        """The engine's own version."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order; `layout` is empty, for an engine does not know it."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """Run once: every input by name, all outputs in order. Raises EngineError where the engine does."""

    def close(self) -> None:
        """Free the engine; harmless when repeated."""

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BackendFactory(Protocol):
    """Anything that turns ONNX bytes into a Backend: an adapter class, or a test double's method."""

    def __call__(self, model: bytes, *, threads: int, spin: bool) -> Backend:
        """Load `model`. Raises EngineError if it cannot be."""
