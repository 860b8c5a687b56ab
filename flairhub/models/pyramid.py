"""Which map of which source enters which level: decided once, when a model is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flairhub.models.alignment import nearest_level


@dataclass(frozen=True, slots=True)
class SourceMap:
    """One map that an encoder gives.

    Parameters
    ----------
    source
        Modality that it is made from.
    resolution_m
        Side of its pixels, metres.
    channels
        Its channels.
    """

    source: str
    resolution_m: float
    channels: int

    @property
    def key(self) -> str:
        """A name that no other map of the model has, fit for a parameter's name."""
        return f"{self.source}@{self.resolution_m:g}m".replace(".", "_")


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The levels of a model and the maps that enter each.

    Parameters
    ----------
    levels_m
        Pixel side of every level, metres, finest first.
    entering
        Maps that enter each level.
    """

    levels_m: tuple[float, ...]
    entering: tuple[tuple[SourceMap, ...], ...]

    @classmethod
    def of(cls, maps: Mapping[str, Sequence[SourceMap]], lead: str) -> Pyramid:
        """Take the levels of one source and put every map where pixels are nearest to its own.

        Parameters
        ----------
        maps
            Maps of every source, finest first.
        lead
            The source whose maps are the levels.
        """
        levels_m = tuple(one.resolution_m for one in maps[lead])
        entering: list[list[SourceMap]] = [[] for _ in levels_m]
        for found in maps.values():
            for one in found:
                entering[nearest_level(levels_m, one.resolution_m)].append(one)
        return cls(levels_m, tuple(map(tuple, entering)))

    def placement(self, source: str) -> dict[str, int]:
        """Return the key of every map of a source, finest first, and the level it enters."""
        return {
            one.key: level
            for level, found in enumerate(self.entering)
            for one in found
            if one.source == source
        }
