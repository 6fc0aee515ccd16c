"""What is alive when: against a count by hand, on random graphs, and with planted faults."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.exporter.memory.liveness import Life, Liveness, liveness
from edgeslim.exporter.memory.offsets import aligned, place, planned_bytes
from edgeslim.exporter.memory.sized import SizedGraph

from .buffers import faults, graph, graphs, overlaps

CHAIN = [("Conv", "a", ["x"]), ("Conv", "b", ["a"]), ("Conv", "c", ["b"]), ("Concat", "y", ["c"])]
SKIP = [
    ("Conv", "a", ["x"]),
    ("Conv", "b", ["a"]),
    ("Conv", "c", ["b"]),
    ("Concat", "d", ["a", "c"]),
    ("Conv", "y", ["d"]),
]


def test_a_chain_holds_two_values_and_the_output() -> None:
    found = liveness(graph(CHAIN, ["y"], a=1, b=10, c=100, y=1000))
    assert found.totals == (1001, 1011, 1110, 1100)
    assert found.peak_bytes == 1110
    assert found.peak is not None and (found.peak.node, found.peak.operator) == ("c", "Conv")
    assert [(life.values, life.bytes) for life in found.peak.alive] == [(("y",), 1000), (("c",), 100), (("b",), 10)]


def test_a_skip_connection_is_held_to_its_reader() -> None:
    found = liveness(graph(SKIP, ["y"], a=1, b=10, c=100, d=1000, y=0))
    assert found.totals == (1, 11, 111, 1101, 1000)


def test_the_input_is_the_callers() -> None:
    found = liveness(graph([("Conv", "a", ["x"]), ("Concat", "y", ["a", "x"])], ["y"], a=1, y=10))
    assert found.totals == (11, 11)


def test_an_output_that_is_read_inside_has_one_buffer() -> None:
    found = liveness(graph(CHAIN, ["a", "y"], a=1, b=10, c=100, y=1000))
    assert sorted(life.values for life in found.lives) == [("a",), ("b",), ("c",), ("y",)]
    assert found.totals == (1001, 1011, 1111, 1101)


def test_what_nobody_reads_is_never_let_go() -> None:
    found = liveness(graph([("Conv", "a", ["x"]), ("Conv", "b", ["x"]), ("Conv", "y", ["b"])], ["y"], a=1, b=10, y=0))
    assert found.totals == (1, 11, 11)


def test_an_activation_works_in_place() -> None:
    nodes = [("Conv", "a", ["x"]), ("Relu", "b", ["a"]), ("Conv", "y", ["b"])]
    found = liveness(graph(nodes, ["y"], a=8, b=8, y=0))
    assert [life.values for life in found.lives] == [("a", "b"), ("y",)]
    assert found.peak_bytes == 8


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([("Conv", "a", ["x"]), ("Relu", "b", ["a"]), ("Concat", "y", ["a", "b"])], ["y"]),
        ([("Conv", "a", ["x"]), ("Relu", "b", ["a"]), ("Conv", "y", ["b"])], ["y", "a"]),
        ([("Conv", "a", ["x"]), ("Relu", "b", ["a"]), ("Conv", "y", ["b"])], ["y", "b"]),
        ([("Conv", "a", ["x"]), ("Add", "b", ["a", "x"]), ("Conv", "y", ["b"])], ["y"]),
    ],
)
def test_it_does_not_where_its_input_is_needed_or_its_result_leaves(
    nodes: list[tuple[str, str, list[str]]], outputs: list[str]
) -> None:
    found = liveness(graph(nodes, outputs, a=8, b=8, y=0))
    assert found.peak_bytes == 16


def test_it_does_not_where_the_graph_leaves_a_size_open() -> None:
    nodes = [("Conv", "a", ["x"]), ("Relu", "b", ["a"]), ("Conv", "y", ["b"])]
    sized = graph(nodes, ["y"], a=8, b=8, y=0)
    assert liveness(dataclasses.replace(sized, stated={})).peak_bytes == 16


def test_another_name_is_no_other_buffer_even_with_other_readers() -> None:
    nodes = [("Conv", "a", ["x"]), ("Reshape", "b", ["a"]), ("Concat", "c", ["a", "b"]), ("Conv", "y", ["c"])]
    found = liveness(graph(nodes, ["y"], a=8, b=8, c=16, y=0))
    assert found.peak_bytes == 24
    relu = [("Conv", "a", ["x"]), ("Reshape", "b", ["a"]), ("Relu", "c", ["b"]), ("Concat", "y", ["a", "c"])]
    assert liveness(graph(relu, ["y"], a=8, b=8, c=8, y=0)).peak_bytes == 16  # `a` still needs its bytes


def test_a_dead_buffer_of_the_same_shape_is_taken_over_with_the_gap_between() -> None:
    nodes = [
        ("Conv", "a", ["x"]),
        ("Conv", "b", ["a"]),
        ("Conv", "c", ["b"]),
        ("Conv", "d", ["c"]),
        ("Conv", "y", ["d"]),
    ]
    sized = graph(nodes, ["y"], a=8, b=1, c=2, d=8, y=0)
    assert liveness(sized).totals == (8, 9, 3, 10, 8)
    assert liveness(sized, recycle=True).totals == (8, 9, 11, 10, 8)


@given(graphs(operators=("Conv", "Concat", "Add")))
def test_totals_against_a_count_by_hand(sized: SizedGraph) -> None:
    nodes, outputs = list(sized.model.graph), {v.name for v in sized.model.graph.outputs}
    expected = []
    for now in range(len(nodes)):
        total = sum(sized.value_bytes[name or ""] for name in outputs)
        for born, node in enumerate(nodes):
            name = node.outputs[0].name or ""
            read = [i for i, n in enumerate(nodes) if any(v is not None and v.name == name for v in n.inputs)]
            if name not in outputs and born <= now <= max(read, default=len(nodes)):
                total += sized.value_bytes[name]
        expected.append(total)
    assert list(liveness(sized).totals) == expected


@given(graphs(), st.booleans())
def test_every_value_is_there_when_it_is_read(sized: SizedGraph, recycle: bool) -> None:
    assert faults(sized, liveness(sized, recycle=recycle)) == []


@given(graphs())
def test_the_peak_holds_what_any_node_touches(sized: SizedGraph) -> None:
    found = liveness(sized)
    buffer = {value: life for life in found.lives for value in life.values}
    for node in sized.model.graph:
        values = (*node.inputs, *node.outputs)
        touched = {id(life): life.bytes for v in values if v is not None and (life := buffer.get(v.name or ""))}
        assert found.peak_bytes >= sum(touched.values())
    assert found.peak_bytes <= sum(sized.value_bytes.values())
    assert found.peak_bytes == found.moment(found.totals.index(found.peak_bytes)).bytes


@given(graphs(operators=("Conv", "Concat", "Add")), st.data())
def test_a_value_without_bytes_never_raises_the_peak(sized: SizedGraph, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sized.value_bytes)))
    smaller = dataclasses.replace(sized, value_bytes={**sized.value_bytes, name: 0})
    assert liveness(smaller).peak_bytes <= liveness(sized).peak_bytes


@given(graphs(), st.booleans())
def test_buffers_do_not_overlap_and_the_block_holds_all_that_lives(sized: SizedGraph, recycle: bool) -> None:
    found = liveness(sized, recycle=recycle)
    inner = [life for life in found.lives if not life.leaves]
    assert overlaps(inner, place(inner)) == []
    assert found.peak_bytes <= planned_bytes(found.lives) <= sum(aligned(life.bytes) for life in found.lives)


def test_a_buffer_goes_into_the_smallest_gap() -> None:
    def life(size: int, birth: int, death: int) -> Life:
        return Life(values=("v",), bytes=size, birth=birth, death=death, leaves=False)

    lives = [life(1024, 0, 0), life(256, 0, 9), life(512, 0, 0), life(256, 0, 9), life(500, 1, 9), life(2048, 2, 9)]
    assert place(lives) == [0, 1024, 1280, 1792, 1280, 2048]
    assert planned_bytes(lives) == 4096  # the first kilobyte is too small for what came last


def test_what_the_block_has_grown_to_is_a_gap_too() -> None:
    def life(size: int, birth: int, death: int) -> Life:
        return Life(values=("v",), bytes=size, birth=birth, death=death, leaves=False)

    lives = [life(1024, 0, 0), life(256, 0, 9), life(512, 0, 0), life(512, 1, 9)]
    assert place(lives) == [0, 1024, 1280, 1280]  # the kilobyte in front would leave more of itself unused


def test_the_checker_finds_a_buffer_that_is_freed_too_early() -> None:
    sized = graph(CHAIN, ["y"], a=8, b=8, c=8, y=8)
    found = liveness(sized)
    for index, life in enumerate(found.lives):
        if life.death > life.birth:
            hasty = [*found.lives]
            hasty[index] = dataclasses.replace(life, death=life.death - 1)
            assert faults(sized, dataclasses.replace(found, lives=tuple(hasty)))


def test_the_checker_finds_a_forgotten_skip_connection() -> None:
    sized = graph(SKIP, ["y"], a=8, b=8, c=8, d=16, y=8)
    forgetful = graph([*SKIP[:3], ("Concat", "d", ["c"]), SKIP[4]], ["y"], a=8, b=8, c=8, d=16, y=8)
    assert faults(sized, liveness(forgetful))
    assert faults(sized, liveness(forgetful, recycle=True))
    assert liveness(forgetful).peak_bytes < liveness(sized).peak_bytes


def test_the_checker_finds_two_values_in_one_buffer() -> None:
    sized = graph(SKIP, ["y"], a=8, b=8, c=8, d=16, y=8)
    found = liveness(sized)
    shared = Life(values=("a", "c"), bytes=8, birth=0, death=3, leaves=False)
    lives = (shared, *(life for life in found.lives if life.values not in (("a",), ("c",))))
    assert any("when its buffer holds" in text for text in faults(sized, Liveness(nodes=found.nodes, lives=lives)))
    assert overlaps(found.lives, [0] * len(found.lives))


@pytest.mark.parametrize("fault", [{"birth": 3}, {"bytes": -1}, {"values": ()}, {"birth": -1}])
def test_a_life_that_cannot_be(fault: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot live"):
        dataclasses.replace(Life(values=("a",), bytes=1, birth=0, death=2, leaves=False), **fault)  # type: ignore[arg-type]


def test_a_graph_whose_sizes_are_not_all_known() -> None:
    with pytest.raises(ValueError, match=r"unknown size: \['b', 'c', 'y'\]"):
        graph(CHAIN, ["y"], a=1)


def test_a_graph_without_nodes() -> None:
    found = Liveness(nodes=(), lives=())
    assert (found.totals, found.peak_bytes, found.peak) == ((), 0, None)
