"""Models in the words of STAC's Machine Learning Model extension (MLM 1.4).

One input object a modality, one output object a class set. Bands are named ``modality/band``, since
two modalities may both have a red one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from flairhub import ign
from flairhub.errors import UnknownNameError
from flairhub.modalities import get_modality
from flairhub.models.flair.classes import CLASS_VALUES
from flairhub.models.flair.metadata import WIDTH
from flairhub.models.flair.options import TASK, FlairOptions
from flairhub.models.identity import Identity
from flairhub.models.ign.options import IgnOptions
from flairhub.models.published import ModelOptions
from flairhub.models.zoo import BANDS, ModelCard
from flairhub.nomenclatures import LandClass, get_nomenclature

_EXTENSIONS = "https://stac-extensions.github.io"
MLM = f"{_EXTENSIONS}/mlm/v1.4.0/schema.json"
FILE = f"{_EXTENSIONS}/file/v2.1.0/schema.json"
CLASSIFICATION = f"{_EXTENSIONS}/classification/v2.0.0/schema.json"
EO = f"{_EXTENSIONS}/eo/v2.0.0/schema.json"
SAFETENSORS_TYPE = "application/octet-stream; application=safetensors"

Json = dict[str, Any]

_OF_THE_NETWORK = ("mlm:architecture", "mlm:tasks", "mlm:framework", "mlm:framework_version",
                   "mlm:total_parameters")  # fmt: skip
_OF_A_CARD = ("mlm:name", "mlm:pretrained", "license", "description")


def describe(
    identity: Identity,
    *,
    name: str,
    parameters: int,
    source: str | None = None,
    published: ModelCard | None = None,
) -> Json:
    """Return the fields of MLM of a model.

    Parameters
    ----------
    identity
        What it is; what its file said of itself stays.
    name
        What its owner calls it; a published model has its id.
    parameters
        How many it has.
    source
        Where its weights come from.
    published
        The model that the weights are known to be, not only to fit: its licence is theirs.
    """
    options = identity.options
    images = f"{options.encoder}-{options.decoder}" if options.images else ""
    series = "U-TAE" if options.series else ""
    result: Json = {
        "mlm:name": published.id if published else valid_name(name),
        "mlm:architecture": " + ".join(filter(None, (images, series))),
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "pytorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": parameters,
        "mlm:input": [*(_input(identity, key) for key in options.modalities), *_metadata(options)],
        "mlm:output": [_output(identity, task) for task in options.tasks],
    }
    if published:
        result |= {"license": published.licence, "mlm:pretrained": True}
    if source:
        result["description"] = f"Weights from {source}."
    fixed = (*_OF_THE_NETWORK, *(_OF_A_CARD if published else ()))
    return _with_earlier(result, identity.described, fixed)


def _with_earlier(result: Json, earlier: Mapping[str, Any], fixed: Iterable[str]) -> Json:
    """Return fields, of which all but the fixed ones are as the file has them, where it does.

    Inputs and outputs stay as the file has them (statistics, classes) if bands and shapes do.
    """
    if not earlier:
        return result
    ends = {
        key: [_as_before(one, earlier.get(key)) for one in result[key]]
        for key in ("mlm:input", "mlm:output")
    }
    return {**result, **earlier, **{key: result[key] for key in fixed if key in result}, **ends}


def _as_before(one: Json, earlier: object) -> Json:
    for other in earlier if isinstance(earlier, list) else ():
        alike = [key for key in ("name", "bands", "input", "result") if key in one]
        if isinstance(other, dict) and all(other.get(key) == one[key] for key in alike):
            return other
    return one


def item(name: str, properties: Json, file: str, size: int, sha256: str) -> Json:
    """Return a STAC item for a file of weights beside it.

    Parameters
    ----------
    name
        Id of the item.
    properties
        What `describe` gives.
    file
        Name of the file.
    size, sha256
        Its bytes and their digest.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    described = [band for found in properties["mlm:input"] for band in found["bands"]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, CLASSIFICATION, EO, FILE],
        "id": name,
        "geometry": None,
        "properties": {"datetime": now, **properties},
        "links": [],
        "assets": {
            "model": {
                "href": f"./{file}",
                "title": "Weights",
                "type": SAFETENSORS_TYPE,
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                "bands": [_band(text) for text in described],
                "file:size": size,
                "file:checksum": f"1220{sha256}",
            }
        },
    }


def valid_name(text: str) -> str:
    """Return a name of letters, digits, ``_``, ``.`` and ``-`` alone, as the extension asks."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", text).strip("-_.")
    return plain if re.fullmatch(r"[a-zA-Z][\w.-]+[a-zA-Z0-9]", plain) else f"model-{plain or 0}"


def _input(identity: Identity, key: str) -> Json:
    options, modality = identity.options, get_modality(key)
    side, channels = options.size_of(key), options.bands_of(key)
    time = ([-1], ["time"]) if modality.temporal else ([], [])
    bands = identity.bands.get(key, ())
    result: Json = {
        "name": key,
        "bands": [f"{key}/{band}" for band in bands],
        "input": {
            "shape": [-1, *time[0], channels, side, side],
            "dim_order": ["batch", *time[1], "bands", "height", "width"],
            "data_type": "float32",
        },
        "resize_type": None,
    }
    statistics = ign.STATISTICS.get(key)
    if statistics and tuple(bands) == BANDS[key]:
        result["value_scaling"] = [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(statistics.mean, statistics.std, strict=True)
        ]
        result["description"] = f"Normalised by channel as in {statistics.source}."
    elif modality.temporal:
        month, day = ign.REFERENCE_DAY
        pixels = "Raw values" if isinstance(options, IgnOptions) else "Values"
        result["description"] = (
            f"{pixels}, with the days of its dates counted from {month:02}-{day:02} of each "
            "date's year."
        )
    return result


def _metadata(options: ModelOptions) -> list[Json]:
    """Return the input of an image's metadata, of baselines that take them."""
    if not isinstance(options, FlairOptions) or options.metadata == "none":
        return []
    return [
        {
            "name": "metadata",
            "bands": [],
            "input": {"shape": [-1, WIDTH], "dim_order": ["batch", "number"],
                      "data_type": "float32"},
            "description": "Position, altitude, date, time and camera as flairhub.models.flair."
            f"encode_metadata(form={options.metadata!r}) gives them.",
        }
    ]  # fmt: skip


def _output(identity: Identity, task: str) -> Json:
    number = identity.options.tasks[task]
    side = identity.options.size_of(identity.options.modalities[0])
    return {
        "name": task,
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, number, side, side],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": _classes(task, number),
        "post_processing_function": None,
    }


def _classes(task: str, number: int) -> list[Json]:
    """Return the classes of a known set; none where it is not the registry's."""
    try:
        found = get_nomenclature(task).classes
    except UnknownNameError:
        return []
    if task == TASK and number in CLASS_VALUES:
        # of the values that a class stands for the last names it: 19, other
        return [_class(place, found[v[-1]]) for place, v in enumerate(CLASS_VALUES[number])]
    return [_class(c.code, c) for c in found] if len(found) == number else []


def _class(value: int, found: LandClass) -> Json:
    return {
        "value": value,
        "name": found.name,
        "title": found.name_fr,
        "color_hint": found.colour[1:].upper(),
    }


def _band(text: str) -> Json:
    key, _, name = text.partition("/")
    known = {band.name: band for band in get_modality(key).bands}
    band = known.get(name)
    description = band.description if band else "surface minus terrain"
    result: Json = {"name": text, "description": description}
    if band and band.common_name:
        result["eo:common_name"] = band.common_name
    return result
