"""Statistics of pixels from the table ``statistics``, merged over ROIs and domains.

Conversion keeps, of each ROI, channel and split, counts, sums and a histogram. The bin of a value
is the upper 16 bits of its IEEE float32 pattern: sign, exponent and 7 bits of the fraction. So
integers to 256 have a bin each, and any other bin is at most 1/128 of its value wide. Everything
adds up: moments, extremes and shares are exact, in whatever order ROIs are merged, and percentiles
are off by less than the width of a bin (0.8 %), and not at all for 8-bit integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flairhub.errors import NotInStoreError, did_you_mean
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, Modality
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store.access import Location, Source, resolve
from flairhub.store.layout import table_name
from flairhub.store.tables import domain_of, list_domains, read_table

HEIGHT = "height"
"""Channel of elevation: surface minus terrain, metres."""

ALL_SPLITS = "all"
"""In place of a split: the pixels of every split together."""

PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)
"""What `read_statistics` gives, in columns such as ``p25``."""

_BINS = 2**16
_SIGN = 2**15
_LARGEST = float(np.finfo(np.float32).max)


def has_decibels(modality: Modality) -> bool:
    """Return whether a modality is also measured in decibels, as training sees it."""
    return modality.key.startswith("sentinel1")


def decibel_channel(band: str) -> str:
    """Return the channel that holds a Sentinel-1 band in decibels: ``vv_db`` of ``VV``."""
    return f"{band.lower()}_db"


def bins_of(values: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the bin of each value in the histograms of the table."""
    return np.asarray(values, np.float32).view(np.uint32) >> np.uint32(16)


def read_statistics(
    root: Source, domains: Sequence[str] | None = None, split: str | None = None
) -> pd.DataFrame:
    """Return what the pixels of each channel are like, from tables alone.

    Parameters
    ----------
    root
        Folder of stores, or one store.
    domains
        Only these, such as ``D012-2019``; all of the folder when absent.
    split
        ``train``, ``valid``, ``test``; ``all`` for all pixels together; each apart when absent.

    Returns
    -------
    pandas.DataFrame
        A row a modality, channel and split, classes left out: ``modality``, ``channel``, ``split``,
        ``pixels``, ``count`` (valid ones), ``nodata_share``, ``mean``, ``std``, ``minimum``,
        ``maximum``, ``p1`` ... ``p99``; NaN where no pixel is valid.

    Raises
    ------
    NotInStoreError
        If there is no such domain or split, or the domain was converted before statistics were.
    """
    return summarise_channels(read_rows(root, domains, split))


def read_class_counts(
    root: Source, domains: Sequence[str] | None = None, split: str | None = None
) -> pd.DataFrame:
    """Return how many labelled pixels each class has; parameters and errors of `read_statistics`.

    Returns
    -------
    pandas.DataFrame
        A row a class set, split and class: ``modality``, ``nomenclature``, ``split``, ``code``,
        ``name``, ``pixels``, ``share`` (of the set's pixels in the split).
    """
    return count_classes(read_rows(root, domains, split))


def read_rows(
    root: Source, domains: Sequence[str] | None = None, split: str | None = None
) -> pd.DataFrame:
    """Return the rows of the tables as they are, with their ``domain``; see `read_statistics`."""
    location = resolve(root)
    if location.name.endswith(".zarr"):
        wanted = [domain_of(location)]
        location = location.parent
    elif domains:
        wanted = [DomainId.parse(name) for name in domains]
    else:
        wanted = list_domains(location)
    if not wanted:
        msg = f"{location} holds no complete domain; `flairhub convert` makes some."
        raise NotInStoreError(msg)
    parts = [_read_domain(location, domain).assign(domain=str(domain)) for domain in wanted]
    rows = pd.concat(parts, ignore_index=True)
    if split == ALL_SPLITS:
        return rows.assign(split=ALL_SPLITS)
    if split is not None:
        known = sorted(set(rows["split"]) - {""})
        if split not in known:
            msg = f"{location} has no pixels of split {split!r}. {did_you_mean(split, known)}"
            raise NotInStoreError(msg)
        rows = rows[rows["split"] == split]
    return rows


