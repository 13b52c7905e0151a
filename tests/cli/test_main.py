from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stillhouse.cli import app
from stillhouse.cli.version import VERSION
from stillhouse.registry.home import VARIABLE, Home

from .conftest import Still

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "coremltools", "duckdb", "watchfiles", "pyarrow", "rich")


def _python(
    code: str, *arguments: str, cwd: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


def _imported(arguments: list[str], cwd: Path) -> set[str]:
    """The modules that a command leaves in sys.modules."""
    code = (
        "import sys\n"
        "from stillhouse.cli.main import main\n"
        "main(sys.argv[1:])\n"
        "sys.stderr.write('\\nMODULES ' + ' '.join(sys.modules))\n"
    )
    found = _python(code, *arguments, cwd=cwd)
    return set(found.stderr.rpartition("MODULES ")[2].split())


def test_the_version_is_the_one_of_the_package(still: Still) -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hatch = document["tool"]["hatch"]["version"]
    found = re.search(hatch["pattern"], (ROOT / hatch["path"]).read_text(encoding="utf-8"))
    assert found
    assert found["version"] == VERSION
    assert still("--version").out == f"still {VERSION}\n"


def test_the_version_is_answered_before_typer_and_pydantic_are_imported(tmp_path: Path) -> None:
    imported = _imported(["--version"], tmp_path)
    assert imported.isdisjoint({"typer", "pydantic", "importlib.metadata", "rich"})


@pytest.mark.parametrize("verb", [["ls"], ["show", "policy@latest"], ["log"], ["tag"]])
def test_point_queries_import_nothing_heavy(
    verb: list[str], still: Still, home: Home, policy: Path
) -> None:
    assert still("publish", policy, "--kind", "policy").code == 0
    assert _imported(verb, home.root.parent).isdisjoint(HEAVY)


def test_every_verb_is_a_function_with_a_help_text(still: Still) -> None:
    listed = still("--help").out
    for verb in app.VERBS:
        assert f"\n  {verb} " in listed
        assert still(verb, "--help").code == 0


def test_an_unknown_verb_is_bad_usage_and_near_ones_are_named(still: Still) -> None:
    answer = still("lss")
    assert answer.code == 2
    assert "'ls'" in answer.err


def test_a_missing_option_is_bad_usage(still: Still, home: Home) -> None:
    assert home.exists
    answer = still("publish", "x")
    assert answer.code == 2
    assert "--kind" in answer.err


def test_an_error_says_what_happened_and_what_to_do_next(still: Still) -> None:
    answer = still("ls")
    assert answer.code == 2
    assert "There is no registry at" in answer.err
    assert "Next: Make one with `still init`" in answer.err
    assert answer.out == ""


def test_an_error_with_json_is_one_object_on_stderr(still: Still) -> None:
    answer = still("ls", "--json")
    told = json.loads(answer.err)
    assert told["error"]["code"] == "registry.missing"
    assert told["exit_code"] == answer.code == 2
    assert answer.out == ""


def test_the_registry_option_may_stand_before_or_after_the_verb(
    still: Still, tmp_path: Path
) -> None:
    there = tmp_path / "elsewhere"
    assert still("--registry", there, "init").code == 0
    for arguments in (
        ("--registry", there, "ls"),
        ("ls", "--registry", there),
        ("ls", f"--registry={there}"),
    ):
        assert still(*arguments).code == 0
    assert still("ls").code == 2


def test_the_registry_may_come_from_the_environment(
    still: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "from-environment"))
    assert still("init").code == 0
    assert (tmp_path / "from-environment" / "events.log").is_file()
    assert still("ls").code == 0


def test_the_registry_of_a_folder_above_is_found(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = home.root.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert still("ls").code == 0


def test_a_reader_that_goes_away_is_no_error_message(home: Home) -> None:
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.close(read)\n"
        "os.dup2(write, 1)\n"
        "from stillhouse.cli.main import main\n"
        "raise SystemExit(main(['doctor']))\n"
    )
    found = _python(code, cwd=home.root.parent, check=False)
    assert (found.returncode, found.stderr) == (1, "")


def test_an_error_of_our_own_shows_its_traceback_and_ends_with_1(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Home) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("stillhouse.cli.arguments.open_registry", broken)
    answer = still("ls")
    assert answer.code == 1
    assert "RuntimeError: a bug" in answer.err
    assert "still: This is an error in stillhouse itself" in answer.err
    assert home.exists


def test_ctrl_c_ends_with_130(still: Still, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Home) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.cli.arguments.open_registry", interrupted)
    assert still("ls").code == 130
    assert home.exists


def test_an_argument_that_is_not_utf8_is_bad_input_and_nothing_is_stored(
    still: Still, home: Home, place: Path
) -> None:
    name = os.fsdecode(b"odd-\xff.txt")
    (place / name).write_bytes(b"x")
    answer = still("publish", place / name, "--kind", "source")
    assert answer.code == 2
    assert "is not UTF-8" in answer.err
    assert [p.name for p in home.objects.iterdir()] == ["tmp"]
