"""The verb `verify`: a release folder, which needs no registry, or an artifact hashed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer, here
from stillhouse.cli.views.release import note_expired, show_check
from stillhouse.phases.deployment.verify import FolderCheck, verify_folder
from stillhouse.schemas import moment
from stillhouse.session import clock
from stillhouse.store.disk.durable import present
from stillhouse.verify import ArtifactCheck, verify_artifact


def verify(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="DIR|REF", help="A deployable folder, or an artifact.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Re-hash a release folder or artifact.

    A folder needs no registry; every missing, added or changed file is named.
    """
    path = Path(target)
    found: FolderCheck | ArtifactCheck = (
        verify_folder(path, moment.spell(clock()))
        if present(path) and path.is_dir()
        else verify_artifact(session_of(context), target)
    )
    answer(found, show_check, as_json=as_json)
    note_expired(here(), found.expired_waivers)
    if not found.ok:
        raise typer.Exit(1)
