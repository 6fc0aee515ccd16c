"""The real builder takes the pattern zoo: every way in which CNNs handle channels, in every precision.

What it does not take is in a table with TensorRT's reason. The table is wrong, and the test says so, when a net in it
is built and when a net that is not in it is refused.
"""

from __future__ import annotations

import pytest

from edgeslim.errors import EngineError

from ..zoo import blocks, patterns
from .typed_nets import EVERY_GPU, PRECISIONS, build_graph, typed_graphs

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgeslim[rtx]'")
pytestmark = pytest.mark.slow

ALL = patterns.EQUAL | patterns.DECLINED | blocks.EQUAL | blocks.DECLINED
IMAGES = [name for name, pattern in ALL.items() if len(pattern.shape) == 4]

_PRODUCT = "Turing (SM75): FP32 GEMM is not supported"
REFUSED: dict[tuple[str, str], str] = {
    (name, precision): _PRODUCT
    for name in (
        "einsum",
        "hard-coded flatten",
        "hard-coded view",
        "hidden width behind a layer norm",
        "join by a weighted product",
        "layer norm",
        "multi-head attention",
        "non-local block",
        "permute, flatten, linear",
        "positions as an image",
        "resnet bottleneck",
        "resnext bottleneck",
        "spatial attention",
        "spatial attention, head axis",
        "torch's multi-head attention",
        "vgg classifier",
    )
    for precision in ("fp32", "int8")
}
"""(pattern, precision) -> what TensorRT for RTX 1.7 says where SM 75 is among the targets. Without it all are built."""


def test_the_table_names_patterns_that_there_are() -> None:
    assert {name for name, _ in REFUSED} <= set(IMAGES)
    assert sorted(set(ALL) - set(IMAGES)) == ["1-D convolution", "3-D convolution"]


@pytest.mark.parametrize("name", IMAGES)
def test_every_precision_is_built_or_refused_as_listed(name: str) -> None:
    shape = ALL[name].shape
    for precision, graph in typed_graphs(ALL[name].build, shape).items():
        assert precision in PRECISIONS
        reason, targets = REFUSED.get((name, precision)), EVERY_GPU
        if reason is not None:
            with pytest.raises(EngineError) as raised:
                build_graph(graph, shape)
            assert reason in raised.value.message
            targets = EVERY_GPU[1:]
        made = build_graph(graph, shape, targets)
        assert len(made.engine) > 1000 and made.notes == ()
