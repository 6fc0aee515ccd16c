"""Every error a user of edgeslim can cause.

    EdgeslimError                 message + hint; exit code 1
    ├── ConfigError               a recipe, an option or an override is wrong
    ├── DataError                 images, masks or labels are missing or do not fit together
    ├── TrainingError             the optimisation left the finite numbers
    ├── CheckpointError           a checkpoint is missing, foreign, truncated or a pickle
    ├── PlanError                 a pruning plan is impossible or belongs to another model
    ├── UnsupportedGraphError     a graph cannot be read or traced
    ├── ExportError               a graph cannot be turned into what was asked for
    ├── BundleError               a bundle is damaged, forged or too new
    ├── EngineError               an inference engine cannot be built, loaded or run
    ├── DeviceError               the machine lacks what is needed
    ├── CertificateError          a proof of equality failed; exit code 3
    └── BudgetError               a target cannot be met; exit code 3

`InvariantError` is a bug of edgeslim itself and deliberately not an `EdgeslimError`.
"""

from __future__ import annotations


class EdgeslimError(Exception):
    """What went wrong, where, the value seen and the value allowed; `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(EdgeslimError):
    """A recipe, an option or an override is wrong."""


class DataError(EdgeslimError):
    """Images, masks or labels are missing or do not fit together."""


class TrainingError(EdgeslimError):
    """The optimisation left the finite numbers."""


class CheckpointError(EdgeslimError):
    """A checkpoint is missing, foreign, truncated or a pickle."""


class PlanError(EdgeslimError):
    """A pruning plan is impossible or belongs to another model."""


class UnsupportedGraphError(EdgeslimError):
    """A graph cannot be read or traced."""


class ExportError(EdgeslimError):
    """A graph cannot be turned into what was asked for."""


class BundleError(EdgeslimError):
    """A bundle is damaged, forged or too new."""


class EngineError(EdgeslimError):
    """An inference engine cannot be built, loaded or run."""


class DeviceError(EdgeslimError):
    """The machine lacks what is needed."""


class CertificateError(EdgeslimError):
    """A proof of equality failed."""

    exit_code = 3


class BudgetError(EdgeslimError):
    """A target cannot be met."""

    exit_code = 3


class InvariantError(AssertionError):
    """A promise edgeslim makes to itself was broken: please report it."""


def first_line(error: BaseException) -> str:
    """What a foreign exception says, in one line: its first non-empty one, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
