"""The verb `doctor`: whether this machine can do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stillhouse import doctor as diagnosis
from stillhouse.cli.arguments import Json
from stillhouse.cli.screen import answer

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.phases.environment.versions import Diagnosis


def doctor(*, as_json: Json = False) -> None:
    """Look at this machine.

    What is tested, what only warns, what is refused or missing, and why.
    """
    found = diagnosis.doctor()
    answer(found, _show, as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)


def _show(screen: Screen, found: Diagnosis) -> None:
    rows = ((f.level, f.package, f.version, f.reason, f.remedy) for f in found.findings)
    screen.table(("level", "package", "version", "reason", "what to do"), rows)
