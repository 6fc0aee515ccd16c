"""What all sections of a recipe share: their strictness, the kinds of numbers in them, and how a mistake is told."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Size = tuple[PositiveInt, PositiveInt]


class Section(BaseModel):
    """Base of all recipe sections: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def mistake_in_words(problem: Any, path: str) -> str:
    """One of pydantic's errors for whoever wrote the file. path: of the mistake, as the file has it."""
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key"
    if problem["type"] == "missing":
        return f"{path}: missing"
    if problem["type"] == "union_tag_not_found":
        return f"{path}.name: missing"
    if problem["type"] == "union_tag_invalid":
        seen, known = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{path}.name: {seen!r} is not one of {known}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = problem["input"]
    seen = "" if isinstance(shown, (dict, list)) else f" (got {shown!r})"
    return f"{path}: {message}{seen}"
