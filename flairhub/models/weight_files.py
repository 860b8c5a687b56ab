"""Files of weights: told apart by their content, read without running anything in them.

Safetensors hold tensors alone. Files of ``torch.save`` are pickles, which may run code when they
are read; they are read by torch's loader of tensors only, and refused where that one refuses.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flairhub.errors import CheckpointError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LARGEST_HEADER = 100_000_000
_NESTS = ("state_dict", "model_state_dict")
_SHORTEST = 10
"""Bytes that any of these files has: fewer do not tell which it is."""


@dataclass(frozen=True)
class StateFile:
    """What a file of weights holds.

    Parameters
    ----------
    path
        Where it lies.
    tensors
        By name, on the CPU, as stored.
    metadata
        Texts of a safetensors header; empty for others.
    kind
        ``safetensors``, ``Lightning checkpoint`` or ``state dict``.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "safetensors"


def read_weights(path: str | Path) -> StateFile:
    """Read a file of weights.

    Parameters
    ----------
    path
        Safetensors, a Lightning checkpoint, or a state dict of ``torch.save``; the name's ending
        does not matter.

    Raises
    ------
    CheckpointError
        If there is no such file, if it is damaged or something else, or if it holds objects other
        than tensors and plain values.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        msg = f"Cannot read the weights {path}: {error.strerror or error}."
        raise CheckpointError(msg) from error
    if 0 < len(head) < _SHORTEST:
        msg = f"{path} is damaged: it is cut off after {len(head)} bytes. Fetch it again."
        raise CheckpointError(msg)
    # first, since the length that safetensors begin with may begin like a pickle
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return _read_safetensors(path)
    if head[:4] == _ZIP or head[:1] == _PICKLE:
        return _read_torch(path)
    raise CheckpointError(_describe_other(path, head))


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write safetensors; `path` appears when the file is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file({k: t.contiguous() for k, t in tensors.items()}, partial, dict(metadata))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> StateFile:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return StateFile(path, tensors, file.metadata() or {})
    except SafetensorError as error:
        msg = f"{path} is damaged: {error}. Fetch it again."
        raise CheckpointError(msg) from error


def _read_torch(path: Path) -> StateFile:
    try:
        _check_sums(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_describe_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        msg = f"{path} is damaged, or not a file of torch.save: {str(error).splitlines()[0]}"
        raise CheckpointError(msg) from error
    tensors = tensors_in(content, str(path))
    lightning = tensors is not content and "pytorch-lightning_version" in content
    kind = "Lightning checkpoint" if lightning else "state dict"
    return StateFile(path, dict(tensors), kind=kind)


def _check_sums(path: Path) -> None:
    """Compare the parts of an archive with its checksums, which torch's loader does not look at."""
    with path.open("rb") as stream:
        if stream.read(len(_ZIP)) != _ZIP:  # the older form has none
            return
    with zipfile.ZipFile(path) as archive:
        # torch writes 0 for all of them where it is told to compute none
        told = any(part.CRC for part in archive.infolist())
        if told and (damaged := archive.testzip()):
            msg = f"the checksum of {damaged} is another. Fetch it again."
            raise zipfile.BadZipFile(msg)


def tensors_in(content: object, name: str) -> Mapping[str, Tensor]:
    """Return the tensors of a state dict, or of a checkpoint that holds one.

    Parameters
    ----------
    content
        Tensors by name, or a mapping that has them under ``state_dict`` or ``model_state_dict``.
    name
        What messages call it.

    Raises
    ------
    CheckpointError
        If it is anything else.
    """
    if not isinstance(content, Mapping):
        msg = f"{name} holds a {type(content).__name__}; expected tensors by name."
        raise CheckpointError(msg)
    nest = next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None)
    tensors: Mapping[Any, Any] = content if nest is None else content[nest]
    others = {
        repr(k): type(v).__name__
        for k, v in tensors.items()
        if not (isinstance(k, str) and isinstance(v, Tensor))
    }
    if others or not tensors:
        listed = ", ".join(f"{one} ({kind})" for one, kind in list(others.items())[:12])
        msg = (
            f"{name} is no state dict: expected tensors by name, or a checkpoint with them under "
            f"{' or '.join(map(repr, _NESTS))}; found {listed or 'nothing'}."
        )
        raise CheckpointError(msg)
    return tensors


def _describe_refusal(path: Path, reason: str) -> str:
    found = re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", reason)
    what = f"an object of {found[1]}" if found else "objects other than tensors"
    return (
        f"{path} holds {what}, which only code in the file could rebuild, so it is not read. Ask "
        "its author for safetensors; or, if you trust it, write the tensors alone where it was "
        "made: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')."
    )


def _describe_other(path: Path, head: bytes) -> str:
    expected = "expected safetensors, a Lightning checkpoint or a state dict of torch.save"
    if not head:
        return f"{path} is empty; {expected}."
    if head.startswith(b"version https://git-lfs"):
        return (
            f"{path} is a pointer of Git LFS, not the file: run 'git lfs pull' in its repository, "
            "or download it."
        )
    if head.lstrip()[:1] == b"<":
        return f"{path} is a web page, not weights: the download failed; {expected}."
    return f"{path} begins with {head[:8]!r}; {expected}."
