"""The published results, made again on real data: `make reproduce`.

An experiment is a module with a list of cases (one net trained and cut in one way) and the tables that their records
make. A case that was run with these settings and this seed is not run again, so an interrupted reproduction goes on
where it was.
"""

from __future__ import annotations

from .case import Experiment
from .cifar import CIFAR
from .cifar_settings import CIFAR_SETTINGS
from .depth_law import DEPTH_LAW
from .joint import JOINT
from .joint_ablation import JOINT_ABLATION
from .mnist import MNIST

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e for e in (MNIST, CIFAR, CIFAR_SETTINGS, DEPTH_LAW, JOINT_ABLATION, JOINT)
}
