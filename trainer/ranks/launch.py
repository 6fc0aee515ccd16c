"""Where a run is computed: on how many devices of how many machines. What is computed, the recipe says.

Somebody else starts the processes, torchrun as a rule: it says in environment variables how many there are, and ends
all of them where one fails. Here is only checked that this is what the options ask for, before anything waits for a
process that does not exist.

    torchrun --standalone --nproc-per-node 2 -m edgeslim compress recipe.yaml --devices 2
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeslim.errors import ConfigError

Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """devices: processes on each machine, one a GPU (or a part of the processor).  num_nodes: machines.

    strategy: `ddp`, every process has the whole net; `fsdp`, it keeps a part of every weight, see `placement`.
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "ddp"

    @property
    def processes(self) -> int:
        """On all machines together."""
        return self.devices * self.num_nodes

    def check(self, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        """Raise ConfigError unless exactly the processes are there that these options ask for.

        arguments: of the command, without its name, for the line that would have been right.
        """
        if self.devices < 1 or self.num_nodes < 1:
            raise ConfigError(f"--devices {self.devices} --num-nodes {self.num_nodes}: both count from 1")
        if self.strategy == "fsdp" and self.processes == 1:
            raise ConfigError(
                "--strategy fsdp shares the weights out among processes, and --devices 1 is one",
                "leave --strategy out, or give --devices the number of GPUs",
            )
        started, here = _number(environment, "WORLD_SIZE"), _number(environment, "LOCAL_WORLD_SIZE")
        asked = f"--devices {self.devices} --num-nodes {self.num_nodes} asks for {_processes(self.processes)}"
        if started is None:
            if self.processes > 1:
                raise ConfigError(f"{asked}, and this is the only one", self._hint(arguments))
            return
        if started != self.processes:
            raise ConfigError(
                f"{asked}, and {started} {'was' if started == 1 else 'were'} started (WORLD_SIZE is {started})",
                self._hint(arguments) if self.processes > 1 else "start it without torchrun, or say how many",
            )
        if here is not None and here != self.devices:
            raise ConfigError(
                f"--devices {self.devices} asks for {_processes(self.devices)} on each machine, and on this one "
                f"{here} were started (LOCAL_WORLD_SIZE is {here})",
                self._hint(arguments),
            )

    def _hint(self, arguments: Sequence[str]) -> str:
        others = ", on each further machine with its own --node-rank" if self.num_nodes > 1 else ""
        return f"start it as: {self.line(arguments)}{others}"

    def line(self, arguments: Sequence[str]) -> str:
        """How these processes are started: on one machine, or on the first of several.

        The machines have numbers (--node-rank), so that the first one, which has the checkpoints, stays the first.
        """
        nodes = ["--nnodes", str(self.num_nodes), "--node-rank", "0", "--master-addr", "FIRST_MACHINE"]
        command = ["torchrun", *(nodes if self.num_nodes > 1 else ["--standalone"]), "--nproc-per-node"]
        return shlex.join([*command, str(self.devices), "-m", "edgeslim", *arguments])


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Raises ConfigError for a variable that is no number."""
    text = environment.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{name} is {text!r} in the environment, and must be a number", "start it with torchrun")
    return int(text)


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"
