"""Asking a store once or again, and what its errors mean; none leaves with a URL's secrets.

The words of the libraries below hold whole URLs, with user, password and query, and go on for
pages: every failure becomes one `ReadError` of a line or two.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from zarr.core.sync import sync

from flairhub.errors import FlairHubError, ReadError

T = TypeVar("T")

_SECRETS = re.compile(r"(?<=://)[^/\s]*@|[?#]\S*")
_REFUSED = re.compile(r"status code: (?!408|429)4\d\d|status code: 501|builder error")
"""Answers that do not change when one asks again."""


def ask(where: str, request: Callable[[], Coroutine[Any, Any, T]], *, retry_s: float = 0.0) -> T:
    """Return what a store answers.

    Parameters
    ----------
    where
        The place for messages, without secrets.
    request
        Asks once.
    retry_s
        Seconds for which storage that fails is asked again, beyond what obstore does by itself.

    Raises
    ------
    ReadError
        If there is no answer but an error.
    """
    try:
        return sync(_persist(request, retry_s))
    except FlairHubError:
        raise
    except Exception as error:  # obstore, fsspec and its parts each have errors of their own
        # neither as cause nor in a traceback: the words below hold whole URLs
        raise ReadError(_failure(where, error, retry_s)) from None


async def _persist(request: Callable[[], Coroutine[Any, Any, T]], retry_s: float) -> T:
    from flairhub.store.ranges import ATTEMPT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S

    ends, pause = time.monotonic() + retry_s, FIRST_PAUSE_S
    while True:
        # a table of many megabytes takes its time: an attempt may use all that is left
        limit = max(ends - time.monotonic(), ATTEMPT_S) if retry_s else None
        try:
            async with asyncio.timeout(limit):
                return await request()
        except Exception as error:
            wait = random.uniform(pause / 2, pause)
            if not may_pass(error) or time.monotonic() + wait > ends:
                raise
        pause = min(2 * pause, LONGEST_PAUSE_S)
        await asyncio.sleep(wait)


def _failure(where: str, error: Exception, retry_s: float) -> str:
    reason = storage_reason(error)
    if may_pass(error) and retry_s:
        return (
            f"{where} could not be read within {retry_s:g} s ({reason}): the storage or the way to "
            "it is failing; a larger retry_s waits longer."
        )
    return f"{where} cannot be read: {reason}."


def may_pass(error: BaseException) -> bool:
    """Whether asking a storage again may help: its answer is no refusal."""
    from obstore.exceptions import BaseError, GenericError

    if isinstance(error, BaseError):
        return type(error) is GenericError and not _REFUSED.search(str(error))
    return isinstance(error, ConnectionError | TimeoutError)


def is_storage_error(error: BaseException) -> bool:
    """Tell errors of disks and of object storage from faults of a program."""
    from obstore.exceptions import BaseError

    return isinstance(error, OSError | BaseError)


def storage_reason(error: BaseException) -> str:
    """Return in a line what went wrong: of object storage's answer, its code and its words."""
    text = str(error).strip() or ("no answer in time" if isinstance(error, TimeoutError) else "")
    line = re.split(r"\n|<[?!a-z]", text, maxsplit=1)[0].rstrip(".: ")
    told = [re.search(f"<{tag}>([^<]+)</{tag}>", text) for tag in ("Code", "Message")]
    whole = [line or type(error).__name__, *(found[1].rstrip(".") for found in told if found)]
    return without_secrets(": ".join(whole))


def without_secrets(text: str) -> str:
    """Return a URL, or words with URLs, without user, password, query and fragment."""
    return _SECRETS.sub("", text)
