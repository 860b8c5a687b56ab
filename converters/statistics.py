"""Statistics of pixels, taken while they are in memory for conversion anyway.

Each band of each modality has one histogram a split. Integers are counted one by one, which gives
every other figure exactly; of floating-point numbers the upper 16 bits are counted, and moments and
extremes taken beside. A patch of FLAIR-HUB costs a few milliseconds: bytes are counted two at a
time, and a histogram is never longer than what is in the pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flairhub.modalities import MODALITIES, Kind, Modality
from flairhub.store.statistics import HEIGHT, bins_of, decibel_channel, has_decibels

Values = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

_BINS = 2**16
_NOT_FINITE = 0x7F80
"""First bin of infinity and NaN; with the sign bit, of their negatives."""
_BLOCK = 8192
"""Numbers summed at once: they stay in the cache, and BLAS starts no threads for so few."""
_MANY = 2**15
"""Numbers from which it pays to count two at a time."""

_SCHEMA = pa.schema(
    [
        ("roi", pa.string()),
        ("modality", pa.string()),
        ("channel", pa.string()),
        ("split", pa.string()),
        ("pixels", pa.int64()),
        ("nodata", pa.int64()),
        ("count", pa.int64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("sum", pa.float64()),
        ("sum_of_squares", pa.float64()),
        ("bins", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int64())),
    ]
)


class PixelStatistics:
    """Statistics of the patches of a ROI, one row a modality, channel and split.

    Channels are the bands, for labels the class sets; beside them Sentinel-1 in decibels
    (``vv_db``, ``vh_db``), where no signal does not count, and ``height``, surface minus terrain.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], _Integers | _Floats] = {}

    def add(self, modality: Modality, pixels: npt.NDArray[Any], split: str | None) -> None:
        """Count the pixels of a patch.

        Parameters
        ----------
        modality
            Whose pixels they are.
        pixels
            ``(dates, bands, y, x)``, in the modality's dtype.
        split
            ``train``, ``valid``, ``test``; None where it is unknown.
        """
        for number, (channel, values) in enumerate(_channels(modality, pixels)):
            key = (modality.key, channel, split or "")
            if not values.size:
                continue
            if key not in self._found:
                kind = _Floats if values.dtype.kind == "f" else _Integers
                self._found[key] = kind(modality, number)
            self._found[key].add(values)

    def add_classes(
        self, modality: Modality, counts: Mapping[str, Counts], split: str | None
    ) -> None:
        """Add the counts of a patch's classes, by class set, that `count_classes` found."""
        for number, channel in enumerate(modality.nomenclatures):
            key = (modality.key, channel, split or "")
            found = self._found.setdefault(key, _Integers(modality, number))
            assert isinstance(found, _Integers)
            found.add_counts(counts[channel])

    def rows(self, roi: str) -> list[dict[str, Any]]:
        """Return plain JSON values, one dict a row of the table ``statistics``.

        Parameters
        ----------
        roi
            Value of that column.

        Returns
        -------
        list of dict
            ``roi, modality, channel, split``; ``pixels`` (all), ``nodata`` (not finite, or the
            registry's nodata) and ``count`` (the others); of these ``minimum``, ``maximum``,
            ``sum``, ``sum_of_squares`` (None for classes and where there are none), and the
            histogram ``bins``, ``counts``: see `flairhub.store.statistics.bins_of`.
        """
        order = list(MODALITIES)
        keys = sorted(self._found, key=lambda k: (order.index(k[0]), self._found[k].number, k[2]))
        names = ("modality", "channel", "split")
        return [
            {"roi": roi, **dict(zip(names, key, strict=True)), **self._found[key].row()}
            for key in keys
        ]


def count_classes(values: npt.NDArray[Any]) -> Counts:
    """Return how often each byte occurs, shape ``(256,)``."""
    flat = np.ascontiguousarray(values).ravel()
    if _in_pairs(flat):
        return _unpaired(np.bincount(flat.view(np.uint16), minlength=_BINS))
    return np.bincount(flat, minlength=256)


def statistics_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows of `PixelStatistics` as a table whose types do not depend on them."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA)


def _channels(modality: Modality, pixels: npt.NDArray[Any]) -> Iterator[tuple[str, Values]]:
    """Yield the pixels of each channel, one after the other in memory."""
    names: Sequence[str] = modality.nomenclatures or modality.band_names
    dtype = modality.numpy_dtype
    bands = {n: np.ascontiguousarray(pixels[:, i], dtype).ravel() for i, n in enumerate(names)}
    if modality.nodata is not None and dtype.kind == "f":
        missing = modality.nodata
        bands = {n: np.where(v == missing, np.float32(np.nan), v) for n, v in bands.items()}
    yield from bands.items()
    if has_decibels(modality):
        for name, values in bands.items():
            yield decibel_channel(name), _decibels(values)
    if modality.kind is Kind.ELEVATION and {"dsm", "dtm"} <= bands.keys():
        yield HEIGHT, _difference(bands["dsm"], bands["dtm"])


