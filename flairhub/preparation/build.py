"""The preparation that a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping

from flairhub.config import DataConfig
from flairhub.modalities import Statistics
from flairhub.preparation.compatibility import IgnPreparation
from flairhub.preparation.pipeline import Preparation


def build_preparation(
    data: DataConfig, statistics: Mapping[str, Statistics] | None = None
) -> Preparation:
    """Return the preparation of a run; training, evaluation and maps share it.

    Parameters
    ----------
    data
        The ``data`` section.
    statistics
        Of `flairhub.preparation.statistics.run_statistics`; none in mode ``ign``.

    Raises
    ------
    PlanError
        If a modality has no statistics.
    """
    bands = {key: data.bands_of(key) for key in data.modalities}
    if data.preparation.mode == "ign":
        return IgnPreparation(bands, data.preparation)
    return Preparation(bands, statistics, data.preparation)
