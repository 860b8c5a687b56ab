"""The project as a package: light import, packaging, lock file, import rules."""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import flairhub
from tests.processes import run

PACKAGES = ("flairhub", "converters", "catalog")


def tracked(repository: Path) -> Iterator[Path]:
    listed = run("git", "ls-files", "-z", cwd=repository)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            yield repository / name


def test_import_is_light() -> None:
    code = (
        "import resource, sys, json; import flairhub; flairhub.DomainId; flairhub.MODALITIES;"
        "u = resource.getrusage(resource.RUSAGE_SELF);"
        "print(json.dumps([u.ru_utime + u.ru_stime, sorted(sys.modules)]))"
    )
    done = run(sys.executable, "-c", code)
    seconds, modules = json.loads(done.stdout)
    assert seconds < 0.5  # CPU, the interpreter's own start included
    assert not {"torch", "zarr", "xarray", "pandas", "rasterio"} & set(modules)


def test_opening_and_planning_need_no_torch() -> None:
    code = (
        "import sys; import flairhub; flairhub.open_roi; flairhub.open_domain; flairhub.PatchPlan;"
        "sys.exit('torch' in sys.modules)"
    )
    assert run(sys.executable, "-c", code).returncode == 0


@pytest.mark.parametrize("name", flairhub.__all__)
def test_public_names_exist_and_are_listed(name: str) -> None:
    assert getattr(flairhub, name) is not None
    assert name in dir(flairhub)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_rio'"):
        _ = flairhub.open_rio


# --- packaging


def test_the_wheel_holds_exactly_the_three_packages(repository: Path, tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path),
               cwd=repository)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    info = f"flairhub-{flairhub.__version__}.dist-info"
    assert {n.partition("/")[0] for n in names} == {*PACKAGES, info}
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        sources = {
            p.relative_to(repository).as_posix() for p in (repository / package).rglob("*.py")
        }
        assert sources <= set(names)
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(names)


def test_the_lock_file_has_hashes_and_no_address(repository: Path) -> None:
    text = (repository / "requirements.lock").read_text("utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"^flairhub", text, re.MULTILINE)


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", r, maxsplit=1)[0].lower() for r in requirements}


def test_every_dependency_is_locked(project: dict[str, Any], repository: Path) -> None:
    extras = project["project"]["optional-dependencies"]
    declared = requirement_names(project["project"]["dependencies"])
    declared |= {name for e in extras.values() for name in requirement_names(e)} - {"flairhub"}
    text = (repository / "requirements.lock").read_text("utf-8")
    assert declared <= set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))


IMPORT_NAMES = {"pyyaml": ["yaml"], "pydantic": ["pydantic", "pydantic_core"]}


def imported(folder: Path) -> dict[str, set[str]]:
    """Third-party packages by the files that import them, at any depth of the code."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (n.partition(".")[0] for n in names):
                if name not in sys.stdlib_module_names and name not in PACKAGES:
                    found.setdefault(name, set()).add(str(path))
    return found


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("converters", {"convert"}),
        ("catalog", {"catalog"}),
        ("flairhub", {"train", "explore", "aws", "export"}),
        ("flairhub/store", {"aws"}),
        ("flairhub/config", set()),
    ],
)
def test_what_is_imported_is_declared(
    package: str, extras: set[str], project: dict[str, Any], repository: Path
) -> None:
    declared = requirement_names(project["project"]["dependencies"])
    for extra in extras:
        declared |= requirement_names(project["project"]["optional-dependencies"][extra])
    allowed = {i for n in declared for i in IMPORT_NAMES.get(n, [n.replace("-", "_")])}
    used = imported(repository / package)
    assert used.keys() <= allowed, {n: used[n] for n in used.keys() - allowed}


def test_converting_needs_no_torch_and_training_no_catalogue(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    convert, catalog, train = (
        requirement_names(extras[e]) for e in ("convert", "catalog", "train")
    )
    base = requirement_names(project["project"]["dependencies"])
    heavy = {"torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch"}
    assert not heavy & (base | convert | catalog)
    assert not {"pystac", "stac-geoparquet"} & (base | train | convert)


def test_every_floor_has_its_reason_or_is_a_tool(project: dict[str, Any], repository: Path) -> None:
    lines = (repository / "pyproject.toml").read_text("utf-8").splitlines()
    for requirement in project["project"]["dependencies"]:
        (line,) = [x for x in lines if f'"{requirement}",' in x and "#" in x]
        assert len(line.partition("#")[2].strip()) > 5


def test_installed_entry_points_are_the_declared_ones(project: dict[str, Any]) -> None:
    declared = project["project"]["entry-points"]["flairhub.commands"]
    installed = {e.name: e.value for e in entry_points(group="flairhub.commands")}
    assert installed == declared


# --- the code base


def test_import_rules_hold(repository: Path) -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache", cwd=repository)
    assert done.returncode == 0, done.stdout


def test_ci_runs_what_the_readme_says(repository: Path) -> None:
    commands = (repository / ".ci/run").read_text("utf-8")
    readme = (repository / "README.md").read_text("utf-8")
    for command in ("make lint", "make test"):
        assert f"\n{command}\n" in commands
    assert "$ make test" in readme
    assert "$ make demo" in readme


def test_notebooks_hold_no_outputs(repository: Path) -> None:
    notebooks = sorted((repository / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert code
        assert not any(c["outputs"] or c["execution_count"] for c in code), path.name


def test_no_file_names_a_machine(repository: Path) -> None:
    """Absolute paths of the author's machine and hosts of registries do not belong in a project."""
    # spelt in two parts, so that this file passes
    forbidden = re.compile(
        "|".join(["/" + "root/", "/" + "work/", "files.python" + "hosted", "pypi" + r"\.org"])
    )
    for path in tracked(repository):
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found = forbidden.search(text)
        assert found is None, f"{path.name}: {found and found[0]}"
