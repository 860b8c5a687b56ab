"""Whatever holds a network, by one name: an id, weights, and what higher packages know to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flairhub.errors import ConfigError

if TYPE_CHECKING:  # what registers an opener need not load torch
    from torch import nn

    from flairhub.models.signatures import Signature


class Opened(NamedTuple):
    """A network in evaluation mode and what it takes.

    Attributes
    ----------
    network
        On the device ``meta`` where there are no weights.
    signature
        Of its inputs, at the sizes that it is used with.
    """

    network: nn.Module
    signature: Signature


Opener = Callable[[Path], Opened | None]
"""Opens a file that exists; None for one that is something else."""

OPENERS: dict[str, Opener] = {}
"""What packages that import this one add, by name: `flairhub.training` its checkpoints."""


def open_model(source: str, *, encoder: str | None = None) -> Opened:
    """Open a network.

    Parameters
    ----------
    source
        What `flairhub.models.load` takes, or a file that one of `OPENERS` does.
    encoder
        Of the images of weights of IGN's form that do not tell it.

    Raises
    ------
    ConfigError
        If an encoder is given for a file that tells its own.
    FlairHubError
        If it cannot be opened; see `flairhub.models.load`.
    """
    if Path(source).is_file():
        for opener in OPENERS.values():
            if (found := opener(Path(source))) is None:
                continue
            if encoder is not None:
                msg = f"{source} tells its encoder; {encoder!r} cannot take its place."
                raise ConfigError(msg)
            return found
    from flairhub.models.loading import load
    from flairhub.models.signatures import signature_of

    options: dict[str, Any] = {} if encoder is None else {"encoder": encoder}
    network = load(source, **options).model
    return Opened(network, signature_of(network))
