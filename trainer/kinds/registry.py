"""The recipe's data decides the kind of task."""

from __future__ import annotations

from ..data import ClassificationData, ReportProgress, SegmentationData, build_data
from ..ranks import ALONE, Ranks
from ..recipe import Recipe
from .classification import Classification
from .protocol import Kind
from .segmentation import Segmentation


def build_kind(recipe: Recipe, report: ReportProgress, ranks: Ranks = ALONE) -> Kind:
    """Read a recipe's data, for one of the ranks that train together; `report` hears of every file.

    Raises DataError naming the file or folder that does not fit.
    """
    data = build_data(recipe.data, recipe.seed, report)
    if isinstance(data, SegmentationData):
        return Segmentation(recipe=recipe, data=data, ranks=ranks)
    if isinstance(data, ClassificationData):
        return Classification(recipe=recipe, data=data, ranks=ranks)
