"""A small release and everything it rests on, built from plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.phases.contract import Context, Input, Put
from stillhouse.phases.deployment import slots
from stillhouse.phases.deployment.request import Checkpoint, Graph, Request
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.contract import Architecture, Contract, Golden, ShapeStatus, Tensor
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.facts import ReportFacts
from stillhouse.schemas.policy import Check, Gate, Policy, Tier
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.release import Head, ReleasedFile, RunRow
from stillhouse.schemas.rows import ArtifactRow, ReleaseRows
from stillhouse.schemas.slot import Shape, SlotId
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree


def digest(text: str) -> Digest:
    return hash_bytes(text.encode()).digest


NOW = "2026-11-22T12:00:00.000000Z"

PLAN, POLICY, CHECKPOINT, ENVIRONMENT = map(digest, ("plan", "policy", "checkpoint", "machine"))
SHAPES = ("prefill-8", "prefill-16", "decode-8")

RULE = Gate(checks=(Check(metric="m", op="<=", value=1.0),))
THE_POLICY = Policy(
    name="tiny",
    gates=dict.fromkeys(
        ("environment.versions", "verification.numbers", "evaluation.kl", "evaluation.speed"), RULE
    ),
    tiers={Tier.TIER_2: ("environment.versions", "verification.numbers", "evaluation.kl")},
    capabilities={
        "checked_numbers": ("verification.numbers",),
        "faithful": ("evaluation.kl", "verification.numbers"),
        "fast": ("evaluation.speed",),
        "nothing": (),
    },
)

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "policy": POLICY,
    "given": {"checkpoint": CHECKPOINT},
    "export": {"prefill": [16, 8], "primary": 8, "decode_capacity": 8},
    "conversion": {},
    "deployment": {"max_new_tokens": 32},
}


def a_contract(shape: str, **changes: Any) -> Contract:
    mode, _, length = shape.partition("-")
    known: dict[str, Any] = {
        "mode": mode,
        "length": int(length),
        "shape_validation": ShapeStatus(status="ok", max_abs=1e-5),
        "inputs": (Tensor(name="input_ids", dtype="int32", shape=(1, 8), semantics="[b, t]"),),
        "outputs": (
            Tensor(name="logits", dtype="float16", shape=(1, 8, 9), semantics="[b, t, v]"),
        ),
        "mask_convention": "causal",
        "position_convention": "from zero",
        "cache_layout": "none",
        "architecture": Architecture(
            hidden_size=4,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=4,
            vocab_size=9,
            rope_theta=1e4,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        ),
        "rms_norm": "scaled",
        "checkpoint": CHECKPOINT,
        "export_sha256": "0" * 64,
        "export_digest": digest(f"export {shape}"),
        "route": "torch.export strict=False",
        "tools": {},
        "target": "iOS18",
        "precision": "float16",
        "golden": Golden(token_ids=(1,), text="synthetic", top_ids=(2,), logits_sha256="0" * 64),
        "tolerances": {},
    }
    return Contract.model_validate(known | changes)


def a_graph(shape: str, **changes: Any) -> Graph:
    mode, _, length = shape.partition("-")
    return Graph(
        shape=Shape(
            mode="decode" if mode == "decode" else "prefill",
            length=int(length),
            primary=shape == "prefill-8",
        ),
        mlpackage=digest(f"mlpackage {shape}"),
        export=digest(f"export {shape}"),
        contract=digest(f"contract {shape}"),
        promises=a_contract(shape, **changes),
    )


def a_verdict(gate: str, slot: str, subject: Digest, **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "gate": gate,
        "slot": slot,
        "subject": subject,
        "evidence": digest(f"report {slot}"),
        "policy": POLICY,
        "verdict": "pass",
        "required": gate in THE_POLICY.tiers[Tier.TIER_2],
        "checks": [],
        "seq": 90,
        "waiver": None,
    }
    return known | changes


WAIVER = {"author": "ann", "reason": "known", "until": "2030-01-01T00:00:00Z", "seq": 95}


def verdicts(**per_slot: dict[str, Any]) -> list[dict[str, Any]]:
    """Passing rows of every gate; `per_slot` changes the row of a slot (dashes as underscores)."""
    rows = [a_verdict("environment.versions", "environment", ENVIRONMENT, evidence=ENVIRONMENT)]
    rows += [
        a_verdict("verification.numbers", f"verification/{s}", digest(f"mlpackage {s}"))
        for s in SHAPES
    ]
    rows += [a_verdict("evaluation.kl", "evaluation", CHECKPOINT)]
    rows += [a_verdict("evaluation.speed", "evaluation", CHECKPOINT, verdict="not_run")]
    for row in rows:
        row.update(per_slot.get(row["slot"].replace("/", "_").replace("-", "_"), {}))
    return rows


def a_request(rows: Sequence[dict[str, Any]] | None = None) -> Request:
    (slot,) = slots(Recipe.model_validate(RECIPE))
    chosen = verdicts() if rows is None else list(rows)
    return Request.model_validate({**slot.params, "plan": PLAN, "verdicts": chosen})


def an_artifact(content: str, kind: Kind, **changes: Any) -> ArtifactRow:
    known = ArtifactRow(
        digest=digest(content),
        kind=kind,
        size=3,
        origin="run",
        role=None,
        name=None,
        seq=10,
        run=None,
        facts={},
    )
    return known.model_copy(update=changes)


def a_report(slot: str, subject: str, *, seq: int, not_run: tuple[str, ...] = ()) -> ArtifactRow:
    facts = ReportFacts(
        phase=slot.partition("/")[0], subject=digest(subject), metrics=(), not_run=not_run
    )
    return an_artifact(f"report {slot}", Kind.REPORT, seq=seq, facts=facts.to_json())


def the_artifacts() -> list[ArtifactRow]:
    made = [
        an_artifact(f"{kind} {shape}", kind, seq=20 + n, role=str(kind))
        for n, shape in enumerate(SHAPES)
        for kind in (Kind.EXPORT, Kind.CONTRACT, Kind.MLPACKAGE)
    ]
    reports = [
        a_report(f"verification/{s}", f"mlpackage {s}", seq=40, not_run=("device_predict",))
        for s in SHAPES
    ]
    return [
        an_artifact("plan", Kind.RECIPE, origin="imported", seq=3),
        an_artifact("policy", Kind.POLICY, origin="imported", seq=2),
        an_artifact("checkpoint", Kind.CHECKPOINT, origin="imported", seq=4),
        an_artifact(
            "machine", Kind.ENVIRONMENT, origin="probe", seq=1, facts={"environment": {"cores": 2}}
        ),
        *made,
        *reports,
        a_report("evaluation", "checkpoint", seq=41),
    ]


def a_run(slot: str, seq: int, **tools: str) -> RunRow:
    return RunRow(
        run=digest(f"run {slot}"),
        phase=SlotId.parse(slot).phase,
        phase_version=1,
        slot=slot,
        inputs={"checkpoint": [CHECKPOINT]},
        outputs={"report": digest(f"report {slot}")},
        params={},
        tools=tools,
        environment=ENVIRONMENT,
        seq=seq,
    )


def the_facts(**changes: Any) -> ReleaseRows:
    known = ReleaseRows(
        rule=2,
        recipe=RECIPE,
        policy=THE_POLICY,
        artifacts=tuple(the_artifacts()),
        runs=(
            a_run("conversion/prefill-8", 50, coremltools="9.0", torch="2.13.0"),
            a_run("evaluation", 60, torch="2.12.0"),
        ),
        failures={},
        verdicts={},
        waivers={},
        head=Head(seq=95, hash="a" * 64),
    )
    return known.model_copy(update=changes)


THE_CHECKPOINT = Checkpoint(digest=CHECKPOINT, vocab_size=9, eos_token_ids=(2,), has_tokenizer=True)


def a_file(path: str, artifact: str) -> ReleasedFile:
    found = hash_bytes(path.encode(), sha256=True)
    return ReleasedFile(
        path=path,
        size=found.size,
        blake3=found.digest,
        sha256=found.sha256 or "",
        artifact=digest(artifact),
    )


FILES = tuple(
    a_file(path, artifact)
    for s in SHAPES
    for path, artifact in (
        (f"models/{s}.mlpackage/Manifest.json", f"mlpackage {s}"),
        (f"exports/{s}.pt2", f"export {s}"),
        (f"contracts/{s}.json", f"contract {s}"),
    )
)


# --- the same, with real files --------------------------------------------------------------------


class Sink:
    """A store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store = BlobStore.create(folder)

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        stored = self.store.put_file(path, sha256=sha256)
        return Put(digest=stored.digest, size=stored.size, files=())

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        stored = put_tree(self.store, folder, sha256=sha256)
        return Put(digest=stored.digest, size=stored.payload, files=stored.files)


