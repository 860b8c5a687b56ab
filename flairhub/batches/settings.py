"""Settings that make no sense are refused where they are given, not when an epoch has begun."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from flairhub.errors import PlanError


def whole(name: str, value: Any, *, least: int) -> int:  # noqa: ANN401 - what a user gave
    """Return a whole number that is `least` or more.

    Raises
    ------
    PlanError
        If it is none; ``True`` counts as none.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    msg = f"{name} is a whole number of at least {least}, not {value!r}."
    raise PlanError(msg)


def torch_device(name: torch.device | str | None) -> torch.device | None:
    """Return the device of a name such as ``"cuda:0"``; None stays None.

    Raises
    ------
    PlanError
        If torch knows no such device, or this machine lacks it.
    """
    if name is None:
        return None
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        msg = f"device is 'cpu', 'cuda', 'cuda:1' or another device of torch, not {name!r}."
        raise PlanError(msg) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        msg = f"device={str(name)!r}: torch finds {torch.cuda.device_count()} GPUs here."
        raise PlanError(msg)
    return device
