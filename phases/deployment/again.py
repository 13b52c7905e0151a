"""The manifest of a sealed release again, from the run that made it and rows of the ledger.

An audit compares it byte by byte with the one in the store. Nothing is read but what the release
itself holds: its contracts, and what its runtime config says of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stillhouse.phases.deployment.assembly import (
    assemble,
    contract_path,
    export_path,
    package_path,
)
from stillhouse.phases.deployment.request import Checkpoint, Graph, Request
from stillhouse.schemas.artifact import FileFact
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import RunStarted
from stillhouse.schemas.release import (
    MANIFEST,
    RUNTIME_CONFIG,
    Manifest,
    ReleasedFile,
    RuntimeConfig,
)
from stillhouse.schemas.rows import ReleaseRows


def manifest_again(
    started: RunStarted,
    files: Sequence[FileFact],
    contracts: Mapping[str, Contract],
    config: RuntimeConfig,
    rows: ReleaseRows,
) -> Manifest:
    """The manifest that a deployment run must have sealed.

    started: the attempt that succeeded. files: those of the release, as its event tells them.
    contracts: path in the release -> contract. config: the release's runtime config. Raises
    PhaseError when there is no such release, KeyError for a contract that is not there.
    """
    request = Request.model_validate(started.params)
    inputs = {parent.role: parent.digest for parent in started.inputs}
    graphs = tuple(_graphs(request, inputs, contracts))
    checkpoint = Checkpoint(
        digest=inputs["checkpoint"],
        vocab_size=config.vocab_size,
        eos_token_ids=config.eos_token_ids,
        has_tokenizer=config.tokenizer is not None,
    )
    own = (MANIFEST, RUNTIME_CONFIG)
    owners = _owners(graphs, checkpoint.digest)
    released = [
        ReleasedFile(
            path=file.path,
            size=file.size,
            blake3=file.digest,
            sha256=file.sha256,
            artifact=next(
                digest for start, digest in owners.items() if file.path.startswith(start)
            ),
        )
        for file in files
        if file.path not in own
    ]
    manifest, _ = assemble(request, graphs, checkpoint, released, rows)
    return manifest


def _graphs(
    request: Request, inputs: Mapping[str, Digest], contracts: Mapping[str, Contract]
) -> Iterator[Graph]:
    for shape in request.shapes:
        roles = [f"{role}/{shape.id}" for role in ("mlpackage", "export", "contract")]
        if all(role in inputs for role in roles):
            package, export, contract = (inputs[role] for role in roles)
            yield Graph(
                shape=shape,
                mlpackage=package,
                export=export,
                contract=contract,
                promises=contracts[contract_path(shape)],
            )


def _owners(graphs: Sequence[Graph], checkpoint: Digest) -> dict[str, Digest]:
    """Beginning of a path -> the artifact that the file belongs to; the last one has the rest."""
    found: dict[str, Digest] = {}
    for graph in graphs:
        found |= {
            package_path(graph.shape) + "/": graph.mlpackage,
            export_path(graph.shape): graph.export,
            contract_path(graph.shape): graph.contract,
        }
    return found | {"": checkpoint}
