"""One table from operator name to its rule."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgeslim.errors import InvariantError

from ..context import Channels

Rule = Callable[[ir.Node, Channels], "str | None"]
"""Move the labels of a node's inputs to its outputs; a rule that declines returns why."""

RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these ONNX operators (default domain)."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in RULES:
                raise InvariantError(f"two rules for {operator}")
            RULES[operator] = function
        return function

    return register
