"""Every error the project raises on purpose, as one tree.

Each class also derives from the built-in it resembles, so that ``except KeyError`` keeps working.
A message says what was found, what was expected, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 40


class FlairHubError(Exception):
    """Base of all errors raised on purpose; the command line turns it into exit code 1."""

    def __str__(self) -> str:
        """Return the plain message (``KeyError`` would print its repr)."""
        return str(self.args[0]) if self.args else ""


class InvalidIdError(FlairHubError, ValueError):
    """A domain, ROI or patch id does not follow the grammar of FLAIR-HUB."""


class GridError(FlairHubError, ValueError):
    """Grids do not nest, or a window leaves its grid."""


class UnknownNameError(FlairHubError, KeyError):
    """A modality, band, class set or other registered name does not exist."""


class SourceDataError(FlairHubError, ValueError):
    """A raw file is missing, damaged, or not what the registry says it is."""


class ConversionError(FlairHubError, RuntimeError):
    """A conversion cannot go on: the target cannot be written, or another one is at work there."""


class StoreLayoutError(FlairHubError, ValueError):
    """A store is not laid out as :mod:`flairhub.store.layout` says."""


class NotInStoreError(FlairHubError, FileNotFoundError):
    """A store, domain, ROI or table does not exist at the given URL."""


class ReadError(FlairHubError, OSError):
    """Pixels that a store lists cannot be fetched or decoded."""


class PlanError(FlairHubError, ValueError):
    """A patch plan asks for something that the store or the grids cannot give."""


class ConfigError(FlairHubError, ValueError):
    """A run configuration has an unknown key or a bad value."""


class CatalogError(FlairHubError, ValueError):
    """A catalogue cannot be written where it was asked for."""


class CheckpointError(FlairHubError, ValueError):
    """A checkpoint does not fit the model, or is not one of ours."""


class WeightsSourceError(FlairHubError, OSError):
    """Published weights cannot be found, fetched or trusted."""


class ExportError(FlairHubError, RuntimeError):
    """A network cannot be written for other programs, or gives other scores there."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest known spellings, or lists what is known.

    Names that begin with the unknown one come first; a list ends after 40 names.

    Parameters
    ----------
    name
        What the user wrote.
    known
        The names that would have been accepted.

    Returns
    -------
    str
        For example ``"Did you mean 'dem_elev'?"`` or ``"Known: a, b, c."``.
    """
    names = list(known)
    longer = [one for one in names if len(name) > 2 and one.startswith(name)]
    near = list(dict.fromkeys([*longer[:3], *get_close_matches(name, names, n=3, cutoff=0.6)]))[:3]
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return "Known: " + ", ".join(names[:_LISTED]) + more + "."
