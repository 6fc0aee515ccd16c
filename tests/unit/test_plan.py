"""Plans: they survive JSON, they belong to one model, and they never empty a layer."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.errors import PlanError
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import AxisPlan, FamilyPlan, PruningPlan, cut_of_plan, plan_from_cut

NET = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 3, h, w] x) => (float[n, 2, h, w] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, block, block_bias)
  d = Relu (c)
  e = Add (b, d)
  f = Conv (e, narrow)
  g = Concat <axis = 1> (e, f)
  y = Conv (g, head)
}
"""


def net(width: int = 6, narrow: int = 4, constant: bool = False) -> ChannelMap:
    """A residual block beside a concatenation: two families, `width` and `narrow` units wide."""
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (width, 3, 3, 3),
        "block": (width, width, 3, 3),
        "block_bias": (width,),
        "narrow": (narrow, width, 1, 1),
        "head": (2, width + narrow, 1, 1),
    }
    proto = onnx.parser.parse_model(NET)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name) for name, shape in shapes.items()
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    return analyze(model, set(shapes) - ({"head"} if constant else set()))


CHANNELS = net()


@st.composite
def keeps(draw: st.DrawFn) -> tuple[int, tuple[int, ...]]:
    width = draw(st.integers(1, 12))
    kept = draw(st.sets(st.integers(0, width - 1), min_size=1))
    return width, tuple(sorted(kept))


@st.composite
def plans(draw: st.DrawFn) -> PruningPlan:
    families = [
        FamilyPlan(name=draw(st.text()), width=width, keep=keep) for width, keep in draw(st.lists(keeps(), max_size=4))
    ]
    axes = st.builds(
        lambda axis, kept, masked: AxisPlan(axis=axis, width=kept[0], keep=kept[1], masked=masked),
        st.integers(0, 3),
        keeps(),
        st.booleans(),
    )
    initializers = draw(
        st.dictionaries(st.text(), st.lists(axes, max_size=3, unique_by=lambda a: a.axis).map(tuple), max_size=4)
    )
    return PruningPlan(families=tuple(families), initializers=initializers)


def cuts(channels: ChannelMap) -> st.SearchStrategy[frozenset[int]]:
    """Any cut that leaves every family at least one unit."""
    parts = [
        st.sets(st.sampled_from([u.label for u in family.units]), max_size=family.width - 1)
        for family in channels.families
    ]
    return st.tuples(*parts).map(lambda sets: frozenset(itertools.chain.from_iterable(sets)))


@given(plans())
def test_a_plan_survives_json(plan: PruningPlan) -> None:
    text = plan.to_json()
    assert PruningPlan.from_json(text) == plan
    assert PruningPlan.from_json(text.encode()).to_json() == text


@given(cuts(CHANNELS))
def test_a_cut_survives_its_plan(cut: frozenset[int]) -> None:
    plan = plan_from_cut(CHANNELS, cut)
    assert cut_of_plan(CHANNELS, plan) == cut
    assert cut_of_plan(CHANNELS, PruningPlan.from_json(plan.to_json())) == cut
    assert cut_of_plan(net(), plan) == cut  # analysed again, the labels are the same


@given(cuts(CHANNELS))
def test_shrink_keeps_what_the_graph_keeps(cut: frozenset[int]) -> None:
    plan = plan_from_cut(CHANNELS, cut)
    compact = remove_channels(CHANNELS.model, CHANNELS, cut).graph.initializers
    for name, value in CHANNELS.model.graph.initializers.items():
        assert value.const_value is not None
        kept = compact[name].const_value
        assert kept is not None
        np.testing.assert_array_equal(plan.shrink(name, value.const_value.numpy()), kept.numpy())


def test_families_and_indices_of_a_cut() -> None:
    wide, narrow = CHANNELS.families
    assert (wide.name, wide.width, narrow.name, narrow.width) == ("stem", 6, "narrow", 4)
    plan = plan_from_cut(CHANNELS, {wide.units[i].label for i in (0, 3)} | {narrow.units[1].label})
    assert [f.keep for f in plan.families] == [(1, 2, 4, 5), (0, 2, 3)]
    axes = {name: [(a.axis, a.cut, a.masked) for a in axes] for name, axes in plan.initializers.items()}
    assert axes == {
        "stem": [(0, (0, 3), True)],
        "block": [(0, (0, 3), True), (1, (0, 3), False)],
        "block_bias": [(0, (0, 3), True)],
        "narrow": [(0, (1,), True), (1, (0, 3), False)],
        "head": [(1, (0, 3, 7), False)],
    }


def test_a_constant_of_the_trace_is_no_parameter_of_the_plan() -> None:
    channels = net(constant=True)
    plan = plan_from_cut(channels, {channels.families[0].units[0].label})
    assert "head" not in plan.initializers
    assert "stem" in plan.initializers


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)).flatmap(
        lambda shape: st.tuples(
            st.just(shape),
            *(
                st.tuples(st.sets(st.integers(0, n - 1), min_size=1), st.booleans(), st.booleans()).map(
                    lambda t: (tuple(sorted(t[0])), t[1], t[2])
                )
                for n in shape
            ),
        )
    )
)
def test_shrink_and_mask_element_by_element(drawn: tuple[tuple[int, ...], ...]) -> None:
    shape, *chosen = drawn
    axes = tuple(
        AxisPlan(axis=i, width=shape[i], keep=keep, masked=masked)  # type: ignore[arg-type, misc]
        for i, (keep, masked, planned) in enumerate(chosen)  # type: ignore[misc]
        if planned
    )
    plan = PruningPlan(families=(), initializers={"w": axes})
    weight = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    before = weight.copy()
    dropped = np.zeros(shape, bool)
    silent = np.zeros(shape, bool)
    for place in np.ndindex(*shape):
        lost = [a for a in axes if place[a.axis] in a.cut]
        dropped[place], silent[place] = bool(lost), any(a.masked for a in lost)
    np.testing.assert_array_equal(plan.shrink("w", weight).ravel(), weight[~dropped])
    np.testing.assert_array_equal(plan.mask("w", weight), np.where(silent, 0, weight))
    np.testing.assert_array_equal(weight, before)
    for untouched in (plan.shrink("other", weight), plan.mask("other", weight)):
        np.testing.assert_array_equal(untouched, weight)


