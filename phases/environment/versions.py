"""The version gate: what is tested, what only warns, what is refused, each with its reason.

One literal table. Adding a tested version is one edited row; nothing else decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from stillhouse.phases.environment.probe import PACKAGES, Environment

Level = Literal["ok", "warn", "refused", "missing"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """One row of the gate: versions from `start` (included) up to `end` (excluded)."""

    package: str
    start: str = "0"
    end: str | None = None
    level: Level
    reason: str
    remedy: str = ""


RANGES = (
    Range(package="python", start="3.11", end="3.12", level="ok", reason="tested"),
    Range(
        package="python",
        start="3.12",
        end="3.14",
        level="warn",
        reason="not tested with this program, though its packages install",
        remedy="Use Python 3.11.",
    ),
    Range(
        package="python",
        start="3.14",
        level="refused",
        reason="coremltools 9.0 has no wheels for it",
        remedy="Use Python 3.11.",
    ),
    Range(
        package="python",
        level="refused",
        reason="this program's own syntax and its packages start at 3.11",
        remedy="Use Python 3.11.",
    ),
    Range(package="torch", start="2.13", end="2.14", level="ok", reason="tested"),
    Range(
        package="torch",
        start="2.9",
        end="3",
        level="warn",
        reason="only 2.13 is tested: another minor may export another graph and round otherwise",
        remedy="Install torch==2.13.*.",
    ),
    Range(
        package="torch",
        level="refused",
        reason="its .pt2 archives are laid out in a way that this program cannot canonicalise",
        remedy="Install torch==2.13.*.",
    ),
    Range(package="transformers", start="5.23", end="5.24", level="ok", reason="tested"),
    Range(
        package="transformers",
        start="5",
        end="6",
        level="warn",
        reason="only 5.23 is tested: loading GGUF files and Llama's attention move between minors",
        remedy="Install transformers>=5.23,<5.24.",
    ),
    Range(
        package="transformers",
        level="refused",
        reason="another major has another model-loading interface",
        remedy="Install transformers>=5.23,<5.24.",
    ),
    Range(
        package="coremltools",
        start="9.0",
        end="9.1",
        level="ok",
        reason="tested; its authors tested it up to torch 2.7, so what it converts here is "
        "accepted by verification's own numeric checks, not by trust",
    ),
    Range(
        package="coremltools",
        start="9.1",
        level="refused",
        reason="only 9.0 is known: the interpreter of verification knows the ops that 9.0 writes",
        remedy="Install coremltools==9.0.",
    ),
    Range(
        package="coremltools",
        level="refused",
        reason="only 9.0 is known: conversion relies on how it reads torch.export graphs",
        remedy="Install coremltools==9.0.",
    ),
    Range(package="numpy", start="2.0", end="3", level="ok", reason="tested with 2.4"),
    Range(
        package="numpy",
        level="refused",
        reason="only numpy 2 is declared and tested",
        remedy="Install numpy>=2.0,<3.",
    ),
    Range(package="duckdb", start="2.0", end="3", level="ok", reason="tested with 2.0"),
    Range(
        package="duckdb",
        level="refused",
        reason="the settings that lock `still sql` are only checked on DuckDB 2",
        remedy="Install duckdb>=2.0,<3.",
    ),
)
"""The version gate. Of a package's rows, the first that holds its version speaks."""

GATED = tuple(dict.fromkeys(row.package for row in RANGES))
"""The packages that the gate speaks about, in the table's order."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the gate says about one package."""

    level: Level
    package: str
    version: str
    """Empty when it is not installed."""
    reason: str
    remedy: str = ""
    """Empty when there is nothing to do."""

    @property
    def unsupported(self) -> bool:
        """Whether the environment fails its gate for it."""
        return self.level in ("refused", "missing")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A machine, and what the gate says about it."""

    environment: Environment
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is refused or missing."""
        return not any(finding.unsupported for finding in self.findings)


def diagnose(environment: Environment) -> Diagnosis:
    """The gate's word on a machine, beside what it judges."""
    return Diagnosis(environment=environment, findings=findings(environment))


def findings(environment: Environment) -> tuple[Finding, ...]:
    """The gate's word on every gated package, then on the platform and what else is missing."""
    versions = {"python": environment.python, **environment.packages}
    gated = tuple(judge_version(name, versions.get(name, "")) for name in GATED)
    others = tuple(
        _missing(name) for name in PACKAGES if name not in GATED and name not in versions
    )
    return (*gated, _core_ml(environment), *others)


def judge_version(package: str, version: str) -> Finding:
    """The first row of RANGES that holds this version; a pre-release is never plainly ok."""
    if not version:
        return _missing(package)
    row = next(r for r in RANGES if r.package == package and _holds(r, version))
    level, reason, remedy = row.level, row.reason, row.remedy
    if level == "ok" and _is_prerelease(version):
        level, reason = "warn", "a pre-release, and only releases are tested"
        remedy = "Install the release."
    return Finding(level=level, package=package, version=version, reason=reason, remedy=remedy)


def _core_ml(environment: Environment) -> Finding:
    """The Core ML runtime is part of macOS; a package for iOS 18 needs macOS 15."""
    on_macos = environment.system == "Darwin"
    if on_macos and _numbers(environment.release) >= (15,):
        return Finding(level="ok", package="Core ML", version=environment.release, reason="present")
    return Finding(
        level="warn",
        package="Core ML",
        version=environment.release if on_macos else "",
        reason="the runtime of iOS 18 packages is only in macOS 15 and later: packages are checked "
        "by interpreting them, and `device_predict` is not run",
        remedy="Run on macOS 15 or later to have the device's own numbers.",
    )


def _missing(package: str) -> Finding:
    return Finding(
        level="missing",
        package=package,
        version="",
        reason="not installed",
        remedy='Install "stillhouse[phases]".',
    )


def _holds(row: Range, version: str) -> bool:
    numbers = _numbers(version)
    return numbers >= _numbers(row.start) and (row.end is None or numbers < _numbers(row.end))


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without trailing zeros: `2.13.0+cpu` is (2, 13)."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _is_prerelease(version: str) -> bool:
    """PEP 440: a, b, rc or dev after the release numbers, before any local part."""
    return re.match(r"\d+(\.\d+)*[._-]?(a|b|c|rc|alpha|beta|pre|dev)", version) is not None
