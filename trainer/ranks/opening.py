"""From torchrun's environment to `Ranks`, and from whatever ends one process to words in all of them.

Tensors on GPUs travel by NCCL, everything else by gloo. A process that stops leaves its last words in torchrun's store,
where the others find them when the connection to it breaks. One that was killed leaves none: then they say so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from edgeslim.errors import ConfigError, DeviceError, EdgeslimError, TrainingError, first_line

from ..checkpoint import INDEX
from .group import ALONE, Ranks
from .launch import Launch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others: the first may search, export or write on its own that long. A process that
dies is noticed at once, by its closed connection; a machine that loses its power, after this time."""
_LAST_WORDS_S = 2.0
"""How long a survivor looks for the last words of the others: they may be on their way."""


@contextmanager
def open_ranks(launch: Launch, directory: Path) -> Iterator[Ranks]:
    """Meet the other processes of a launch that `Launch.check` has accepted.

    directory: of the run, for messages. Raises DeviceError where there are fewer GPUs than processes, TrainingError in
    the block's place where another process has stopped or died.
    """
    if launch.processes == 1:
        yield ALONE
        return
    store, ranks = _meet(launch)
    try:
        with _ended_by_signal(), warnings.catch_warnings():
            # Of 1x1 kernels in channels_last, whose strides can be told in two ways: DDP copies them, all is well.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield ranks
    except _Ended as ended:
        told = "or torchrun itself was told to end: SIGTERM came"
        raise _of_others(store, ranks, directory, told) from ended
    except (EdgeslimError, KeyboardInterrupt) as error:
        _leave(store, ranks, str(error).partition("\n")[0] or type(error).__name__)
        raise
    except RuntimeError as error:  # gloo and NCCL have no exceptions of their own in torch
        sign = broken_connection(error)
        if not sign:
            _leave(store, ranks, first_line(error))
            raise
        raise _of_others(store, ranks, directory, sign) from error
    except BaseException as error:
        _leave(store, ranks, first_line(error))
        raise
    finally:
        with suppress(RuntimeError):  # of connections that are broken already
            dist.destroy_process_group()


def _meet(launch: Launch) -> tuple[Store, Ranks]:
    cuda, local = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and torch.cuda.device_count() < launch.devices:
        raise DeviceError(
            f"--devices {launch.devices} asks for as many GPUs, and this machine has {torch.cuda.device_count()}",
            "give --devices (and --nproc-per-node) the number of GPUs; CUDA_VISIBLE_DEVICES= trains on the processor",
        )
    if cuda:
        torch.cuda.set_device(local)
    try:
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the other processes cannot be reached: {first_line(error)}",
            "start all of them by torchrun, on every machine with the same --master-addr and its own --node-rank",
        ) from error
    return store, Ranks(rank=rank, launch=launch)


class _Ended(BaseException):
    """SIGTERM came, as torchrun sends it to all when one has failed. No Exception, so that nothing takes it for one."""


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        # This process ends now, and a signal would only cut off what it has to say. Whoever takes too long over it,
        # torchrun kills.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def broken_connection(error: BaseException) -> str:
    """What gloo or NCCL say of another process that is not there any more; empty for an error of this process."""
    text = str(error)
    short = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
    if isinstance(error, dist.DistError) or "gloo" in text.lower() or "nccl" in text.lower():
        return next((sign for sign in short if sign.lower() in text.lower()), first_line(error))
    return next((sign for sign in short[:3] if sign.lower() in text.lower()), "")


def _leave(store: Store, ranks: Ranks, words: str) -> None:
    with suppress(RuntimeError):  # nobody listens any more
        store.set(_key(ranks.rank), words)


def _of_others(store: Store, ranks: Ranks, directory: Path, seen: str) -> TrainingError:
    """What became of the others, as far as can be known. seen: by this process."""
    words, until = dict[int, str](), time.monotonic() + _LAST_WORDS_S
    with suppress(RuntimeError):
        while not words and time.monotonic() < until:
            for rank in range(ranks.world):
                if rank != ranks.rank and store.check([_key(rank)]):
                    words[rank] = store.get(_key(rank)).decode(errors="replace")
            time.sleep(0.05)
    kept = f"the last good checkpoint is {last_checkpoint(directory)}"
    if words:
        rank, text = next(iter(words.items()))
        return TrainingError(
            f"rank {ranks.rank} stops because rank {rank} has stopped: {text}; {kept}",
            "see to that; the same command goes on from there",
        )
    return TrainingError(
        f"rank {ranks.rank} stops because another of the {ranks.world} processes has died ({seen}); {kept}",
        "torchrun says which one and by which signal (9: often a lack of memory); the same command goes on from there",
    )


def last_checkpoint(directory: Path) -> str:
    """The newest checkpoint of a run, in words where this machine has none."""
    found = [index for index in (directory / "stages").glob(f"*/{INDEX}") if not index.parent.name.startswith(".")]
    with suppress(OSError):
        if found:
            return str(max(found, key=lambda index: index.stat().st_mtime).parent)
    return f"none that this machine has: the first process writes them to {directory / 'stages'}"


def _key(rank: int) -> str:
    return f"edgeslim/stopped/{rank}"