def _decibels(power: Values) -> Values:
    """Return decibels; no signal is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Values = 10 * np.log10(power)
    return found


def _difference(upper: Values, lower: Values) -> Values:
    with np.errstate(invalid="ignore"):
        found: Values = upper - lower
    return found


class _Integers:
    """Every value of an unsigned channel, counted."""

    def __init__(self, modality: Modality, number: int) -> None:
        self.modality = modality
        self.number = number
        self.counts = np.zeros(np.iinfo(modality.dtype).max + 1, np.int64)
        self.pairs = np.zeros(_BINS, np.int64)

    def add(self, values: Values) -> None:
        if _in_pairs(values):
            found = np.bincount(values.view(np.uint16))
            self.pairs[: len(found)] += found
            return
        first = int(values.min())
        found = np.bincount(values - values.dtype.type(first))
        self.counts[first : first + len(found)] += found

    def add_counts(self, counts: Counts) -> None:
        self.counts[: len(counts)] += counts

    def row(self) -> dict[str, Any]:
        counts = self.counts.copy()
        counts[:256] += _unpaired(self.pairs)
        pixels = int(counts.sum())
        if self.modality.nodata is not None:
            counts[int(self.modality.nodata)] = 0
        there = np.flatnonzero(counts)
        found = counts[there]  # 64 bits hold the squares of 2**31 numbers of 16
        valid = int(counts.sum())
        histogram = np.zeros(_BINS, np.int64)
        np.add.at(histogram, bins_of(there), counts[there])
        # the mean of class numbers means nothing
        measured = bool(valid) and not self.modality.is_label
        return {
            "pixels": pixels,
            "nodata": pixels - valid,
            "count": valid,
            "minimum": float(there[0]) if measured else None,
            "maximum": float(there[-1]) if measured else None,
            "sum": float((there * found).sum()) if measured else None,
            "sum_of_squares": float((there * there * found).sum()) if measured else None,
            **_sparse(histogram),
        }


class _Floats:
    """Histogram, moments and extremes of a float32 channel."""

    def __init__(self, _: Modality, number: int) -> None:
        self.number = number
        self.histogram = np.zeros(_BINS, np.int64)
        self.shift = 0.0
        self.sum = self.sum_of_squares = 0.0
        self.minimum, self.maximum = np.inf, -np.inf

    def add(self, values: Values) -> None:
        bits = values.view(np.uint32) >> np.uint32(16)
        first, last = int(bits.min()), int(bits.max())
        bits -= np.uint32(first)
        width = last - first + 1
        if width <= 256 and _in_pairs(bytes_ := bits.astype(np.uint8)):
            found = np.bincount(bytes_.view(np.uint16), minlength=256 * width)
            found = _unpaired(found)[:width]
        else:
            found = np.bincount(bits)
        self.histogram[first : first + width] += found
        if last >= _NOT_FINITE and not (finite := np.isfinite(values)).all():
            values = values[finite]
        if values.size:
            self._add_moments(values)

    def _add_moments(self, values: Values) -> None:
        """Add sums of deviations from a number near the mean: squares then lose no digits."""
        if self.minimum > self.maximum:
            self.shift = float(values[0])
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        for start in range(0, values.size, _BLOCK):
            deviations = values[start : start + _BLOCK].astype(np.float64)
            deviations -= self.shift
            self.sum += float(deviations.sum())
            self.sum_of_squares += float(deviations @ deviations)

    def row(self) -> dict[str, Any]:
        histogram = self.histogram.copy()
        pixels = int(histogram.sum())
        for sign in (0, 0x8000):
            histogram[sign + _NOT_FINITE : sign + 0x8000] = 0
        valid = int(histogram.sum())
        shift, total, squares = map(Fraction, (self.shift, self.sum, self.sum_of_squares))
        return {
            "pixels": pixels,
            "nodata": pixels - valid,
            "count": valid,
            "minimum": self.minimum if valid else None,
            "maximum": self.maximum if valid else None,
            "sum": float(total + valid * shift) if valid else None,
            "sum_of_squares": float(squares + 2 * shift * total + valid * shift**2)
            if valid
            else None,
            **_sparse(histogram),
        }


def _in_pairs(values: Values) -> bool:
    """Whether to count two at a time: large, and an even number of bytes."""
    return values.dtype == np.uint8 and values.size >= _MANY and values.size % 2 == 0


def _unpaired(pairs: Counts) -> Counts:
    """Return counts of bytes from counts of pairs of bytes, 256 times as many."""
    table = pairs.reshape(-1, 256)
    single: Counts = table.sum(axis=0)
    single[: len(table)] += table.sum(axis=1)
    return single


def _sparse(histogram: Counts) -> dict[str, list[int]]:
    there = np.flatnonzero(histogram)
    return {"bins": there.tolist(), "counts": histogram[there].tolist()}
