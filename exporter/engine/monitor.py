"""How far a build is: TensorRT's own phases, told to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from edgeslim.progress import Progress, told_late
from edgeslim.runtime.backends.tensorrt.log import TrtObject


class Watch:
    """Lets `progress` hear of the build, where this TensorRT tells (from 10). stopped: what ended it from within."""

    def __init__(self, trt: ModuleType, config: TrtObject, progress: Progress) -> None:
        self.stopped: BaseException | None = None
        progress.stage("building")
        if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
            return
        watch, phases = self, dict[str, tuple[Callable[[int, int], None], int]]()

        class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
            """Phases are nested and mostly short: one is shown once it has taken a while."""

            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                phases[phase_name] = (told_late(progress, phase_name), num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                if phase_name in phases:
                    report, total = phases[phase_name]
                    watch.tell(lambda: report(min(step + 1, total), total))
                return watch.stopped is None

            def phase_finish(self, phase_name: str) -> None:
                phases.pop(phase_name, None)

        config.progress_monitor = _Monitor()

    def tell(self, call: Callable[[], None]) -> None:
        """No exception may pass through TensorRT: keep it, and let the next step ask for the end of the build."""
        try:
            call()
        except BaseException as error:
            self.stopped = error
