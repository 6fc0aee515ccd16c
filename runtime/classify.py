"""The likeliest classes of a frame, for bundles that classify."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from .session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One class. probability: its share of the softmax over all classes, in [0, 1]."""

    name: str
    label: int
    probability: float


def classify(session: Session, frame: NDArray[np.uint8], most: int = 5) -> tuple[Answer, ...]:
    """The `most` likeliest classes of a frame, the likeliest first; ties in the order of the classes.

    frame: as `session.run` takes it. Raises ConfigError for a bundle of another task, and what `session.run` raises.
    """
    manifest = session.manifest
    if manifest.task != "classification":
        raise ConfigError(
            f"{manifest.name} is a bundle of {manifest.task or 'an unstated task'}, not of classification",
            "session.run gives its outputs as they are",
        )
    logits = np.asarray(session.run(frame)[manifest.outputs[0].name], np.float64)
    raised = np.exp(logits - logits.max())
    shares = raised / raised.sum()
    names = manifest.classes or tuple(str(label) for label in range(len(shares)))
    order = np.argsort(-shares, kind="stable")[:most].tolist()
    return tuple(Answer(name=names[i], label=i, probability=float(shares[i])) for i in order)
