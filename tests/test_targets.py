"""A target that is no folder, or cannot be written, is told in a line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock

from flairhub.cli import run

COMMANDS = ["convert SOURCE", "convert --dry-run SOURCE", "verify SOURCE", "verify --checksums"]


def _error(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = (line for line in captured.err.splitlines() if line)
    return line


@pytest.mark.parametrize("below", ["", "deep/store"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_no_folder_of_stores(
    domain_tree: Path,
    tmp_path: Path,
    command: str,
    below: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"of the user's")
    words = command.replace("SOURCE", str(domain_tree)).split()
    told = "it" if not below else str(file)
    error = _error([*words, str(file / below)], capsys)
    told = f"cannot be a folder of stores: {told} is a file. Give another folder."
    assert error == f"error: {file / below} {told}"
    assert file.read_bytes() == b"of the user's"


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_a_file_is_no_raw_dataset(
    store_root: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.txt"
    for place, what in ((file, "does not exist"), (file, "is not a folder")):
        error = _error([command, str(place), str(store_root)], capsys)
        assert error.startswith(f"error: {place} {what}; expected the folder of a raw dataset")
        file.touch()


def test_arguments_in_the_wrong_order_are_told(
    domain_tree: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _error(["verify", str(store_root), str(domain_tree)], capsys)
    assert error.endswith("Those are stores: raw files come first, ROOT second.")
    inside = next(domain_tree.glob("*_SPOT_RGBI"))
    error = _error(["convert", str(inside), str(store_root)], capsys)
    assert error.endswith("Give the folder above, which holds it and its sisters.")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_keeps_a_folder_from_being_written_is_told_in_words(
    domain_tree: Path,
    tmp_path: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "the lock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    root = tmp_path / "store"
    error = _error(["convert", str(domain_tree), str(root), "--workers=1"], capsys)
    assert f"{root} cannot be written: {os.strerror(number)}: the lock. " in error
    assert "run the same command again when that is mended" in error
