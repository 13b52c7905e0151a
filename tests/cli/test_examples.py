"""The service files in `examples/`: they parse, and call the program as it can be called."""

from __future__ import annotations

import configparser
import plistlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from stillhouse.cli.app import VERBS, build
from stillhouse.registry.home import VARIABLE

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
AGENTS = sorted((EXAMPLES / "launchd").glob("*.plist"))


def _unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, comment_prefixes=("#", ";"))
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd minds case
    unit.read_string(path.read_text(encoding="utf-8"))
    return unit


def _agent(path: Path) -> dict[str, Any]:
    return dict(plistlib.loads(path.read_bytes()))


def _assert_can_be_called(command: list[str]) -> None:
    program, verb, *arguments = command
    assert Path(program).name == "still"
    assert verb in VERBS
    parser = typer.main.get_command(build([verb]))
    known = {option for parameter in parser.params for option in parameter.opts}
    assert {a.partition("=")[0] for a in arguments if a.startswith("-")} <= known


def test_there_is_one_of_each() -> None:
    assert UNITS
    assert AGENTS


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_the_daemon_and_lets_workers_outlive_it(path: Path) -> None:
    service = _unit(path)["Service"]
    _assert_can_be_called(shlex.split(service["ExecStart"]))
    assert service["KillMode"] == "process"
    assert service["Restart"] == "on-failure"
    assert service["Environment"].startswith(f"{VARIABLE}=")
    assert "ProtectHome" not in service, "recipes may lie anywhere"
    assert "MemoryDenyWriteExecute" not in service, "torch compiles"


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.name)
def test_an_agent_starts_the_daemon_and_lets_workers_outlive_it(path: Path) -> None:
    agent = _agent(path)
    assert path.stem == agent["Label"]
    _assert_can_be_called(agent["ProgramArguments"])
    assert agent["AbandonProcessGroup"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert VARIABLE in agent["EnvironmentVariables"]
