"""A dry run says how many requests reading the raw files takes: as many as a server counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.objectserver import SECRET, ObjectServer
from converters import zips
from converters.convert import convert
from converters.files import RawTree
from converters.open import open_source
from converters.plan import DomainPlan, plan
from converters.selection import Selection
from flairhub.store.access import filesystem_of
from tests.test_zips import pack

LAYOUTS = ["domain_tree", "packed", "flair1_tree", "flair2_tree"]


@pytest.fixture(scope="module")
def packed(domain_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files of `domain_tree` in zips."""
    return pack(domain_tree, tmp_path_factory.mktemp("packed") / "raw")


@contextmanager
def _served(folder: Path) -> Iterator[ObjectServer]:
    """Offer a folder as ``s3://bucket``."""
    with ObjectServer(folder) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "reader",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            environment.setenv(name, value)
        _forget(server.url)
        yield server
        _forget(server.url)


def _forget(url: str) -> None:
    """Let nothing be used that is open: it is another server's, or was counted before."""
    type(filesystem_of(url)[0]).clear_instance_cache()
    filesystem_of.cache_clear()
    zips.open_zip.cache_clear()


def _planned(place: str | Path, root: Path, choice: Selection | None = None) -> DomainPlan:
    zips.open_zip.cache_clear()
    return plan(open_source(place), str(root), choice).total


def _counted(server: ObjectServer, root: Path, choice: Selection | None = None) -> int:
    zips.open_zip.cache_clear()
    server.reset()
    convert(open_source(server.url), str(root), choice, workers=1)
    return server.counts().total


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dry_run_says_what_a_server_counts(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tree, root = request.getfixturevalue(layout), tmp_path / "store"
    on_a_disk = _planned(tree, root).gets
    some = Selection(modalities=[open_source(tree).modalities[0].key])
    with _served(tree) as server:
        assert _planned(server.url, root).gets == on_a_disk
        planned = _planned(server.url, root, some)
        assert server.counts().total > 0
        assert _counted(server, root, some) == planned.gets < on_a_disk
        rest = _planned(server.url, root)
        assert 0 < rest.files < rest.gets
        assert _counted(server, root) == rest.gets
        nothing = _planned(server.url, root)
        assert nothing.files == 0
        assert _counted(server, root) == nothing.gets > 0


def test_each_worker_opens_zips_for_itself(packed: Path, tmp_path: Path) -> None:
    with _served(packed) as server:
        planned = _planned(server.url, tmp_path / "store")
        assert planned.gets_a_worker == 2 * len(list(packed.glob("D*.zip")))
        zips.open_zip.cache_clear()
        server.reset()
        convert(open_source(server.url), str(tmp_path / "store"), workers=2)
        more = server.counts().total - planned.gets
        assert 0 < more <= 2 * planned.gets_a_worker


def test_names_come_in_pages(tmp_path: Path) -> None:
    for number in range(2001):
        path = tmp_path / "D012-2019_SPOT_RGBI" / f"AF-S1-{number % 2}" / "deeper" / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with _served(tmp_path) as server:
        tree = RawTree(server.url)
        assert len(tree.files("D012-2019_SPOT_RGBI")) == 2001
        assert tree.requests == server.counts().total == 1 + 1 + 2 + 2 + 1


def test_a_large_directory_of_a_zip_is_read_apart(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(packed.glob("*_SPOT_RGBI.zip"))
    with _served(packed) as server:
        monkeypatch.setattr(zips, "_DIRECTORY_BYTES", 100)
        found = zips.Zip(f"{server.url}/{path.name}")
        assert found.requests == server.counts().total == 3
        for number, info in enumerate(found.members(), start=1):
            assert len(found.read(info.filename, info.file_size)) == info.file_size
            assert server.counts().total == 3 + number
