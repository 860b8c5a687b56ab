"""What all sections of a configuration share."""

from __future__ import annotations

from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse(message: str) -> NoReturn:
    """Raise what pydantic collects: it would let the registry's `KeyError` through."""
    raise ValueError(message)


def without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`; refuse one that is listed twice."""
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        refuse(f"{', '.join(map(repr, repeated))} is listed more than once.")
    return names