def summarise_channels(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge rows of the table; see `read_statistics`."""
    names = ["modality", "channel", "split"]
    merged = [
        {**dict(zip(names, key, strict=True)), **_merge(MODALITIES[key[0]], part)}
        for key, part in _grouped(rows)
        if not MODALITIES[key[0]].is_label
    ]
    columns = ["pixels", "count", "nodata_share", "mean", "std", "minimum", "maximum"]
    return pd.DataFrame(merged, columns=[*names, *columns, *(f"p{p}" for p in PERCENTILES)])


def count_classes(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge rows of the table; see `read_class_counts`."""
    found = []
    for (modality, key, split), part in _grouped(rows):
        if not MODALITIES[modality].is_label:
            continue
        classes = NOMENCLATURES[key]
        pixels = _histogram(part)[bins_of(range(len(classes)))].tolist()
        total = sum(pixels)
        found += [
            (modality, key, split, code, name, n, n / total if total else math.nan)
            for code, (name, n) in enumerate(zip(classes.names, pixels, strict=True))
        ]
    columns = ["modality", "nomenclature", "split", "code", "name", "pixels", "share"]
    return pd.DataFrame(found, columns=columns)


def _read_domain(root: Location, domain: DomainId) -> pd.DataFrame:
    try:
        return read_table(root, domain, "statistics")
    except NotInStoreError:
        if not (root / table_name(domain, "rois")).exists():
            raise
        msg = (
            f"{domain} in {root} has no statistics: it was converted before they were taken. "
            "Run `flairhub convert` again on its raw files."
        )
        raise NotInStoreError(msg) from None


def _grouped(rows: pd.DataFrame) -> Iterable[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Yield the rows of each modality, channel and split: in the registry's order, as converted."""
    names = ["modality", "channel", "split"]
    groups = {(str(m), str(c), str(s)): part for (m, c, s), part in rows.groupby(names, sort=False)}
    first = list(groups)
    order = list(MODALITIES)
    channels: dict[tuple[str, str], int] = {}
    for modality, channel, _ in first:
        channels.setdefault((modality, channel), len(channels))
    for key in sorted(first, key=lambda k: (order.index(k[0]), channels[k[:2]], k[2])):
        yield key, groups[key]


def _histogram(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    histogram = np.zeros(_BINS, np.int64)
    for bins, counts in zip(rows["bins"], rows["counts"], strict=True):
        histogram[np.asarray(bins, np.intp)] += np.asarray(counts, np.int64)
    return histogram


def _merge(modality: Modality, rows: pd.DataFrame) -> dict[str, Any]:
    pixels, count = int(rows["pixels"].sum()), int(rows["count"].sum())
    found = {
        "pixels": pixels,
        "count": count,
        "nodata_share": (pixels - count) / pixels if pixels else math.nan,
    }
    if not count:
        return found
    valid = rows[rows["count"] > 0]
    low, high = float(valid["minimum"].min()), float(valid["maximum"].max())
    # fractions: the same sum in any order, and a variance that does not cancel
    total, squares = (
        sum((Fraction(v) for v in valid[name].tolist()), Fraction())
        for name in ("sum", "sum_of_squares")
    )
    variance = float(squares / count - (total / count) ** 2)
    values = percentiles(
        _histogram(valid), PERCENTILES, low, high, whole=modality.numpy_dtype.kind in "ui"
    )
    return {
        **found,
        "mean": float(total / count),
        "std": math.sqrt(max(0.0, variance)) if low < high else 0.0,
        "minimum": low,
        "maximum": high,
        **{f"p{p}": value for p, value in zip(PERCENTILES, values.tolist(), strict=True)},
    }


def percentiles(
    histogram: npt.NDArray[np.int64],
    wanted: Sequence[float],
    low: float,
    high: float,
    *,
    whole: bool,
) -> npt.NDArray[np.float64]:
    """Return percentiles of the values in a histogram, as ``numpy.percentile`` defines them.

    Values are taken to be spread evenly over their bin. What is found is less than the width of a
    bin from the truth, 1/128 of the value, and exact where each bin holds one value.

    Parameters
    ----------
    histogram
        ``(65536,)`` counts by bin; not empty.
    wanted
        In percent.
    low, high
        Least and largest value.
    whole
        Whether the values are integers.
    """
    bins, first, last = _in_order(histogram, whole=whole)
    counts = histogram[bins]
    before = np.cumsum(counts) - counts
    ranks = np.asarray(wanted, np.float64) / 100 * (counts.sum() - 1)

    def value(rank: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        at = np.searchsorted(before, rank, side="right") - 1
        inside = (rank - before[at] + 0.5) / counts[at]
        found: npt.NDArray[np.float64] = first[at] + inside * (last[at] - first[at])
        return found.clip(low, high)

    below, above = value(np.floor(ranks)), value(np.ceil(ranks))
    between: npt.NDArray[np.float64] = below + (ranks - np.floor(ranks)) * (above - below)
    return between


def _in_order(
    histogram: npt.NDArray[np.int64], *, whole: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the bins that are not empty by rising value, with the ends of each."""
    bins = np.flatnonzero(histogram)
    negative = bins >= _SIGN
    bins = np.concatenate([bins[negative][::-1], bins[~negative]])
    near = (bins.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    ends = bins.astype(np.uint32) + np.uint32(1)  # away from zero, of the same sign
    far = (ends << np.uint32(16)).view(np.float32).astype(np.float64)
    far = far.clip(-_LARGEST, _LARGEST)  # the last bin ends at infinity
    first, last = np.minimum(near, far), np.maximum(near, far)
    if whole:  # the least and the largest integer in the bin
        first, last = np.ceil(first), np.ceil(last) - 1
    return bins, first, last
