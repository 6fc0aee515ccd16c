"""Frozen dataclasses to JSON and back, strictly.

Manifests, plans and results are plain frozen dataclasses, so that the device side needs nothing but the
standard library to read them. `from_json` checks every key and type and names the JSON path of the first
mismatch; it is the only way in, so a dataclass that exists is one that was valid.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class SchemaError(ValueError):
    """A JSON value does not fit its dataclass; the message starts with the JSON path."""


def to_json(value: object) -> JsonValue:
    """Turn a dataclass (or a tuple, mapping or scalar of such) into plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: object) -> str:
    """JSON text of a dataclass, stable to the byte: keys in field order, two spaces, final newline."""
    return json.dumps(to_json(value), indent=2, allow_nan=False) + "\n"


def loads(cls: type[T], text: str | bytes) -> T:
    """Read a dataclass from JSON text. Raises SchemaError naming the path of the first mismatch."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, a number of 5,000 digits
        raise SchemaError(f"$: not JSON ({error})") from error
    return from_json(cls, data)


def from_json(cls: type[T], data: object, path: str = "$") -> T:
    """Build the dataclass `cls` from parsed JSON. Raises SchemaError naming the first mismatch."""
    return typing.cast(T, _convert(cls, data, path))


def _convert(kind: object, data: object, path: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, data, path)
    if origin is typing.Literal:
        if data not in arguments:
            raise SchemaError(f"{path}: {data!r} is not one of {', '.join(map(repr, arguments))}")
        return data
    if origin is tuple:
        return _convert_tuple(arguments, data, path)
    if origin is not None and issubclass(typing.cast(type, origin), Mapping):
        table = _expect(dict, data, path)
        return {k: _convert(arguments[1], v, f"{path}.{k}") for k, v in table.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(kind, data, path)
    if kind is float:
        return _float(_expect((int, float), data, path), path)
    return _expect(typing.cast(type, kind), data, path)


def _float(value: int | float, path: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise SchemaError(f"{path}: a number too large for a float") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _convert_union(kinds: tuple[object, ...], data: object, path: str) -> object:
    problems = []
    for kind in kinds:
        try:
            return None if kind is type(None) and data is None else _convert(kind, data, path)
        except SchemaError as problem:
            problems.append(problem)
    raise problems[0]


def _convert_tuple(kinds: tuple[object, ...], data: object, path: str) -> tuple[object, ...]:
    items = _expect(list, data, path)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(items) != len(kinds):
        raise SchemaError(f"{path}: {len(items)} items where {len(kinds)} belong")
    return tuple(_convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, items)))


def _convert_dataclass(kind: type, data: object, path: str) -> object:
    table = _expect(dict, data, path)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in table:
        if name not in fields:
            raise SchemaError(f"{path}.{name}: unknown key; allowed are {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{path}.{name}: missing")
    try:
        return kind(**values)
    except ValueError as problem:
        raise SchemaError(f"{path}: {problem}") from problem


def _expect(kind: type | tuple[type, ...], data: object, path: str) -> typing.Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise SchemaError(f"{path}: {type(data).__name__} where {wanted} belongs")
    return data
