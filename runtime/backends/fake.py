"""A backend without an engine, for tests of programs that run bundles.

fake = FakeBackend.answering(inputs, outputs, lambda feeds: [np.zeros((1, 2, 64, 96), np.float32)])
session = edgeslim.runtime.load("net.bundle", backend=fake)
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from edgeslim.errors import EngineError

from ..manifest import TensorSpec
from .protocol import Array, BackendFactory

Answer = Callable[[dict[str, Array]], list[Array]]


class FakeBackend:
    """Answers every run with `answer(feeds)` and keeps what it was given: `runs`, `threads`, `spin`."""

    name = "fake"
    version = "0"

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        spin: bool = False,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        answer: Answer,
    ) -> None:
        self.model = model
        self.threads = threads
        self.spin = spin
        self.inputs = inputs
        self.outputs = outputs
        self.answer = answer
        self.runs: list[dict[str, Array]] = []
        self.closed = False

    @classmethod
    def answering(
        cls, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], answer: Answer
    ) -> BackendFactory:
        """A factory to give to `load(..., backend=...)`."""

        def make(model: bytes, *, threads: int, spin: bool) -> FakeBackend:
            return cls(model, threads=threads, spin=spin, inputs=inputs, outputs=outputs, answer=answer)

        return make

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """See Backend.run."""
        if self.closed:
            raise EngineError("the session is closed", "run inside its `with` block")
        self.runs.append(feeds)
        return self.answer(feeds)

    def close(self) -> None:
        """See Backend.close."""
        self.closed = True

    def __enter__(self) -> FakeBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
