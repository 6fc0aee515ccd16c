"""What a verb that trains needs of each of its processes: the first one has the directory and the screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeslim.errors import EdgeslimError

from .run_directory import run_directory
from .screen import open_progress

if TYPE_CHECKING:
    from edgeslim.progress import Progress
    from edgeslim.trainer.ranks import Launch, Ranks


@contextmanager
def run_of_ranks(launch: Launch, path: Path, fresh: bool) -> Iterator[tuple[Ranks, Path, Progress]]:
    """Meet the other processes of the run in `path`; only the first makes, locks and empties it (see `run_directory`),
    and only it is heard. An error in another process names it.
    """
    from edgeslim.progress import Silent
    from edgeslim.trainer.ranks.opening import open_ranks

    with open_ranks(launch, path) as ranks, ExitStack() as stack:
        if ranks.first:
            directory = stack.enter_context(run_directory(path, fresh))
            progress = open_progress()
            with progress:
                yield ranks, directory, progress
            return
        try:
            yield ranks, path, Silent()
        except EdgeslimError as error:
            if not error.message.startswith("rank "):
                error.message = f"rank {ranks.rank}: {error.message}"
            raise
