"""Checkpoints: safetensors and JSON in one directory, replaced as a whole. No pickle, ever.

    checkpoint/
      checkpoint.json         schema, what is in here with SHA-256, and the numbers of the run
      model.safetensors       the net's state_dict
      <part>.safetensors      further tensors by name: optimizer, best
      plan.json               if the net is pruned

A checkpoint that exists is complete: it was written beside its place and moved there by one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from edgeslim.atomic import replaced_directory
from edgeslim.errors import CheckpointError, TrainingError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.schema import dumps, loads

SCHEMA = 1
INDEX = "checkpoint.json"
MODEL = "model.safetensors"
PLAN = "plan.json"

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointIndex:
    """What a checkpoint holds. key: identifies the recipe and stage it belongs to. files: name -> SHA-256."""

    schema: int = SCHEMA
    key: str
    step: int
    finished: bool
    numbers: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory. parts: "model" and others -> tensors by name."""

    key: str
    step: int
    finished: bool
    parts: Mapping[str, State]
    numbers: Mapping[str, float] = field(default_factory=dict)
    plan: PruningPlan | None = None

    @property
    def model(self) -> State:
        """The net's state_dict."""
        return self.parts["model"]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path`, replacing what was there at once. Raises TrainingError if the disk does not take it."""
    content = {f"{name}.safetensors": _to_bytes(state) for name, state in checkpoint.parts.items()}
    if checkpoint.plan is not None:
        content[PLAN] = checkpoint.plan.to_json().encode()
    index = CheckpointIndex(
        key=checkpoint.key,
        step=checkpoint.step,
        finished=checkpoint.finished,
        numbers=checkpoint.numbers,
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())},
    )
    try:
        with replaced_directory(path) as draft:
            for name, data in content.items():
                (draft / name).write_bytes(data)
            (draft / INDEX).write_text(dumps(index))
    except OSError as error:
        raise TrainingError(
            f"checkpoint {path} could not be written: {error.strerror or error}",
            "free some space; the checkpoint before this one is intact and the run continues from it",
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises CheckpointError for anything but a complete one."""
    if path.is_file():
        raise CheckpointError(*_not_a_directory(path))
    index = _read_index(path)
    content = {name: _read(path, name, digest) for name, digest in index.files.items()}
    plan = content.pop(PLAN, None)
    return Checkpoint(
        key=index.key,
        step=index.step,
        finished=index.finished,
        numbers=index.numbers,
        parts={name.removesuffix(".safetensors"): _from_bytes(data, path / name) for name, data in content.items()},
        plan=None if plan is None else PruningPlan.from_json(plan),
    )


def check_fit(saved: Checkpoint, path: Path, key: str, module: nn.Module) -> None:
    """Raise CheckpointError if a checkpoint belongs to another run or another net."""
    if saved.key != key:
        raise CheckpointError(
            f"{path} belongs to another run: its key is {saved.key[:12] or 'empty'}, this run's is {key[:12]}",
            "give another --out, or --fresh to start over",
        )
    own, seen = module.state_dict(), saved.model
    for name in sorted(set(own) | set(seen)):
        if name not in own or name not in seen or own[name].shape != seen[name].shape:
            raise CheckpointError(f"{path}: {name} does not fit this model", "give another --out, or --fresh")


def _read_index(path: Path) -> CheckpointIndex:
    try:
        text = (path / INDEX).read_bytes()
        table = json.loads(text)
        # Looked at first: of a newer index an unknown key would be the wrong complaint.
        schema = table.get("schema") if isinstance(table, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise CheckpointError(f"{path} has schema {schema}, this edgeslim reads up to {SCHEMA}", "upgrade edgeslim")
        index = loads(CheckpointIndex, text)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} holds no checkpoint ({INDEX} is missing)", "check the path") from error
    except (ValueError, RecursionError, OSError) as error:  # a SchemaError is a ValueError
        raise CheckpointError(f"{path / INDEX} cannot be read: {error}", "train again, or use a backup") from error
    if MODEL not in index.files:
        raise CheckpointError(f"{path / INDEX} lists no {MODEL}", "train again, or use a backup")
    return index


def copy_state(state: State) -> dict[str, torch.Tensor]:
    """The tensors of a state as they are now, whatever is trained afterwards."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def load_state(module: nn.Module, state: State) -> None:
    """`module.load_state_dict(state)`, for states that lost the version numbers some modules ask for. RuntimeError."""
    own = module.state_dict()
    ordered = OrderedDict(state)
    ordered._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(ordered)


def _to_bytes(state: State) -> bytes:
    # safetensors refuses views and shared memory, both of which are an accident of layout here
    return save_safetensors({name: t.detach().cpu().contiguous().clone() for name, t in state.items()})


def _from_bytes(data: bytes, path: Path) -> State:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}", "train again, or use a backup") from error


def _read(root: Path, name: str, digest: str) -> bytes:
    path = root / name
    if path.resolve().parent != root.resolve():
        raise CheckpointError(f"{path} lies outside its checkpoint", "do not use this checkpoint")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "copy the checkpoint again") from error
    seen = hashlib.sha256(data).hexdigest()
    if seen != digest:
        raise CheckpointError(
            f"{path} is damaged: SHA-256 {seen[:12]}..., recorded {digest[:12]}...", "copy the checkpoint again"
        )
    return data


def _not_a_directory(path: Path) -> tuple[str, str]:
    """Message and hint for a file where a checkpoint directory belongs; pickles are named as such."""
    head = path.read_bytes()[:4]
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or head == b"PK\x03\x04":
        return (
            f"{path} is a pickle, which can run any code when it is loaded; edgeslim does not open it",
            "load it yourself with torch.load(..., weights_only=True) and pass the module to edgeslim.prune",
        )
    return f"{path} is a file, a checkpoint is a directory with {INDEX}", "check the path"
