"""ONNX files that are no usual nets: they are slimmed, copied or refused, and never an exception of somebody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeslim.errors import ConfigError, EdgeslimError, ExportError, UnsupportedGraphError
from edgeslim.exporter.foreign.feeds import open_session, run_session
from edgeslim.trainer.slim import SlimReport, slim_file

NET = """
<ir_version: 8, opset_import: ["" : {opset}]>
net ({inputs}) => ({outputs})
{{
  a = Conv (x, stem)
  {body}
}}
"""
IMAGE = "float[n, 3, 8, 8] x"
NUMBER = '<ir_version: 8, opset_import: ["" : 18]> net (float x) => (float y) { y = Neg (x) }'


def slimmed(
    folder: Path,
    body: str,
    *,
    inputs: str = IMAGE,
    outputs: str = "float[n, 8, h, w] b",
    opset: int = 18,
    **options: float,
) -> SlimReport:
    """What becomes of a convolution and `body`; a refusal must leave no file."""
    proto = onnx.parser.parse_model(NET.format(opset=opset, inputs=inputs, outputs=outputs, body=body))
    stem = np.random.default_rng(0).standard_normal((8, 3, 1, 1), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(stem, "stem"))
    return written(folder, proto, **options)


def written(folder: Path, proto: onnx.ModelProto, **options: float) -> SlimReport:
    onnx.save(proto, folder / "in.onnx")
    try:
        return slim_file(folder / "in.onnx", folder / "out.onnx", **options)  # type: ignore[arg-type]
    finally:
        assert len(list(folder.iterdir())) <= 2


@pytest.mark.parametrize("ratio", [None, 0.5])
def test_a_net_of_one_number(tmp_path: Path, ratio: float | None) -> None:
    proto = onnx.parser.parse_model(NUMBER)
    report = written(tmp_path, proto, **({} if ratio is None else {"ratio": ratio}))
    assert report.certificate.stages[0].inputs == "random: 1, 1"
    assert (tmp_path / "in.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


@pytest.mark.parametrize("options", [{}, {"ratio": 0.5}])
def test_weights_of_a_sub_graph_are_no_channels_of_the_graph(tmp_path: Path, options: dict[str, float]) -> None:
    """The branches own initializers; nobody else may look for them, score them or cut them."""
    body = """k = ReduceMax <keepdims = 0> (x)
      z = Constant <value = float {0}> ()
      c = Greater (k, z)
      b = If (c) <then_branch = t () => (float[n, 8, h, w] p)
                    <float[8, 1, 1] shift = {1., 2., 3., 4., 5., 6., 7., 8.}> { p = Add (a, shift) },
                  else_branch = e () => (float[n, 8, h, w] q) { q = Identity (a) }>"""
    report = slimmed(tmp_path, body, **options)
    assert report.dead == report.cut == 0 and "no rule" in (report.coverage[0].reason or "")


def test_outputs_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no numbers"):
        slimmed(tmp_path, "b = Cast <to = 8> (a)", outputs="string[n, 8, h, w] b")


def test_a_sequence_counts_as_its_elements(tmp_path: Path) -> None:
    report = slimmed(tmp_path, "b = SplitToSequence <axis = 1> (a)", outputs="seq(float[n, k, h, w]) b")
    (stage,) = report.certificate.stages
    assert stage.passed and stage.atol > 0


def test_an_old_file_that_only_runs_converted_is_copied(tmp_path: Path) -> None:
    """ONNX Runtime has no AveragePool as it stood before opset 7; there is nothing to take out of this net."""
    body = "b = AveragePool <kernel_shape = [2, 2]> (a)"
    report = slimmed(tmp_path, body, opset=6)
    (stage,) = report.certificate.stages
    assert (stage.name, stage.reference) == ("written file", "in.onnx as given")
    assert (tmp_path / "in.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_a_refusal_of_the_runtime_says_what_is_wrong_and_not_where_in_its_sources() -> None:
    proto = onnx.parser.parse_model(NUMBER)
    proto.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(ExportError, match=r"refuses the net: Unsupported model IR version: \d+"):
        open_session(proto.SerializeToString(), "the net")


def test_a_net_that_only_some_inputs_survive() -> None:
    """An index that is computed from the image may point outside."""
    text = """<ir_version: 8, opset_import: ["" : 18]> net (int64[1] x) => (float[1] y)
    <float[4] table = {0., 1., 2., 3.}> { y = Gather (table, x) }"""
    session = open_session(onnx.parser.parse_model(text).SerializeToString(), "the net")
    assert run_session(session, None, {"x": np.array([2])}, "the net")[0] == [2.0]
    with pytest.raises(ExportError, match=r"the net does not run on an input of shape \(1,\)"):
        run_session(session, None, {"x": np.array([9])}, "the net")


@pytest.mark.parametrize("kind", [onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING])
def test_an_input_that_holds_no_numbers(tmp_path: Path, kind: int) -> None:
    proto = onnx.parser.parse_model(NUMBER)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.elem_type = kind
    with pytest.raises(UnsupportedGraphError, match=r"in\.onnx"):
        written(tmp_path, proto)


@pytest.mark.parametrize("body", ["a = Conv (x, stem)", "m = Sub (x, mean)\n a = Conv (m, stem)"])
def test_an_input_whose_channels_the_file_leaves_open(tmp_path: Path, body: str) -> None:
    """The first convolution says how many there are."""
    text = NET.replace("a = Conv (x, stem)\n", "")
    proto = onnx.parser.parse_model(
        text.format(
            opset=18, inputs="float[n, c, h, w] x", outputs="float[n, k, h, w] b", body=body + "\n b = Relu (a)"
        )
    )
    arrays = {"stem": np.ones((8, 5, 1, 1), np.float32), "mean": np.ones((5, 1, 1), np.float32)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    assert "x 5x64x96" in written(tmp_path, proto).certificate.stages[0].inputs


# --- where to ---------------------------------------------------------------------------------------------------------


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.onnx")
    with pytest.raises(ConfigError, match="not a file"):
        slim_file(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert stat.S_ISFIFO((tmp_path / "out.onnx").stat().st_mode)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(NUMBER), tmp_path / "in.onnx")
    with pytest.raises(ExportError, match=r"out\.onnx cannot be written"):
        slim_file(tmp_path / "in.onnx", tmp_path / "in.onnx" / "out.onnx")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_net_whose_constants_were_rewritten_before_is_cut_again(tmp_path: Path) -> None:
    """Sizes of a Split change when the dead leave, and change again with the ratio."""
    body = """p, q = Split <axis = 1> (a, sizes)
      c = Relu (p)
      d = Conv (c, left)
      e = Conv (q, right)
      b = Add (d, e)"""
    proto = onnx.parser.parse_model(NET.format(opset=18, inputs=IMAGE, outputs="float[n, 4, h, w] b", body=body))
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((8, 3, 1, 1), np.float32) for name in ("stem",)}
    weights |= {name: rng.standard_normal((4, n, 1, 1), np.float32) for name, n in (("left", 5), ("right", 3))}
    weights["stem"][[1, 6]] = 0
    weights["sizes"] = np.array([5, 3])
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    report = written(tmp_path, proto, ratio=0.5)
    assert report.dead == 2 and report.cut == 3
    assert len(set(t.name for t in onnx.load(tmp_path / "out.onnx").graph.initializer)) == 4


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid (a)\n c = Conv (s, head)\n b = Slice (c, one, many, one, two)",
        "s = Sigmoid (a)\n c = Conv (s, head)\n d = Reshape (c, apart)\n"
        "e = Transpose <perm = [0, 2, 1, 3, 4]> (d)\n b = Reshape (e, whole)",
    ],
)
def test_outputs_keep_their_names(tmp_path: Path, body: str) -> None:
    """Also where the operator that makes an output is written as another one."""
    proto = onnx.parser.parse_model(
        NET.format(opset=18, inputs="float[2, 3, 8, 8] x", outputs="float[2, k, 8, 8] b", body=body)
    )
    rng = np.random.default_rng(0)
    stem = rng.standard_normal((8, 3, 1, 1), np.float32)
    stem[[1, 6]] = 0
    weights = {"stem": stem, "head": rng.standard_normal((6, 8, 1, 1), np.float32)}
    weights |= {"one": np.array([1]), "two": np.array([2]), "many": np.array([9])}
    weights |= {"apart": np.array([2, 2, 3, 8, 8]), "whole": np.array([2, 6, 8, 8])}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    assert written(tmp_path, proto).dead == 2
    assert [v.name for v in onnx.load(tmp_path / "out.onnx").graph.output] == ["b"]


def test_names_of_the_file_are_not_taken_twice(tmp_path: Path) -> None:
    """The names that folding would choose are those of a node's output and of initializers already."""
    body = """s = Sigmoid (a)
      y = Conv (s, head)
      t = Sigmoid (y)
      p = GlobalAveragePool (t)
      f = Flatten (p)
      m = MatMul (f, last)
      taken = Sum (m, other)
      b = Relu (taken)"""
    proto = onnx.parser.parse_model(NET.format(opset=18, inputs=IMAGE, outputs="float[n, 5] b", body=body))
    rng = np.random.default_rng(0)
    shapes = {"stem": (8, 3, 1, 1), "head": (6, 8, 1, 1), "last": (6, 5), "m/folded": (5,)}
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    weights["stem"][[1, 6]] = 0
    weights["head"][2] = 0
    weights["y/folded_bias"] = np.ones(5, np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    renamed = {"other": "m/folded", "taken": "m/product"}
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    assert written(tmp_path, proto).dead == 3


def test_a_slice_that_is_none_is_refused(tmp_path: Path) -> None:
    for starts, steps in (([0], [0]), ([0, 1], [2])):
        proto = onnx.parser.parse_model(
            NET.format(opset=18, inputs=IMAGE, outputs="float[n, k, h, w] b", body="b = Slice (a, s, s, o, t)")
        )
        arrays = {
            "stem": np.ones((8, 3, 1, 1), np.float32),
            "s": np.array(starts),
            "t": np.array(steps),
            "o": np.ones(1, np.int64),
        }
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
        with pytest.raises(EdgeslimError, match=r"in\.onnx"):
            written(tmp_path, proto)
