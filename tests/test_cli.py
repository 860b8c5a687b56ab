"""The command ``flairhub``: what it lists, how it fails, and what it says without an extra."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer

import flairhub
from flairhub import cli
from flairhub.errors import NotInStoreError
from tests.processes import run


def test_help_lists_the_commands_of_every_package(project: dict[str, Any]) -> None:
    done = run(sys.executable, "-c", "from flairhub.cli import main; main()", "--help")
    assert done.returncode == 0
    assert "Not available" not in done.stdout
    entries = project["project"]["entry-points"]["flairhub.commands"]
    for name in [*entries, "sample", "verify", "evaluate", "info"]:
        assert re.search(rf"^\W*{name}\b", done.stdout, re.MULTILINE), name


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from flairhub.cli import run; run(['--help']);"
        "found = {'torch', 'rasterio', 'pystac', 'lightning'} & set(sys.modules);"
        "sys.exit(', '.join(found) or None)"
    )
    done = run(sys.executable, "-c", code)
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_version_stands_in_one_place(
    project: dict[str, Any], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "version" in project["project"]["dynamic"]
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == flairhub.__version__
    citation = (repository / "CITATION.cff").read_text("utf-8")
    assert f"version: {flairhub.__version__}\n" in citation


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["no-such-command"]) == 2
    assert cli.run(["info", "--no-such-option"]) == 2
    assert "no-such-command" in capsys.readouterr().err


def fake_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``flairhub fail`` the only sub-command; it raises `error`."""

    def register(app: typer.Typer) -> None:
        @app.command()
        def fail() -> None:
            raise error

    class Entry(EntryPoint):
        def load(self) -> Any:  # noqa: ANN401 - as in the standard library
            return register

    monkeypatch.setattr(cli, "entry_points", lambda group: [Entry("fail", "x:y", group)])


def test_an_error_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, NotInStoreError("There is nothing at x."))
    assert cli.run(["fail"]) == 1
    assert capsys.readouterr().err == "error: There is nothing at x.\n"
    assert cli.run(["--verbose", "fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_is_named_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, ZeroDivisionError("division by zero"))
    assert cli.run(["fail"]) == 1
    found = capsys.readouterr().err
    assert found.startswith("error: ZeroDivisionError: division by zero")
    assert "--verbose" in found
    assert "Traceback" not in found


def test_an_interrupted_command_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, KeyboardInterrupt())
    assert cli.run(["fail"]) == 130


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch.nn"))
    assert cli.run(["fail"]) == 1
    wanted = "error: this needs the package torch: pip install 'flairhub[train]'\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize(
    ("blocked", "command", "extra"),
    [
        ("rasterio", ["convert", "raw", "root"], "convert"),
        ("pyogrio", ["convert", "raw", "root"], "convert"),
        ("pystac", ["catalog", "build", "root"], "catalog"),
        ("torch", ["train", "config.yaml"], "train"),
    ],
)
def test_commands_without_their_extra_say_so_and_the_others_work(
    blocked: str, command: list[str], extra: str, tmp_path: Path
) -> None:
    """A package that cannot be imported stands for one that is not installed."""
    block = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {blocked!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Block())
from flairhub.cli import main
main()
"""
    for folder in ("raw", "root"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config.yaml").write_text(
        "data: {root: root, modalities: [aerial_rgbi]}\n", encoding="utf-8"
    )
    done = run(sys.executable, "-c", block, *command, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"pip install 'flairhub[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    shown = run(sys.executable, "-c", block, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "info" in shown.stdout