def test_check_names_the_first_mismatch() -> None:
    plan = plan_from_cut(CHANNELS, {CHANNELS.families[0].units[0].label})
    shapes = {n: tuple(v.shape.numpy()) for n, v in CHANNELS.model.graph.initializers.items() if v.shape is not None}
    plan.check(shapes)
    plan.check({**shapes, "another": (3,)})
    for changed, said in (
        ({"block": (6, 7, 3, 3)}, r"cuts block along axis 1 of width 6, here its shape is \(6, 7, 3, 3\)"),
        ({"stem": (5, 3, 3, 3)}, "cuts stem along axis 0 of width 6"),
        ({"head": (2,)}, "cuts head along axis 1"),
    ):
        with pytest.raises(PlanError, match=said):
            plan.check({**shapes, **changed})
    with pytest.raises(PlanError, match="cuts block_bias, which this model lacks"):
        plan.check({n: s for n, s in shapes.items() if n != "block_bias"})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (net(width=8), "family stem is 8 wide in this model and 6 wide in the plan"),
        (net(narrow=5), "family narrow is 5 wide in this model and 4 wide in the plan"),
    ],
)
def test_the_plan_of_another_model(other: ChannelMap, said: str) -> None:
    with pytest.raises(PlanError, match=said) as caught:
        cut_of_plan(other, plan_from_cut(CHANNELS, ()))
    assert caught.value.hint == "use the plan of this model"


def test_a_plan_with_another_set_of_families() -> None:
    plan = plan_from_cut(CHANNELS, ())
    with pytest.raises(PlanError, match="family stem is 6 wide in this model and absent in the plan"):
        cut_of_plan(CHANNELS, dataclasses.replace(plan, families=plan.families[1:]))
    more = FamilyPlan(name="extra", width=2, keep=(0,))
    with pytest.raises(PlanError, match="has a family extra, which this model lacks"):
        cut_of_plan(CHANNELS, dataclasses.replace(plan, families=(*plan.families, more)))


def test_no_family_is_emptied() -> None:
    with pytest.raises(PlanError, match="family narrow would lose all its 4 channels"):
        plan_from_cut(CHANNELS, {u.label for u in CHANNELS.families[1].units})


def test_labels_that_are_no_units() -> None:
    pinned = next(iter(CHANNELS.pinned))
    for label in (pinned, 10**6):
        with pytest.raises(PlanError, match=rf"labels \[{label}\] are no units"):
            plan_from_cut(CHANNELS, {label})


def broken(**changes: object) -> str:
    data = json.loads(plan_from_cut(CHANNELS, {CHANNELS.families[0].units[0].label}).to_json())
    for path, value in changes.items():
        *way, last = path.split("__")
        place = data
        for key in way:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", r"\$"),
        ("{}", r"\$\.families: missing"),
        (b"\x80\x04\x95pickle", "not JSON"),
        (broken(schema=2), "plan schema 2, this edgeslim reads 1"),
        (broken(surprise=1), r"\$\.surprise: unknown key"),
        (broken(families__0__keep=[]), r"\$\.families\[0\]: family stem: kept indices must be ascending"),
        (broken(families__0__keep=[1, 1]), "ascending"),
        (broken(families__0__keep=[2, 1]), "ascending"),
        (broken(families__0__keep=[5, 6]), r"in \[0, 6\)"),
        (broken(families__0__keep=[-1, 2]), r"in \[0, 6\)"),
        (broken(families__0__keep=["0"]), r"\$\.families\[0\]\.keep\[0\]: str where int belongs"),
        (broken(initializers__stem=[{"axis": -1, "width": 6, "keep": [0], "masked": True}]), "axis -1"),
        (broken(initializers__stem=[{"axis": 0, "width": 6, "keep": [0], "masked": True}] * 2), "cut twice along one"),
        (broken(initializers__stem=[{"axis": 0}]), r"\$\.initializers\.stem\[0\]\.width: missing"),
    ],
)
def test_what_is_no_plan(text: str | bytes, said: str) -> None:
    with pytest.raises(PlanError, match=said) as caught:
        PruningPlan.from_json(text)
    assert caught.value.message.startswith("this is not a pruning plan: ")


def test_the_empty_cut_changes_nothing() -> None:
    plan = plan_from_cut(CHANNELS, ())
    assert plan.initializers == {}
    assert [f.keep for f in plan.families] == [tuple(range(f.width)) for f in CHANNELS.families]
    weight: NDArray[np.float32] = np.ones((6, 3, 3, 3), np.float32)
    assert plan.mask("stem", weight) is not weight
