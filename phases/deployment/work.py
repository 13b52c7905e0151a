"""The release, step by step.

1. read the request: shapes, tier, verdicts; and the contracts of the shapes that arrived;
2. ask the ledger what stands behind them, and behind every verdict's evidence;
3. lay the files out, hashing each;
4. assemble manifest and runtime config from these facts alone;
5. store the folder as one tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from stillhouse.phases.contract import Context
from stillhouse.phases.deployment.assembly import assemble
from stillhouse.phases.deployment.folder import checkpoint_of, graphs_of, lay_out
from stillhouse.phases.deployment.request import Request
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.projection.release import ReleaseRows, release_rows
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.facts import ReleaseFacts
from stillhouse.schemas.release import MANIFEST, RUNTIME_CONFIG, Manifest, RuntimeConfig
from stillhouse.store.disk.durable import writing
from stillhouse.store.disk.hashing import hash_bytes


class Query(Protocol):
    """The ledger, as a release asks it (registry/projection/release.py)."""

    def __call__(
        self, *, plan: Digest, policy: Digest, roots: Iterable[Digest], events: Iterable[int]
    ) -> ReleaseRows:
        """What stands behind `roots`, and behind `events` besides."""
        ...


def release(context: Context) -> Product:
    """Assemble the release from the registry's ledger. Raises PhaseError, BusyError."""
    if context.registry is None:
        raise ValueError("a release is a query over the ledger, and there is none")
    home = context.registry
    return seal(context, partial(release_rows, Projection(home.projection, home.log)))


def seal(context: Context, query: Query) -> Product:
    """Assemble the release from what `query` answers, and store it."""
    request = Request.model_validate(dict(context.params))
    graphs = graphs_of(context, request)
    checkpoint = checkpoint_of(context.one("checkpoint"))
    facts = query(
        plan=request.plan,
        policy=request.policy,
        roots=_roots(context, request),
        events=request.events,
    )
    folder = context.scratch / "release"
    files = lay_out(context, graphs, folder)
    manifest, config = assemble(request, graphs, checkpoint, files, facts)
    return _store(context, folder, manifest, config)


def _roots(context: Context, request: Request) -> tuple[Digest, ...]:
    """What is released, and the evidence of every verdict: the ends of the lineage to tell."""
    inputs = {i.digest for given in context.inputs.values() for i in given}
    evidence = {row.evidence for row in request.verdicts if row.evidence}
    return tuple(sorted(inputs | evidence | {request.plan, request.policy}))


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
