"""Recipes from YAML files: reading, overriding, and saying what is wrong.

Strict at the edge: an unknown key, a wrong type or an impossible value is one line that names the YAML path.
"""

from __future__ import annotations

import datetime
import json
import re
import types
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ValidationError

from edgeslim.errors import ConfigError

from .recipe import Recipe
from .recipe_base import Section, mistake_in_words


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides (values are YAML).

    Raises ConfigError that names the file and the YAML path of the first mistakes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}", "give the path of a YAML file") from error
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping, this is {_kind(data)}", "see recipes/ for examples")
    for override in overrides:
        _apply_override(data, override)
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping. Raises ConfigError naming every wrong YAML path."""
    try:
        # JSON mode: strict about types, yet a YAML list may become a tuple and a string a Path.
        return Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        lines = [mistake_in_words(problem, _yaml_path(problem["loc"]) or "recipe") for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines), "correct the keys named above") from error


class _GivenTwice(ValueError):
    """A key that stands twice in one mapping."""


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as text and the key `on` as true; recipes mean the number and the name.

    Of a key that is there twice PyYAML takes the last without a word; here it is a mistake. What `<<` merges in may be
    overridden.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _GivenTwice(f"{key.value} is given twice, in line {lines[key.value]} and in line {line}")
                lines[key.value] = line
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse_yaml(text: str, where: str) -> object:
    try:
        return _plain(yaml.load(text, Loader=_Loader))
    except _GivenTwice as error:
        raise ConfigError(f"{where}: {error}", "keep one of them") from error
    except (yaml.YAMLError, RecursionError) as error:  # an anchor may contain itself
        raise ConfigError(f"{where} is not YAML: {error}", "check indentation and quotes") from error


def _plain(value: object) -> object:
    """Dates are the one YAML scalar without a JSON form: keep their text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, (datetime.date, bytes, set)) else value


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r} is not key.path=value", "for example --set train.lr=0.001")
    target = data
    for depth, part in enumerate(parts[:-1]):
        below = target.setdefault(part, {})
        if not isinstance(below, dict):
            place = ".".join(parts[: depth + 1])
            raise ConfigError(f"override {override!r}: {place} is {_kind(below)}, not a section", "check the path")
        target = below
    target[parts[-1]] = _parse_yaml(text, f"override {override!r}")


def _yaml_path(loc: Sequence[str | int]) -> str:
    """pydantic's location as the path in the YAML file.

    Inside a section chosen by its `name`, pydantic puts that name into the location (`data.stare.root`); it is
    found by walking down the annotations beside the location, and left out.
    """
    parts: list[str] = []
    kind: object = Recipe
    for part in loc:
        chosen = _choices(kind).get(str(part))
        if chosen is not None:
            kind = chosen
            continue
        if isinstance(part, str) and typing.get_origin(_bare(kind)) in (typing.Union, types.UnionType):
            break  # which form of a value was tried: nothing that stands in the file
        parts.append(str(part))
        kind = _inside(kind, part)
    return ".".join(parts)


def _choices(kind: object) -> dict[str, type[Section]]:
    """The sections of a union of named sections, by the name that selects them; empty for all else."""
    bare = [_bare(m) for m in typing.get_args(_bare(kind))]
    members = [m for m in bare if isinstance(m, type) and issubclass(m, Section)]
    if len(members) < 2:
        return {}
    return {tag: m for m in members for tag in typing.get_args(m.model_fields["name"].annotation)}


def _inside(kind: object, part: str | int) -> object:
    """The annotation of field or item `part` of `kind`; None where it is not known."""
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = typing.get_args(kind)
    return arguments[0] if arguments and isinstance(part, int) else None


def _bare(kind: object) -> object:
    """Take off `Annotated[...]` and `... | None`."""
    if typing.get_origin(kind) is Annotated:
        return _bare(typing.get_args(kind)[0])
    options = [a for a in typing.get_args(kind) if a is not type(None)]
    is_optional = len(options) == 1 and len(typing.get_args(kind)) == 2
    return _bare(options[0]) if is_optional else kind


def _kind(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
