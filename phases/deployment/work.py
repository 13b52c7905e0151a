"""The release, step by step.

1. read the request: shapes, tier, verdicts; and the contracts of the shapes that arrived;
2. lay the files out, hashing each;
3. assemble manifest and runtime config from these and from the rows of the job, which the reactor
   read in the verified ledger;
4. store the folder as one tree.
"""

from __future__ import annotations

from pathlib import Path

from stillhouse.phases.contract import Context
from stillhouse.phases.deployment.assembly import assemble
from stillhouse.phases.deployment.folder import checkpoint_of, graphs_of, lay_out
from stillhouse.phases.deployment.request import Request
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.facts import ReleaseFacts
from stillhouse.schemas.release import MANIFEST, RUNTIME_CONFIG, Manifest, RuntimeConfig
from stillhouse.store.disk.durable import writing
from stillhouse.store.disk.hashing import hash_bytes


def release(context: Context) -> Product:
    """Assemble the release from the rows of its job, and store it. Raises PhaseError."""
    if context.rows is None:
        raise ValueError("a release is told by the ledger, and its job has no rows of it")
    request = Request.model_validate(dict(context.params))
    graphs = graphs_of(context, request)
    checkpoint = checkpoint_of(context.one("checkpoint"))
    folder = context.scratch / "release"
    files = lay_out(context, graphs, folder)
    manifest, config = assemble(request, graphs, checkpoint, files, context.rows)
    return _store(context, folder, manifest, config)


def _store(context: Context, folder: Path, manifest: Manifest, config: RuntimeConfig) -> Product:
    """Write the two documents, store the folder, and describe it."""
    encoded = canonical.encode(manifest.to_json())
    with writing(folder):
        (folder / RUNTIME_CONFIG).write_bytes(canonical.encode(config.to_json()))
        (folder / MANIFEST).write_bytes(encoded)
    own = hash_bytes(encoded, sha256=True)
    assert own.sha256 is not None  # noqa: S101  # it was asked for
    facts = ReleaseFacts(
        name=manifest.name,
        tier=manifest.tier,
        plan=manifest.plan,
        policy=manifest.policy,
        depends_on=manifest.depends_on.seq,
        manifest=own.digest,
        manifest_sha256=own.sha256,
        shapes={s.id: s.status for s in manifest.shapes},
        capabilities=tuple(c.name for c in manifest.capabilities),
        not_run=manifest.not_run,
    )
    return context.tree(
        "release", Kind.RELEASE, folder, name=manifest.name, facts=facts, sha256=True
    )
