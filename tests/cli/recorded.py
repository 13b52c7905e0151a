"""A real registry in which a plan's runs are recorded as having ended as told, without executing.

Decisions, gates, keys and slots are the real ones; what a worker would have made is put into the
real store by `Recorder`, so every reading command can be tried in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse import recipes
from stillhouse.phases import environment
from stillhouse.phases.catalog import CATALOG
from stillhouse.publish import publish_policy
from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import PlanView, SlotView
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import FileFact, Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import ArtifactPublished, RunFailed, RunStarted, RunSucceeded
from stillhouse.schemas.facts import ReleaseFacts, ReportFacts
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.release import (
    GateRow,
    Head,
    Manifest,
    ReleasedArtifact,
    ReleasedFile,
    RuntimeConfig,
)
from stillhouse.schemas.report import metric
from stillhouse.session import Session
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.trees.trees import put_tree

MEASURED = {
    "export": {"parity.max_abs": 0.01},
    "conversion": {"io.mismatches": 0.0},
    "verification": {"fp32.kl": 1e-5},
}
"""Phase -> what its reports measure, unless told otherwise."""


@dataclass
class Recorder:
    """Advances plans of one registry by recording outcomes."""

    session: Session
    scratch: Path
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    """Slot -> metrics that its report has instead."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> the ends of its confidence interval, where it has one."""
    failing: set[str] = field(default_factory=set)
    going_on: set[str] = field(default_factory=set)
    """Slots whose runs are recorded as started and not heard of again."""
    checkpoint_stored: bool = True
    gates: tuple[GateRow, ...] = ()
    """What the manifests of releases say of gates."""
    logs: bool = False
    """Whether runs have printed something."""

    def plan(self, policy: Path, **changes: Any) -> Digest:
        """Publish a recipe over a checkpoint from elsewhere, and ask for its plan."""
        document: dict[str, Any] = {
            "name": "small",
            "policy": publish_policy(self.session, policy).digest,
            "given": {"checkpoint": self._checkpoint()},
            "export": {"prefill": [8, 16], "primary": 8},
            "conversion": {},
            "verification": {},
            "deployment": {},
        }
        recipe = Recipe.model_validate(document | changes)
        plan = recipes.resolve_recipe(self.session, recipe, base=None)
        recipes.request(self.session, plan)
        return plan

    def run(self, plan: Digest) -> PlanView:
        """Advance until nothing more would happen."""
        self._environment()
        for _ in range(100):
            reactor = self.session.reactor()
            agenda = Agenda(reactor.state, CATALOG, reactor.site(), only=plan)
            if facts := agenda.facts(reactor.now()):
                self.session.ledger.append(facts)
                continue
            starts = tuple(agenda.starts())
            if not starts:
                return reactor.view(plan)
            for start in starts:
                self._execute(start)
        raise AssertionError("the plan never came to rest")

    def _checkpoint(self) -> Digest:
        data = b"weights"
        stored = hash_bytes(data).digest
        if self.checkpoint_stored:
            self.session.store.put_bytes(data)
        self._publish(stored, Kind.CHECKPOINT, size=len(data))
        return stored

    def _environment(self) -> None:
        probed = environment.probe()
        data = canonical.encode(probed.to_json())
        stored = self.session.store.put_bytes(data).digest
        state = self.session.state()
        if state.latest.get(Kind.ENVIRONMENT) != stored:
            # As on a machine where everything is as it should be.
            fine = (metric("unsupported", 0),)
            facts = environment.facts(probed).model_copy(update={"metrics": fine}).to_json()
            self._publish(stored, Kind.ENVIRONMENT, size=len(data), origin="probe", facts=facts)

    def _publish(
        self, digest: Digest, kind: Kind, *, size: int, origin: Any = "imported", **more: Any
    ) -> None:
        self.session.ledger.append(
            [
                ArtifactPublished(
                    digest=digest, kind=kind, form="blob", size=size, origin=origin, **more
                )
            ]
        )

    def _execute(self, start: Start) -> None:
        view = start.view
        assert view.key is not None
        reactor = self.session.reactor()
        inputs = (
            *view.inputs,
            Parent(role="recipe", digest=start.plan, circumstance=True),
            Parent(role="environment", digest=reactor.site().environment, circumstance=True),
        )
        common: dict[str, Any] = {
            "run": view.key,
            "phase": view.spec.name,
            "plan": start.plan,
            "slot": view.slot.id,
            "attempt": view.attempt,
        }
        self.session.ledger.append(
            [
                RunStarted(
                    **common,
                    phase_version=view.spec.version,
                    inputs=inputs,
                    params=dict(view.params),
                    tools=dict(view.tools),
                )
            ]
        )
        if view.slot.id in self.going_on:
            return
        if view.slot.id in self.failing:
            failed = RunFailed(
                **common, code="x.broke", message="It broke.", remedy="Mend it.", seconds=1
            )
            self.session.ledger.append([failed])
            return
        made = [
            self._made(view, role.role, role.kind, inputs)
            for role in view.spec.makes
            if role.role != "report"
        ]
        if "report" in {promised.role for promised in view.spec.makes}:
            made.append(self._report(view, made[0].digest if made else None, inputs))
        outputs = tuple(Parent(role=f.role or "", digest=f.digest) for f in made)
        log = None
        if self.logs:
            log = self.session.store.put_bytes(f"log of {view.key}\n".encode()).digest
        success = RunSucceeded(**common, outputs=outputs, seconds=1, log=log)
        self.session.ledger.append([*made, success])

    def _made(
        self, view: SlotView, role: str, kind: Kind, inputs: tuple[Parent, ...]
    ) -> ArtifactPublished:
        if kind is Kind.RELEASE:
            return self._release(view, inputs)
        data = canonical.encode({"role": role, "run": view.key or ""})
        return ArtifactPublished(
            digest=self.session.store.put_bytes(data).digest,
            kind=kind,
            form="blob",
            size=len(data),
            origin="run",
            run=view.key,
            role=role,
            parents=inputs,
        )

    def _report(
        self, view: SlotView, made: Digest | None, inputs: tuple[Parent, ...]
    ) -> ArtifactPublished:
        """About what the run made, or, when it only measures, about its package."""
        subject = made or next(i.digest for i in inputs if i.role == "mlpackage")
        values = self.measured.get(view.slot.id, MEASURED[view.spec.name])
        metrics = tuple(
            metric(n, v, n=8, interval=self.intervals.get(n)) for n, v in values.items()
        )
        facts = ReportFacts(phase=view.spec.name, subject=subject, metrics=metrics).to_json()
        data = canonical.encode(facts | {"run": view.key})
        return ArtifactPublished(
            digest=self.session.store.put_bytes(data).digest,
            kind=Kind.REPORT,
            form="blob",
            size=len(data),
            origin="run",
            run=view.key,
            role="report",
            parents=inputs,
            facts=facts,
        )

    def _release(self, view: SlotView, inputs: tuple[Parent, ...]) -> ArtifactPublished:
        head = self.session.ledger.head()
        folder = self.scratch / f"release-{head.seq}"
        package = next(i.digest for i in inputs if i.role.startswith("mlpackage/"))
        last = Head(seq=head.seq, hash=head.hash)
        write_release(folder, package, view.params, last, gates=self.gates)
        tree = put_tree(self.session.store, folder, sha256=True)
        return ArtifactPublished(
            digest=tree.digest,
            kind=Kind.RELEASE,
            form="tree",
            size=tree.payload,
            origin="run",
            run=view.key,
            role="release",
            parents=inputs,
            facts=ReleaseFacts(
                name=view.params["name"],
                tier=view.params["tier"],
                plan=view.params["plan"],
                policy=view.params["policy"],
                depends_on=head.seq,
                manifest=tree.digest,
                manifest_sha256=head.hash,
                shapes={},
                capabilities=(),
                not_run=("device_predict",),
            ).to_json(),
            files=tuple(FileFact.model_validate(f) for f in tree.files),
        )


