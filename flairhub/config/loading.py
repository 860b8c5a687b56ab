"""From a YAML file to a checked `RunConfig`, with messages that name file, key and near match.

Unknown and repeated keys are refused, values are strict (a quoted number is not a number), and
relative paths start in the file's own folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flairhub.config.sections import RunConfig
from flairhub.errors import ConfigError, did_you_mean

MAX_CONFIG_BYTES = 2**20
"""A configuration is a page of text; anything larger is another file given by mistake."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads ``3e-3`` as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                msg = f"key {name!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, msg, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, wants a dot in a number with an exponent; nobody writes one.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config(path: str | Path) -> RunConfig:
    """Read and check a run configuration.

    Parameters
    ----------
    path
        YAML file with the sections ``data``, ``model`` and ``training``.

    Returns
    -------
    RunConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, has an unknown or repeated key, or a bad value;
        every problem is listed with its dotted key.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            msg = f"{path} has {size} bytes; a configuration has {MAX_CONFIG_BYTES} at most."
            raise ConfigError(msg)
        text = path.read_text(encoding="utf-8")
        found = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Cannot read the configuration {path}: {error}."
        raise ConfigError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path} is not valid YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path} must hold the sections data, model, training; found {found!r:.40}."
        raise ConfigError(msg)
    return parse_config(found, source=str(path), folder=path.parent)


def parse_config(
    values: Mapping[str, Any], *, source: str = "configuration", folder: Path | None = None
) -> RunConfig:
    """Check nested plain values as `load_config` checks a file.

    Parameters
    ----------
    values
        As a YAML file gives them, or `RunConfig.to_plain`.
    source
        What messages call the configuration.
    folder
        Where relative paths start; the working directory when absent.

    Raises
    ------
    ConfigError
        Listing every problem with its dotted key.
    """
    # Through JSON because pydantic's strict mode takes a list for a tuple only there.
    # Absent and empty sections become {}, whose default paths then start in `folder` too.
    given = {name: {} if section is None else section for name, section in values.items()}
    context = {"folder": folder or Path()}
    try:
        text = json.dumps({"model": {}, "training": {}, **given}, default=str)
        return RunConfig.model_validate_json(text, strict=True, context=context)
    except ValidationError as error:
        problems = [_describe(e) for e in error.errors(include_url=False)]
        between = "\n  " if len(problems) > 1 else " "
        raise ConfigError(between.join([f"{source}:", *problems])) from None
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{source} must hold plain keys and values: {error}."
        raise ConfigError(msg) from error


def _describe(error: ErrorDetails) -> str:
    """Say what is wrong with one key, with the near match of an unknown one."""
    loc = error["loc"]
    key = ".".join(map(str, loc))
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}. {_suggest(str(loc[-1]), loc[:-1])}"
    if error["type"] == "missing":
        return f"{key} is required."
    message = error["msg"].removeprefix("Value error, ")
    ending = "" if message.endswith((".", "?")) else "."
    given = "" if error["type"] == "value_error" else f" Found {error['input']!r:.60}."
    return f"{key}: {message}{ending}{given}" if key else f"{message}{ending}"


def _suggest(name: str, parents: tuple[int | str, ...]) -> str:
    """Name the near match in this section, or the section that has the key."""
    sections = dict(_sections(RunConfig))
    for section, keys in sections.items():
        if section and name in keys and parents != section:
            return f"Did you mean '{'.'.join((*section, name))}'?"
    return did_you_mean(name, sorted(sections[tuple(map(str, parents))]))


def _sections(
    section: type[BaseModel], parents: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield where a section and those in it stand, and their keys."""
    yield parents, set(section.model_fields)
    for key, field in section.model_fields.items():
        for part in get_args(field.annotation) or (field.annotation,):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _sections(part, (*parents, key))
