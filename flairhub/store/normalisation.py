"""Mean and standard deviation by modality as a file: `flairhub stats` writes it, training reads it.

Units are those in which training normalises: raw ones, decibels for Sentinel-1. Of elevation the
file has the altitudes; height and relief, the terrain minus its mean over the window, are measured
by `flairhub.preparation.statistics.compute_statistics`. Masks are left out: they are percentages,
and become shares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from flairhub.errors import ConfigError
from flairhub.modalities import MODALITIES, Kind, Modality, Statistics
from flairhub.store.statistics import decibel_channel, has_decibels

_FORMAT = "flairhub normalisation 1"
_LEAST_STD = 1e-3
"""A flat channel would divide by nothing."""


def normalisation(channels: pd.DataFrame, domains: Sequence[str], split: str) -> dict[str, Any]:
    """Return what the file holds.

    Parameters
    ----------
    channels
        Of `flairhub.store.statistics.read_statistics`, of one split.
    domains, split
        Where they come from, for the text that travels with a checkpoint.

    Returns
    -------
    dict
        Plain JSON: ``format``, ``domains``, ``split``, and ``modalities`` by key, each with
        ``channels``, ``units``, ``mean``, ``std``, ``count`` and ``source``. Modalities without
        a valid pixel in every band are left out.
    """
    found = {}
    for modality in MODALITIES.values():
        if modality.kind not in (Kind.IMAGE, Kind.ELEVATION, Kind.SERIES):
            continue
        rows = channels[channels["modality"] == modality.key].set_index("channel")
        names = [
            decibel_channel(name) if has_decibels(modality) else name
            for name in modality.band_names
        ]
        if not set(names) <= set(rows.index) or not rows.loc[names, "count"].all():
            continue
        counts = [int(n) for n in rows.loc[names, "count"]]
        found[modality.key] = {
            "channels": list(modality.band_names),
            "units": units(modality),
            "mean": [float(v) for v in rows.loc[names, "mean"]],
            "std": [max(float(v), _LEAST_STD) for v in rows.loc[names, "std"]],
            "count": counts,
            "source": f"measured on {', '.join(domains)}, split {split}, "
            f"{min(counts):,} pixels a channel",
        }
    return {"format": _FORMAT, "domains": list(domains), "split": split, "modalities": found}


def units(modality: Modality) -> str:
    """Return the units in which a modality is normalised."""
    return "dB" if has_decibels(modality) else modality.units


def read_normalisation(
    path: str | Path, channels: Mapping[str, Sequence[str]]
) -> dict[str, Statistics]:
    """Read a file of `normalisation`.

    Parameters
    ----------
    path
        JSON.
    channels
        Names of the wanted channels by modality, in order.

    Returns
    -------
    dict
        Statistics of these channels, for the modalities that the file has. Elevation is left out
        where a channel is made of its bands and the file does not have it.

    Raises
    ------
    ConfigError
        If the file cannot be read or is another, or lacks a channel of a modality that it has.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        msg = f"Cannot read the statistics {path}: {error}. `flairhub stats --out` writes them."
        raise ConfigError(msg) from error
    modalities = found.get("modalities") if isinstance(found, dict) else None
    if not isinstance(modalities, dict) or found.get("format") != _FORMAT:
        msg = f"{path} is no file of `flairhub stats --out` ({_FORMAT})."
        raise ConfigError(msg)
    return {
        key: _statistics(path, MODALITIES[key], modalities[key], names)
        for key, names in channels.items()
        if key in modalities and not _is_made(MODALITIES[key], modalities[key], names)
    }


def _is_made(modality: Modality, found: object, wanted: Sequence[str]) -> bool:
    """Return whether channels are wanted that are made of a file's bands."""
    known = found.get("channels") if isinstance(found, dict) else None
    made = set(wanted) - set(modality.band_names)
    given = set(map(str, known)) if isinstance(known, list) else set()
    return modality.kind is Kind.ELEVATION and not made <= given


class _Section(BaseModel):
    """What the file has of one modality."""

    channels: tuple[str, ...]
    units: str
    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    source: str = ""


def _statistics(
    path: str | Path, modality: Modality, found: object, wanted: Sequence[str]
) -> Statistics:
    try:
        section = _Section.model_validate(found)
        problem = _problem(section, modality, wanted)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if problem:
        msg = (
            f"{path}: statistics of {modality.key} do not fit this run: {problem}. Expected mean "
            f"and std of the channels {', '.join(wanted)}, in units {units(modality)!r}."
        )
        raise ConfigError(msg)
    at = [section.channels.index(name) for name in wanted]
    mean, std = (tuple(values[i] for i in at) for values in (section.mean, section.std))
    return Statistics(mean, std, section.source or str(path))


def _problem(section: _Section, modality: Modality, wanted: Sequence[str]) -> str:
    sizes = len(section.channels), len(section.mean), len(section.std)
    if len(set(sizes)) > 1:
        return "{} channels, {} means, {} deviations".format(*sizes)
    if missing := [name for name in wanted if name not in section.channels]:
        return f"{', '.join(missing)} is not among its channels {', '.join(section.channels)}"
    return "" if section.units == units(modality) else f"its units are {section.units!r}"