def write_release(
    folder: Path, package: Digest, params: Any, head: Head, *, gates: tuple[GateRow, ...] = ()
) -> None:
    """The smallest folder that is a consistent release."""
    folder.mkdir(parents=True)
    config = RuntimeConfig(
        name=params["name"],
        models=(),
        tokenizer=None,
        eos_token_ids=(0,),
        vocab_size=9,
        max_new_tokens=1,
        temperature=0.0,
        max_refinement_loops=0,
        max_latent_spans=0,
        caws_tier=params["tier"],
    )
    (folder / "runtime_config.json").write_bytes(canonical.encode(config.to_json()))
    (folder / "weight.bin").write_bytes(b"weights of the package")
    manifest = Manifest(
        name=params["name"],
        tier=params["tier"],
        plan=params["plan"],
        policy=params["policy"],
        recipe={},
        artifacts=(
            ReleasedArtifact(
                role="mlpackage",
                kind=Kind.MLPACKAGE,
                digest=package,
                size=22,
                origin="run",
                seq=1,
                released=True,
            ),
        ),
        files=tuple(
            _file(folder / name, owner)
            for name, owner in (("runtime_config.json", None), ("weight.bin", package))
        ),
        capabilities=(),
        gates=gates,
        not_run=("device_predict",),
        shapes=(),
        provenance=(),
        toolchain={},
        environment={},
        depends_on=head,
    )
    (folder / "deployment_manifest.json").write_bytes(canonical.encode(manifest.to_json()))


def _file(path: Path, owner: Digest | None) -> ReleasedFile:
    found = hash_bytes(path.read_bytes(), sha256=True)
    assert found.sha256 is not None
    return ReleasedFile(
        path=path.name, size=found.size, blake3=found.digest, sha256=found.sha256, artifact=owner
    )
