"""What a plan is asked for: names looked up, numbers checked, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

from flairhub.batches.filters import CLOUDED, Filters, Period
from flairhub.errors import PlanError
from flairhub.modalities import Modality, get_label, get_modality


def names(what: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return names; one alone stands for itself. Raises `PlanError` where it is something else."""
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        msg = f"{what} must be a name or several names, not {given!r}."
        raise PlanError(msg)
    found = tuple(found)
    for name in found:
        if not isinstance(name, str):
            msg = f"{what} must be names; {name!r} is none."
            raise PlanError(msg)
    return found


def length(what: str, given: float) -> float:
    """Return a length, metres; raises `PlanError` where it is no number above 0."""
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 < given < float("inf"):
        msg = f"{what} must be a number of metres above 0, such as 102.4, not {given!r}."
        raise PlanError(msg)
    return float(given)


def seconds(what: str, given: float) -> float:
    """Return a time, seconds; raises `PlanError` where it is no number from 0 on."""
    if isinstance(given, bool) or not isinstance(given, Real) or not given >= 0:
        msg = f"{what} must be a number of seconds from 0 on, not {given!r}."
        raise PlanError(msg)
    return float(given)


def choose(
    modalities: Sequence[str], labels: Sequence[str], bands: Mapping[str, Sequence[str]] | None
) -> tuple[list[Modality], list[Modality], dict[str, tuple[str, ...]]]:
    """Return the modalities, the rasters of the labels (each once), and the bands that are read.

    Raises
    ------
    PlanError
        If a label is among the modalities, a name occurs twice, or bands are of none of them.
    UnknownNameError
        If a modality, band or class set does not exist.
    """
    chosen = [get_modality(name) for name in names("modalities", modalities)]
    for modality in chosen:
        if modality.is_label:
            msg = f"{modality.key} is a label raster: ask for labels={modality.nomenclatures}."
            raise PlanError(msg)
    sets = names("labels", labels)
    for several in ([m.key for m in chosen], sets):
        if len(set(several)) < len(several):
            msg = f"A plan reads everything once; {', '.join(several)} has a name twice."
            raise PlanError(msg)
    wanted = {
        get_modality(key).key: names(f"bands of {key}", several)
        for key, several in (bands or {}).items()
    }
    for key in wanted:
        if key not in [m.key for m in chosen]:
            msg = f"bands are given for {key!r}, which is not among the modalities."
            raise PlanError(msg)
    by_name = {m.key: wanted.get(m.key, m.band_names) for m in chosen}
    for modality in chosen:
        if not modality.band_indexes(by_name[modality.key]):
            msg = f"No band of {modality.key} is chosen; leave the key out for all of them."
            raise PlanError(msg)
    rasters = {get_label(key)[0].key: get_label(key)[0] for key in sets}
    return chosen, list(rasters.values()), by_name


def choose_filters(
    chosen: Sequence[Modality],
    dates: Mapping[str, Period] | None,
    max_cloud: float | None,
    classes: Mapping[str, Mapping[str, float]] | None,
) -> Filters:
    """Return the filters of a plan; masks and their series share dates.

    Raises
    ------
    PlanError
        If a filter is wrong in itself, or cuts a series that the plan does not read.
    """
    given = Filters(dict(dates or {}), max_cloud, dict(classes or {}))
    read = {m.group for m in chosen}
    periods: dict[str, Period] = {}
    for key in given.dates:
        modality = get_modality(key)
        group = modality.group if modality.temporal else modality.key
        if modality.temporal and group not in read:
            msg = f"dates are given for {key}, which is not among the modalities: nothing to cut."
            raise PlanError(msg)
        if group in periods and given.period(key) != Filters(periods).period(group):
            msg = f"dates of {key} and of {group} differ: masks have the dates of their series."
            raise PlanError(msg)
        periods[group] = given.dates[key]
    if max_cloud is not None and CLOUDED not in read:
        msg = f"max_cloud chooses dates of {CLOUDED}, which is not among the modalities."
        raise PlanError(msg)
    return Filters(periods, max_cloud, given.classes)


def cut(modalities: Iterable[Modality]) -> list[Modality]:
    """Return those that are cut in patches: windows lie on their pixels."""
    return [m for m in modalities if not m.is_area]
