"""The sections of a run configuration and what may stand in them.

All classes are frozen and hold plain values only, so that a dump of them travels with a checkpoint.
Constructed in Python they raise pydantic's own errors; :mod:`flairhub.config.loading` turns those
into messages about a file. Torch and Zarr are not imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flairhub.config.preparation import PreparationConfig, check_ign_bands
from flairhub.config.section import Fraction, Positive, Section, refuse, without_repeats
from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.grids import PATCH_SIDE_M
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, Kind, get_modality
from flairhub.nomenclatures import get_nomenclature


class DataConfig(Section):
    """What is read: stores, splits, modalities, labels and windows."""

    root: str = Field(
        description="Folder or URL that holds the domain stores (`<root>/D012-2019.zarr`)."
    )
    domains: tuple[str, ...] | None = Field(
        default=None,
        description="Domains to use, such as `D012-2019`; all of the folder when absent.",
    )
    fold: str = Field(
        default="split", min_length=1, description="Column of the patch table that holds the split."
    )
    train_split: str = Field(
        default="train", description="Value of that column for training patches."
    )
    valid_split: str = Field(
        default="valid", description="Value of that column for validation patches."
    )
    test_split: str = Field(default="test", description="Value of that column for test patches.")
    modalities: tuple[str, ...] = Field(
        min_length=1, description="Input rasters and series, by registry key (`aerial_rgbi`)."
    )
    bands: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Bands by modality, by name and in order; all bands where absent.",
    )
    statistics: str | None = Field(
        default=None,
        description="File of `flairhub stats --out` with means and standard deviations that "
        "replace IGN's; modalities that it lacks are normalised as without it.",
    )
    preparation: PreparationConfig = Field(
        default_factory=PreparationConfig,
        description="Elevation, clouds, composites, and whose rules hold.",
    )
    labels: tuple[str, ...] = Field(
        default=("cosia",),
        min_length=1,
        description="Class sets to learn: cosia, lpis_1, lpis_2, lpis_3.",
    )
    window_m: Positive = Field(
        default=PATCH_SIDE_M, description="Side of a square window, metres; a patch is 102.4 m."
    )
    stride_m: Positive | None = Field(
        default=None,
        description="Step between training windows, metres; the window's side when absent. "
        "Validation and test windows never overlap, so that every pixel is scored once.",
    )
    batch_size: int = Field(default=4, ge=1, description="Windows in a batch.")
    threads: int = Field(default=4, ge=1, le=256, description="Threads that read and decode.")
    prefetch: int = Field(default=16, ge=0, le=4096, description="Windows read ahead.")
    shuffle: Literal["global", "block"] = Field(
        default="global",
        description="Order of training windows: any after any other, or neighbours read together, "
        "which needs a fraction of the requests.",
    )
    dates: dict[str, tuple[str | None, str | None]] = Field(
        default_factory=dict,
        description="First and last day by modality, such as `[2021-04-01, 2021-09-30]`; series "
        "are cut to them, images of other days left out.",
    )
    max_cloud: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Largest mean cloud percentage of the dates of Sentinel-2 that are read.",
    )
    classes: dict[str, dict[str, Fraction]] = Field(
        default_factory=dict,
        description="Least share of classes, by class set and name, in the patches that are "
        "trained on.",
    )
    retry_s: Positive = Field(
        default=60.0, description="Seconds for which object storage that fails is asked again."
    )
    cache: str | None = Field(
        default=None, description="Folder on a local disk that keeps parts of remote objects."
    )
    cache_bytes: int = Field(
        default=50 * 10**9, ge=0, description="What that folder may take, bytes."
    )

    @field_validator("root")
    @classmethod
    def _resolve_root(cls, root: str, info: ValidationInfo) -> str:
        return root if "://" in root else _resolve(root, info)

    @field_validator("statistics", "cache")
    @classmethod
    def _resolve_path(cls, path: str | None, info: ValidationInfo) -> str | None:
        return None if path is None else _resolve(path, info)

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, domains: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for domain in domains or ():
            DomainId.parse(domain)
        return domains

    @field_validator("modalities")
    @classmethod
    def _check_modalities(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # what is read of a super-area is larger than the windows that the network's maps share
        inputs = {key for key, m in MODALITIES.items() if not (m.is_label or m.is_area)}
        for name in names:
            if name not in inputs:
                hint = did_you_mean(name, inputs)
                refuse(f"{name!r} is not an input modality. {hint}")
            group = MODALITIES[name].group
            if MODALITIES[name].kind is Kind.MASK and group not in names:
                refuse(f"{name!r} needs its series: add {group!r}.")
        return without_repeats(names)

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                get_nomenclature(name)
            except UnknownNameError as error:
                refuse(str(error))
        return without_repeats(names)

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        for name, bands in self.bands.items():
            if name not in self.modalities:
                hint = did_you_mean(name, self.modalities)
                refuse(f"bands are given for {name!r}, which is not in modalities. {hint}")
            try:
                get_modality(name).band_indexes(without_repeats(bands))
            except UnknownNameError as error:
                refuse(str(error))
            if not bands:
                refuse(f"bands of {name!r} are an empty list; leave the key out for all.")
        return self

    @model_validator(mode="after")
    def _check_preparation(self) -> Self:
        bands = {key: self.bands_of(key) for key in self.modalities}
        self.preparation.check(bands)
        if self.preparation.mode == "ign":
            check_ign_bands(bands)
            if self.statistics is not None:
                refuse("statistics are IGN's own in preparation.mode ign: leave one of them out.")
        return self

    def bands_of(self, modality: str) -> tuple[str, ...]:
        """Return the names of the bands that are read of `modality`, in order."""
        return self.bands.get(modality, get_modality(modality).band_names)


class ModelConfig(Section):
    """How large the network is; bands and classes follow from the data."""

    encoder: str = Field(
        default="mobilenetv3_small_100", description="timm network that encodes each raster."
    )
    encoders: dict[str, str] = Field(
        default_factory=dict, description="Other timm networks for single modalities, by key."
    )
    pretrained: bool = Field(
        default=False, description="Start from timm's published weights (downloaded on first use)."
    )
    series_encoder: str = Field(
        default="ltae",
        description="How series become maps: ltae (one map) or utae (a pyramid of three).",
    )
    fusion: str = Field(
        default="mean", description="How maps of many modalities become one: mean of projections."
    )
    decoder: str = Field(default="unet", description="How maps become classes: unet or upernet.")
    decoder_channels: int = Field(
        default=64,
        ge=8,
        le=1024,
        description="Channels of the decoder; the widest level of a U-Net.",
    )
    fusion_channels: int = Field(
        default=128,
        ge=8,
        le=2048,
        description="Channels at most that fused maps have at one level.",
    )
    series_channels: int = Field(
        default=64,
        ge=8,
        le=1024,
        description="Channels of a series' maps; a multiple of series_heads.",
    )
    series_heads: int = Field(
        default=8, ge=1, le=64, description="Heads of the attention over time."
    )
    dropout: Fraction = Field(
        default=0.0, description="Share of channels dropped before the heads."
    )
    modality_dropout: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default_factory=dict,
        description="Chance that a training sample loses a modality, by key; never all of a "
        "sample. Learned tokens stand for its maps; 0 gives tokens for where data lack it.",
    )
    auxiliary: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Weight of the mean loss of auxiliary heads, one a modality; none when 0.",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.series_channels % self.series_heads:
            msg = (
                f"series_channels ({self.series_channels}) must be a multiple of series_heads "
                f"({self.series_heads})."
            )
            raise ValueError(msg)
        return self


class TrainingConfig(Section):
    """How the network is trained, for how long, and where the run is written."""

    output: str = Field(
        default="run", validate_default=True, description="Folder of the run's files."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of weights, order and augmentation."
    )
    max_epochs: int = Field(
        default=50, ge=1, description="Passes over the training windows at most."
    )
    max_steps: int | None = Field(default=None, ge=1, description="Optimiser steps at most.")
    max_minutes: Positive | None = Field(
        default=None,
        description="Minutes of training at most. The learning rate is annealed towards whichever "
        "limit comes first; a run that this one ends does not repeat exactly.",
    )
    learning_rate: Positive = Field(
        default=3e-3, description="Largest learning rate of the one cycle."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="Decoupled weight decay (AdamW)."
    )
    warmup: Fraction = Field(default=0.2, description="Share of the run in which the rate rises.")
    gradient_clip: Positive | None = Field(
        default=1.0, description="Largest norm of the gradient; no limit when null."
    )
    label_smoothing: Fraction = Field(
        default=0.0, description="Share of the target spread over classes."
    )
    class_balance: Fraction = Field(
        default=0.0,
        description="Exponent of inverse class frequency in the loss: 0 counts every pixel "
        "alike, 1 every class alike.",
    )
    task_weights: dict[str, Positive] = Field(
        default_factory=dict, description="Weight of a label set's loss, by key; 1 where absent."
    )
    augment: bool = Field(default=True, description="Flip and turn training windows.")
    validate_every: int = Field(default=1, ge=1, description="Epochs between validations.")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(
        default="auto", description="Where to compute."
    )
    devices: int = Field(default=1, ge=1, description="Devices to compute on.")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        default="32-true", description="Number format, in Lightning's words."
    )

    @field_validator("output")
    @classmethod
    def _resolve_output(cls, output: str, info: ValidationInfo) -> str:
        return _resolve(output, info)


class RunConfig(Section):
    """A whole run."""

    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for section, key, names, known in (
            ("model", "encoders", self.model.encoders, self.data.modalities),
            ("model", "modality_dropout", self.model.modality_dropout, self.data.modalities),
            ("training", "task_weights", self.training.task_weights, self.data.labels),
        ):
            for name in names:
                if name not in known:
                    hint = did_you_mean(name, known)
                    refuse(f"{section}.{key} names {name!r}, which data does not. {hint}")
        return self

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts, lists, strings and numbers only, for YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")


def _resolve(path: str, info: ValidationInfo) -> str:
    """Take a relative path from the configuration's folder, or the working directory."""
    folder = (info.context or {}).get("folder", Path())
    return str((Path(folder) / Path(path).expanduser()).absolute())
