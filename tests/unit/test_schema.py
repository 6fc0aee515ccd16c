"""The strict way between frozen dataclasses and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.schema import SchemaError, dumps, from_json, loads, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf."""

    kind: Literal["a", "b"]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree."""

    name: str
    count: int
    flag: bool
    note: str | None = None
    size: tuple[int, int]
    axes: tuple[int | str, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    table: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count is {self.count}")


numbers = st.floats(allow_nan=False, allow_infinity=False)
trees = st.builds(
    Tree,
    name=st.text(),
    count=st.integers(0),
    flag=st.booleans(),
    note=st.none() | st.text(),
    size=st.tuples(st.integers(), st.integers()),
    axes=st.lists(st.integers() | st.text()).map(tuple),
    leaves=st.lists(st.builds(Leaf, kind=st.sampled_from("ab"), weight=numbers)).map(tuple),
    table=st.dictionaries(st.text(), numbers),
)
GOOD = {"name": "oak", "count": 1, "flag": True, "size": [1, 2]}


@given(trees)
def test_round_trip(tree: Tree) -> None:
    assert loads(Tree, dumps(tree)) == tree
    assert loads(Tree, dumps(tree).encode()) == tree
    assert dumps(loads(Tree, dumps(tree))) == dumps(tree)


def test_defaults_fill_in_what_is_absent() -> None:
    assert from_json(Tree, GOOD) == Tree(name="oak", count=1, flag=True, size=(1, 2))


def test_an_integer_is_a_float_where_one_belongs() -> None:
    (leaf,) = from_json(Tree, {**GOOD, "leaves": [{"kind": "a", "weight": 2}]}).leaves
    assert type(leaf.weight) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": 1}, "$.nmae: unknown key; allowed are name, count, "),
        ({"name": 1}, "$.name: int where str belongs"),
        ({"count": "1"}, "$.count: str where int belongs"),
        ({"count": 1.0}, "$.count: float where int belongs"),
        ({"count": True}, "$.count: bool where int belongs"),
        ({"count": -1}, "$: count is -1"),
        ({"flag": 1}, "$.flag: int where bool belongs"),
        ({"note": 1}, "$.note: int where str belongs"),
        ({"size": [1]}, "$.size: 1 items where 2 belong"),
        ({"size": {"0": 1}}, "$.size: dict where list belongs"),
        ({"axes": [1, "a", None]}, "$.axes[2]: NoneType where int belongs"),
        ({"leaves": [{"kind": "c", "weight": 1}]}, "$.leaves[0].kind: 'c' is not one of 'a', 'b'"),
        ({"leaves": [{"kind": "a"}]}, "$.leaves[0].weight: missing"),
        ({"leaves": [{"kind": "a", "weight": True}]}, "$.leaves[0].weight: bool where int or float belongs"),
        ({"leaves": [3]}, "$.leaves[0]: int where dict belongs"),
        ({"table": {"x": None}}, "$.table.x: NoneType where int or float belongs"),
    ],
)
def test_the_first_mismatch_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        from_json(Tree, {**GOOD, **change})
    assert str(caught.value).startswith(message)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SchemaError, match=r"^\$\.count: missing$"):
        from_json(Tree, {"name": "oak", "flag": True, "size": [1, 2]})


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\x00"])
def test_text_that_is_not_json(text: str | bytes) -> None:
    with pytest.raises(SchemaError, match=r"^\$: not JSON"):
        loads(Tree, text)


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_json({"a": {1}})
    with pytest.raises(ValueError, match="Out of range"):
        dumps(Leaf(kind="a", weight=float("nan")))
