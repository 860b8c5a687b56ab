"""Objects that are written while the next are made: in order, bounded, and no error is lost."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.writing import Writing, sha256_of, size_of
from flairhub.store.access import Location, resolve

Write = Callable[[Location, bytes | list[bytes]], None]


def _full_at(name: str, write: Write) -> Write:
    """Return a `Location.write` that finds the disk full at one object."""

    def replaced(place: Location, data: bytes | list[bytes]) -> None:
        if place.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(place, data)

    return replaced


def _write_many(place: Location, *, first: int = 0, number: int, then: str = "") -> None:
    """Write objects named by numbers, and never ask how it went."""
    with Writing(place) as objects:
        for name in range(first, number):
            objects.write(str(name), bytes(2**20))
        if then:
            raise ValueError(then)
        pytest.fail("An error was not told of.")


def test_objects_are_what_was_handed_over(tmp_path: Path) -> None:
    parts = [b"one", b"", b"two"]
    with Writing(resolve(str(tmp_path), read_only=False)) as objects:
        objects.write("a/c/0/0", parts)
        objects.write("a/zarr.json", b"{}")
        objects.write("a/zarr.json", b"[]")
        objects.flush("a")
        objects.finish()
        assert (tmp_path / "a/c/0/0").read_bytes() == b"onetwo"
    assert (tmp_path / "a/zarr.json").read_bytes() == b"[]"
    assert (size_of(parts), size_of(b"onetwo")) == (6, 6)
    assert sha256_of(parts) == sha256_of(b"onetwo") == hashlib.sha256(b"onetwo").hexdigest()


def test_parts_are_one_object_in_every_kind_of_store() -> None:
    place = resolve("memory://parts/store", read_only=False)
    (place / "shard").write([b"one", b"two"])
    assert (place / "shard").read() == b"onetwo"


def test_what_waits_for_a_slow_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (30, 30, 30, 100, 1, 1, 40, 40)  # MB; one larger than the bound goes alone
    written = 0

    def slow(_: Location, data: bytes | list[bytes]) -> None:
        nonlocal written
        time.sleep(0.01)
        written += size_of(data)

    monkeypatch.setattr(Location, "write", slow)
    handed = 0
    whole = bytes(100 * 2**20)
    with Writing(resolve(str(tmp_path), read_only=False)) as objects:
        for number, size in enumerate(sizes):
            objects.write(str(number), [whole[: size * 2**20]])
            handed += size * 2**20
            assert handed - written <= max(64, size) * 2**20, number
        objects.finish()
        assert written == handed


def test_a_full_disk_is_told_of_and_no_later_than_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Location, "write", _full_at("1", Location.write))
    place = resolve(str(tmp_path), read_only=False)
    with Writing(place) as objects:
        objects.write("0", b"there")
        objects.write("1", b"not there")
        with pytest.raises(OSError, match="No space left"):
            objects.finish()
    with pytest.raises(OSError, match="No space left"):
        _write_many(place, first=1, number=100)


def test_nothing_is_under_way_once_it_is_left(tmp_path: Path) -> None:
    """What is undone after an error must not appear again."""
    with pytest.raises(ValueError, match="bad raster"):
        _write_many(resolve(str(tmp_path), read_only=False), number=20, then="bad raster")
    assert len(list(tmp_path.iterdir())) == 20
