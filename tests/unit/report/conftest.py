"""A report on made-up figures, rendered once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from edgeslim.bench.report.html import ReportData, render
from edgeslim.runtime import Certificate, LayerCoverage, Manifest, Sizes

from .planted import Page, bench, example, stage

MakeManifest = Callable[[], Manifest]


@pytest.fixture(scope="module")
def data(tiny_manifest: MakeManifest) -> ReportData:
    plain = tiny_manifest()
    compact = dataclasses.replace(
        plain,
        name="compact",
        metrics={"dice": 0.8092, "auc": 0.9754},
        sizes=Sizes(parameters=311_842, weight_bytes=1_247_368, macs=601_233_408, macs_shape=(1, 192, 256, 3)),
        certificate=Certificate(stages=(stage("compact torch"), stage())),
        coverage=(
            LayerCoverage(layer="stem.weight", operator="Conv", width_before=32, width_after=16, family="stem.weight"),
            LayerCoverage(layer="late.weight", operator="Conv", width_before=64, width_after=64, family="stem.weight"),
            LayerCoverage(layer="head.weight", operator="Gemm", width_before=2, width_after=2, reason="graph output"),
        ),
    )
    dense = dataclasses.replace(
        plain,
        name="dense",
        metrics={"dice": 0.8123, "auc": 0.9771},
        sizes=Sizes(parameters=1_862_690, weight_bytes=None, macs=3_456_789_012, macs_shape=(1, 192, 256, 3)),
        certificate=Certificate(stages=()),
        coverage=(),
    )
    return ReportData(
        name="vessels-unet",
        dense=dense,
        compact=compact,
        bench=bench(),
        stages={"dense": {"dice": 0.8201}, "round-1, just cut": {"dice": 0.7012}, "final": {"dice": 0.8172}},
        notes=("early stop: planted",),
        examples=(example(),),
        command="edgeslim compress recipes/planted.yaml --set a=b",
    )


@pytest.fixture(scope="module")
def report(data: ReportData) -> str:
    """The report of `data`; drawing takes a moment, so the tests share it."""
    return render(data)


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)
