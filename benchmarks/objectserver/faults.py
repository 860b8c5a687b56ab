"""Which requests go wrong, and how: decided by the request alone, so that a run can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

STATUSES = {
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "slow_down": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "403": (403, "ExpiredToken"),
    "404": (404, "NoSuchKey"),
}
"""Faults that are an answer without the object: its status, and the code in its XML body."""

KINDS = (
    *STATUSES,
    "timeout",  # no answer, and the connection stays open
    "cut",  # the connection is reset in the middle of the body
    "short",  # the connection is closed in order, before the promised length has come
    "fewer",  # length and body agree, but are less than the range that was asked for and is named
    "wrong_range",  # the bytes of another offset; Content-Range says so
    "wrong_bytes",  # the bytes of another offset; Content-Range says otherwise
    "whole",  # the range is ignored: status 200 and the whole object
    "changed",  # the object has been replaced: another ETag, other bytes of the same length
)
"""Everything that can go wrong with one request."""


@dataclass(frozen=True)
class Faults:
    """Shares of the requests that go wrong.

    Parameters
    ----------
    shares
        By one of `KINDS`, from 0 to 1 and at most 1 together. A fault that a request cannot have
        (no other range fits into the object) leaves it right.
    seed
        Of the choice. It depends on nothing else but key, range, and how often that range of that
        key has been asked for: neither on time nor on the order of different requests.
    only
        Part that a key must contain to be at risk; ``/c/`` is chunks without metadata.

    Raises
    ------
    ValueError
        If a kind does not exist or the shares are none.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    only: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be no share of anything."""
        unknown = sorted(set(self.shares) - set(KINDS))
        if unknown:
            msg = f"There is no fault {unknown[0]!r}; known: {', '.join(KINDS)}."
            raise ValueError(msg)
        if any(share < 0 for share in self.shares.values()) or sum(self.shares.values()) > 1:
            msg = f"Shares of faults are from 0 to 1, together too; got {dict(self.shares)}."
            raise ValueError(msg)

    def of(self, key: str, span: str, attempt: int) -> str | None:
        """Return what goes wrong with the `attempt`-th request for `span` of `key`, or None."""
        if not self.shares or self.only not in key:
            return None
        text = f"{self.seed} {attempt} {span} {key}".encode()
        drawn = int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64
        for kind, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return kind
        return None

    def plain(self) -> dict[str, Any]:
        """Return what JSON can hold; ``Faults(**plain)`` is the same again."""
        return asdict(self) | {"shares": dict(self.shares)}
