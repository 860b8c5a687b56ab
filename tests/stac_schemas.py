"""Schemas for the fields that our catalogue uses of each STAC extension, written from their texts.

pystac carries the schemas of STAC itself, but those of extensions lie on the web, and tests do not
fetch. These check what we write: known field names, types, ranges and required members. They are no
replacement for the published schemas, which say more about fields that we do not use.
"""

from __future__ import annotations

from typing import Any

from catalog import terms

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_DOI: Schema = {"type": "string", "pattern": r"^10\.\d{4,9}/\S+$"}
_POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
_INSTANT: Schema = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"}
_INSTANT_OR_OPEN: Schema = {"anyOf": [_INSTANT, {"type": "null"}]}
_DATA_TYPE: Schema = {"enum": ["int8", "int16", "int32", "uint8", "uint16", "float32", "float64"]}
_NODATA: Schema = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}


def _numbers(count: int, kind: str = "number") -> Schema:
    return {"type": "array", "items": {"type": kind}, "minItems": count, "maxItems": count}


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "required": [*required],
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


_SPATIAL = _object(
    {"type": {"const": "spatial"}, "axis": {"enum": ["x", "y"]}, "extent": _numbers(2)},
    {"step": {"type": "number"}, "unit": _TEXT, "reference_system": {"const": 2154}},
)
_TEMPORAL = _object(
    {
        "type": {"const": "temporal"},
        "extent": {"type": "array", "items": _INSTANT_OR_OPEN, "minItems": 2, "maxItems": 2},
    },
    {"values": {"type": "array", "items": _INSTANT, "minItems": 1}},
)
_OTHER = _object(
    {
        "type": {"type": "string", "not": {"enum": ["spatial", "geometry", "temporal"]}},
        "values": {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
    }
)
_VARIABLE = _object(
    {
        "type": {"enum": ["data", "auxiliary"]},
        "dimensions": {"type": "array", "items": _TEXT, "uniqueItems": True},
    },
    {"description": _TEXT, "unit": _TEXT, "nodata": _NODATA, "data_type": _DATA_TYPE},
)
_CLASS = _object(
    {"value": {"type": "integer"}, "name": {"type": "string", "pattern": "^[0-9A-Za-z_-]+$"}},
    {
        "description": _TEXT,
        "color_hint": {"type": "string", "pattern": "^[0-9A-F]{6}$"},
        "count": {"type": "integer", "minimum": 0},
    },
)
_COMMON_NAMES = [
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071",
    "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir",
    "lwir11", "lwir12",
]  # fmt: skip

_FIELDS: dict[str, dict[str, Schema]] = {
    terms.PROJECTION: {
        "proj:code": {"const": "EPSG:2154"},
        "proj:bbox": _numbers(4),
        "proj:shape": _numbers(2, "integer"),
        "proj:transform": _numbers(6),
        "proj:geometry": {"$ref": "https://geojson.org/schema/Geometry.json"},
    },
    terms.DATACUBE: {
        "cube:dimensions": {
            "type": "object",
            "required": ["x", "y"],
            "additionalProperties": {"oneOf": [_SPATIAL, _TEMPORAL, _OTHER]},
        },
        "cube:variables": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _VARIABLE,
        },
    },
    terms.RASTER: {
        "raster:spatial_resolution": _POSITIVE,
        "raster:sampling": {"enum": ["area", "point"]},
    },
    terms.EO: {
        "eo:common_name": {"enum": _COMMON_NAMES},
        "eo:center_wavelength": _POSITIVE,
        "eo:full_width_half_max": _POSITIVE,
    },
    terms.CLASSIFICATION: {
        "classification:classes": {
            "type": "array",
            "items": _CLASS,
            "minItems": 1,
            "uniqueItems": True,
        },
    },
    terms.ZARR: {
        "zarr:node_type": {"enum": ["group", "array"]},
        "zarr:zarr_format": {"const": 3},
        "zarr:consolidated": {"type": "boolean"},
    },
    terms.SCIENTIFIC: {
        "sci:doi": _DOI,
        "sci:citation": _TEXT,
        "sci:publications": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"doi": _DOI, "citation": _TEXT},
                "additionalProperties": False,
            },
        },
    },
}


def _schema(uri: str, fields: dict[str, Schema]) -> Schema:
    """Check the fields wherever they may stand, and refuse others of the same prefix."""
    prefix = next(iter(fields)).partition(":")[0]
    used: Schema = {
        "type": "object",
        "properties": {**fields, "bands": {"items": {"$ref": "#/definitions/used"}}},
        "propertyNames": {"anyOf": [{"not": {"pattern": f"^{prefix}:"}}, {"enum": [*fields]}]},
    }
    everywhere: Schema = {"additionalProperties": {"$ref": "#/definitions/used"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": uri,
        "definitions": {"used": used},
        "allOf": [{"$ref": "#/definitions/used"}],
        "required": ["stac_extensions"],
        "properties": {
            "stac_extensions": {"contains": {"const": uri}},
            "properties": {"$ref": "#/definitions/used"},
            "assets": everywhere,
            "item_assets": everywhere,
        },
    }


SCHEMAS = {uri: _schema(uri, fields) for uri, fields in _FIELDS.items()}
"""By the address that stands in ``stac_extensions``."""