def silent(label: str, done: int, total: int, **figures: float) -> None:
    assert 0 <= done <= total, (label, figures)


def write_input(folder: Path, role: str, kind: Kind, files: dict[str, bytes]) -> Input:
    """An input made of files; one file named like nothing is a blob."""
    place = folder / role.replace("/", "-")
    for name, data in files.items():
        target = place / name if name else place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return Input(
        role=role,
        digest=digest(role.replace("/", " ")),
        kind=kind,
        form="blob" if "" in files else "tree",
        path=place,
        facts={},
    )


def a_context(folder: Path, shapes: Sequence[str] = SHAPES) -> Context:
    """A run's context over real files and a real store in `folder`."""
    inputs = [
        write_input(
            folder / "in",
            "checkpoint",
            Kind.CHECKPOINT,
            {
                "config.json": b'{"vocab_size": 9, "eos_token_id": 2}',
                "generation_config.json": b'{"eos_token_id": [2, 7]}',
                "tokenizer.json": b"{}",
                "model.safetensors": b"weights stay behind",
            },
        )
    ]
    for s in shapes:
        package = {"Manifest.json": b"{}", "Data/weights/weight.bin": s.encode() * 100}
        contract = {"": canonical.encode(a_contract(s).to_json())}
        inputs += [
            write_input(folder / "in", f"mlpackage/{s}", Kind.MLPACKAGE, package),
            write_input(folder / "in", f"export/{s}", Kind.EXPORT, {"": s.encode()}),
            write_input(folder / "in", f"contract/{s}", Kind.CONTRACT, contract),
        ]
    (folder / "work").mkdir()
    (slot,) = slots(Recipe.model_validate(RECIPE))
    return Context(
        slot="deployment",
        params={**slot.params, "plan": PLAN, "verdicts": verdicts()},
        inputs={i.role: (i,) for i in inputs},
        scratch=folder / "work",
        sink=Sink(folder / "objects"),
        progress=silent,
        rows=the_facts(),
    )
