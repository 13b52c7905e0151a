"""A registry with recorded runs of a phase that costs nothing, and that real workers can repeat."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.schemas.artifact import Form, Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import ArtifactPublished, RunStarted, RunSucceeded
from stillhouse.session import Session
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.trees.trees import put_tree
from tests.phases.worker_parts import phase_folder

SAID = b"{}"
"""What `say` makes."""
COUNTED = b'{"count": "x"}'
"""What `count` makes in a fresh folder."""


@dataclass
class Repeatable:
    """Records runs of the tests' own phase, which workers find through PYTHONPATH."""

    session: Session
    folder: Path

    def install(self, monkeypatch: Any) -> None:
        """Let workers find the phase."""
        kept = os.environ.get("PYTHONPATH")
        path = str(phase_folder(self.folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([path, kept] if kept else [path]))
        monkeypatch.setenv("STILL_TEST_SIGN", str(self.folder / "sign"))

    def published(self, data: bytes, kind: Kind = Kind.SOURCE) -> Digest:
        """Something from outside."""
        digest = self.session.store.put_bytes(data).digest
        self.session.ledger.append(
            [
                ArtifactPublished(
                    digest=digest, kind=kind, form="blob", size=len(data), origin="imported"
                )
            ]
        )
        return digest

    def started(self, do: str, *inputs: Digest, **params: Any) -> RunStarted:
        """Record that a run began."""
        wanted = {"do": do, **params}
        parents = tuple(Parent(role=f"in-{n}", digest=d) for n, d in enumerate(inputs))
        pre_image = json.dumps([wanted, inputs]).encode()
        fact = RunStarted(
            run=hash_bytes(pre_image).digest,
            phase="tested",
            phase_version=1,
            plan=hash_bytes(b"plan").digest,
            slot=f"tested/{do}",
            attempt=1,
            inputs=parents,
            params=wanted,
            tools={},
        )
        self.session.ledger.append([fact])
        return fact

    def ran_folder(self, do: str, *files: bytes) -> Digest:
        """Record that a run made a folder."""
        folder = self.folder.with_name(f"made by {do}")
        folder.mkdir()
        for place, data in enumerate(files):
            (folder / str(place)).write_bytes(data)
        tree = put_tree(self.session.store, folder)
        shutil.rmtree(folder)
        return self._ended(self.started(do), tree.digest, tree.payload, "tree", Kind.CHECKPOINT)

    def ran(
        self,
        do: str,
        made: bytes,
        *inputs: Digest,
        kind: Kind = Kind.CHECKPOINT,
        **params: Any,
    ) -> Digest:
        """Record that a run made `made`."""
        fact = self.started(do, *inputs, **params)
        digest = self.session.store.put_bytes(made).digest
        return self._ended(fact, digest, len(made), "blob", kind)

    def _ended(self, fact: RunStarted, digest: Digest, size: int, form: Form, kind: Kind) -> Digest:
        published = ArtifactPublished(
            digest=digest,
            kind=kind,
            form=form,
            size=size,
            origin="run",
            run=fact.run,
            role="seen",
            parents=fact.inputs,
        )
        succeeded = RunSucceeded(
            run=fact.run,
            phase=fact.phase,
            plan=fact.plan,
            slot=fact.slot,
            attempt=1,
            outputs=(Parent(role="seen", digest=digest),),
            seconds=1.0,
        )
        self.session.ledger.append([published, succeeded])
        return digest
