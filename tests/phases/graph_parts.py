"""A tiny checkpoint, a small store and the contexts of export and conversion slots."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from stillhouse.phases import conversion, export
from stillhouse.phases.contract import Context, Input, Put
from stillhouse.phases.models import Student, StudentConfig, save_checkpoint
from stillhouse.schemas.artifact import FileFact, Kind, Product
from stillhouse.schemas.contract import Architecture, Contract
from stillhouse.store.disk.hashing import hash_bytes, hash_file

LENGTH = 12
TINY = StudentConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)


class HashingSink:
    """Names what it is given as a store would, and keeps nothing."""

    def __init__(self) -> None:
        self.puts = 0

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        self.puts += 1
        fact = _fact(path, path.name)
        return Put(digest=fact.digest, size=fact.size, files=(fact,) if sha256 else ())

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        self.puts += 1
        found = sorted(p for p in folder.rglob("*") if p.is_file())
        facts = tuple(_fact(p, p.relative_to(folder).as_posix()) for p in found)
        lines = "\n".join(
            f"{f.path} {f.digest} {folder.joinpath(f.path).stat().st_mode}" for f in facts
        )
        return Put(
            digest=hash_bytes(lines.encode()).digest,
            size=sum(f.size for f in facts),
            files=facts if sha256 else (),
        )


def _fact(path: Path, name: str) -> FileFact:
    found = hash_file(path, sha256=True)
    assert found.sha256 is not None
    return FileFact(path=name, size=found.size, digest=found.digest, sha256=found.sha256)


def tiny_student(*, tied: bool = True, seed: int = 5) -> Student:
    """Random weights, large enough for logits of a few units."""
    config = StudentConfig(**{**vars(TINY), "tie_word_embeddings": tied})
    student = Student(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in student.parameters():
            spread = 0.2 if weight.dim() > 1 else 0.1
            noise = torch.randn(weight.shape, generator=generator) * spread
            weight.copy_(noise if weight.dim() > 1 else 1 + noise)
    return student


def tiny_architecture(*, tied: bool = True) -> Architecture:
    return StudentConfig(**{**vars(TINY), "tie_word_embeddings": tied}).architecture()


def tiny_checkpoint(folder: Path) -> Path:
    save_checkpoint(tiny_student(), folder)
    return folder


def ids(length: int = LENGTH) -> list[int]:
    return torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(3)).tolist()


def export_context(
    checkpoint: Path, mode: str, scratch: Path, sink: HashingSink | None = None
) -> Context:
    scratch.mkdir(parents=True, exist_ok=True)
    given = Input(
        role="checkpoint",
        digest="c" * 64,
        kind=Kind.CHECKPOINT,
        form="tree",
        path=checkpoint,
        facts={},
    )
    return Context(
        slot=f"export/{mode}-{LENGTH}",
        params={"mode": mode, "length": LENGTH, "threads": 1},
        inputs={"checkpoint": [given]},
        scratch=scratch,
        sink=sink or HashingSink(),
        progress=lambda *_, **__: None,
    )


def conversion_context(graph: Path, contract: Path, scratch: Path, sink: HashingSink) -> Context:
    scratch.mkdir(parents=True, exist_ok=True)
    roles = (("export", graph), ("contract", contract))
    inputs = {
        role: [
            Input(
                role=role,
                digest=hash_file(path).digest,
                kind=Kind(role),
                form="blob",
                path=path,
                facts={},
            )
        ]
        for role, path in roles
    }
    return Context(
        slot=f"conversion/{scratch.name}",
        params={"target": "iOS18", "precision": "float16", "threads": 1},
        inputs=inputs,
        scratch=scratch,
        sink=sink,
        progress=lambda *_, **__: None,
    )


def by_role(products: Iterable[Product]) -> dict[str, Product]:
    return {p.role: p for p in products}


def metrics(product: Product) -> dict[str, float]:
    return {m["name"]: m["value"] for m in product.facts["metrics"]}


def export_tiny(checkpoint: Path, mode: str, scratch: Path) -> dict[str, Product]:
    return by_role(export.run(export_context(checkpoint, mode, scratch)))


def convert_tiny(exported: Path, scratch: Path) -> dict[str, Product]:
    """Convert what `export_tiny` left in its scratch folder."""
    context = conversion_context(
        exported / "graph.pt2", exported / "contract.json", scratch, HashingSink()
    )
    return by_role(conversion.run(context))


def read_contract(exported: Path) -> Contract:
    return Contract.model_validate_json((exported / "contract.json").read_bytes())
