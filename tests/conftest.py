"""Fixtures shared by all tests: the sample, converted once a session, and nothing downloaded."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from benchmarks.objectserver import ObjectServer

# Tests run beside each other: one thread each is faster than many that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a slow machine is not a fault. Derandomised: the same change passes or fails alike.
settings.register_profile("flairhub", deadline=None, derandomize=True, database=None)
settings.register_profile("long", deadline=None, database=None, max_examples=3000)
settings.load_profile("flairhub")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def project(repository: Path) -> dict[str, Any]:
    """The content of ``pyproject.toml``."""
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="session")
def raw_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw tree of two domains with two ROIs each; not to be changed."""
    from converters.miniature import write_sample

    directory = tmp_path_factory.mktemp("sample") / "raw"
    write_sample(directory, domains=2, rois=2, rows=2, columns=3, seed=1)
    return directory


@pytest.fixture(scope="session")
def store_root(raw_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores made from `raw_tree`; not to be changed."""
    return _converted(raw_tree, tmp_path_factory)


def _converted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert a raw tree in this process."""
    from converters.convert import convert
    from converters.open import open_source

    root = tmp_path_factory.mktemp("stores") / "store"
    convert(open_source(tree), str(root), workers=1)
    return root


@pytest.fixture(scope="session")
def domain_tree(raw_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first domain of `raw_tree` alone; not to be changed."""
    from tests.trees import copy_domain

    return copy_domain(raw_tree, tmp_path_factory.mktemp("domain") / "raw")


@pytest.fixture(scope="session")
def domain_store(domain_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that an undisturbed conversion of `domain_tree` leaves."""
    from tests.trees import snapshot

    return snapshot(_converted(domain_tree, tmp_path_factory))


@pytest.fixture(scope="session")
def flair1_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLAIR#1 with a domain of each split, a zone each; not to be changed."""
    return _flair_sample("flair1", tmp_path_factory)


@pytest.fixture(scope="session")
def flair2_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLAIR#2 with a domain of each split, a zone each; not to be changed."""
    return _flair_sample("flair2", tmp_path_factory)


def _flair_sample(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from converters.miniature import write_sample

    directory = tmp_path_factory.mktemp(layout) / "raw"
    write_sample(directory, domains=3, rois=1, rows=2, columns=3, seed=1, layout=layout)
    return directory


@pytest.fixture(scope="session")
def flair1_store(flair1_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores made from `flair1_tree`; not to be changed."""
    return _converted(flair1_tree, tmp_path_factory)


@pytest.fixture(scope="session")
def flair2_store(flair2_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores made from `flair2_tree`; not to be changed."""
    return _converted(flair2_tree, tmp_path_factory)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A server of the S3 API, without a bucket."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture(scope="module")
def _running(store_root: Path) -> Iterator[ObjectServer]:
    from benchmarks.objectserver import ObjectServer

    with ObjectServer(store_root) as found:
        yield found


@pytest.fixture
def object_server(_running: ObjectServer) -> ObjectServer:
    """A server of the stores of `store_root`, without faults or counts."""
    from benchmarks.objectserver import Faults

    _running.set(faults=Faults())
    _running.reset()
    return _running
