"""A registry with a known history, which every query of docs/sql.md has something to say about.

Two recipes called `small`, a day apart: the first failed its gate, was waived and released; the
second passed, reused the first one's data, failed once on the way, and was released as well.
A third was cancelled, and a fourth waits. Times are days of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.artifact import FileFact, Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import (
    ArtifactPublished,
    GateEvaluated,
    GateWaived,
    Payload,
    PlanCancelled,
    PlanRequested,
    ReleaseCut,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunReused,
    RunStarted,
    RunSucceeded,
    TagMoved,
)
from stillhouse.schemas.policy import CheckResult, Tier, Verdict

DAY = 24 * 60


def name(text: str) -> Digest:
    """A digest that can be read: the text in hexadecimal, repeated."""
    return (text.encode().hex() * 64)[:64]


def parent(role: str, of: str, *, circumstance: bool = False) -> Parent:
    return Parent(role=role, digest=name(of), circumstance=circumstance)


class History:
    """Writes it; `minutes` is the clock, counted from 2026-11-01."""

    def __init__(self, log: Path) -> None:
        self.minutes = 0.0
        self._ledger = Ledger(log, self._now, Actor(user="ada", host="still-1"))
        self._other = Ledger(log, self._now, Actor(user="ben", host="still-2"))
        self._write()

    def _now(self) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=self.minutes)

    def _record(self, *payloads: Payload) -> None:
        self.minutes += 1
        self._ledger.append(payloads)

    def _write(self) -> None:
        self._record(*(self._made(n, k) for n, k in SHARED), self._recipe("plan-1"))
        self._record(PlanRequested(plan=name("plan-1")))
        self._run("data-run-1", "dataset", "plan-1", ("data-1", Kind.DATASET), "teacher", "source")
        self._pipeline("1", torch="2.12.0", verdict=Verdict.FAIL)
        self._record(self._waived("model-1", "ada", "2026-11-20T00:00:00Z"))
        self._release("1", previous=None)
        self.minutes = DAY
        self._record(self._made("source-new", Kind.SOURCE, called="source"))
        self._record(self._recipe("plan-2"), PlanRequested(plan=name("plan-2"), priority=5))
        self._record(self._reused("data-run-1", "dataset", "plan-2"))
        self._pipeline("2", torch="2.13.0", verdict=Verdict.PASS, first="failed")
        self._release("2", previous="release-1")
        self.minutes = 2 * DAY
        self._record(self._recipe("plan-3"), PlanRequested(plan=name("plan-3")))
        self._record(PlanCancelled(plan=name("plan-3"), reason="not wanted"))
        self._record(self._recipe("plan-4"), PlanRequested(plan=name("plan-4")))
        self._began("lost-run", "export", "plan-4", 1, (), torch="2.13.0")
        self._record(RunCancelled(run=name("lost-run"), attempt=1, reason="too slow"))
        died: dict[str, Any] = self._about("lost-run", "export", "plan-4") | {
            "attempt": 1,
            "reason": "ended",
        }
        self._record(RunAbandoned(**died, stopped=True))
        self.minutes = 3 * DAY
        self._other.append([self._waived("model-2", "ben", "2999-01-01T00:00:00Z")])

    # -- stories --------------------------------------------------------------------------------

    def _pipeline(
        self, number: str, *, torch: str, verdict: Verdict, first: str | None = None
    ) -> None:
        run, plan, model = f"train-run-{number}", f"plan-{number}", f"model-{number}"
        inputs = (parent("dataset", "data-1"), parent("recipe", plan, circumstance=True))
        attempt = 1
        if first == "failed":
            self._began(run, "training", plan, 1, inputs, torch=torch)
            broke = {"code": "phase.memory", "message": "It needs more memory.", "remedy": "Add."}
            told: dict[str, Any] = (
                self._about(run, "training", plan) | broke | {"attempt": 1, "seconds": 30.0}
            )
            self._record(RunFailed(**told, transient=True))
            attempt = 2
        self._began(run, "training", plan, attempt, inputs, torch=torch)
        metrics = [{"name": "kl", "value": 0.5, "unit": "nats", "n": 10, "low": 0.4, "high": 0.6}]
        facts = {"subject": name(model), "phase": "training", "metrics": metrics, "not_run": []}
        made = (
            self._made(model, Kind.CHECKPOINT, run=run, role="checkpoint", parents=inputs),
            self._made(
                f"report-{number}", Kind.REPORT, run=run, role="report", parents=inputs, facts=facts
            ),
        )
        self._ended(run, "training", plan, attempt, made, seconds=100.0)
        self._record(self._judged(number, verdict))

    def _release(self, number: str, *, previous: str | None) -> None:
        run, plan, release = f"deploy-run-{number}", f"plan-{number}", f"release-{number}"
        inputs = (parent("checkpoint", f"model-{number}"),)
        self._began(run, "deployment", plan, 1, inputs, torch="2.13.0")
        file = FileFact(path="w.bin", size=3, digest=name("w"), sha256=name("w"))
        made = self._made(
            release, Kind.RELEASE, run=run, role="release", parents=inputs, files=(file,)
        )
        self._ended(run, "deployment", plan, 1, (made,), seconds=10.0)
        cut: dict[str, Any] = {
            "release": name(release),
            "plan": name(plan),
            "tier": Tier.TIER_2,
            "depends_on": 1,
        }
        self._record(ReleaseCut(**cut))
        before = name(previous) if previous else None
        self._record(TagMoved(name="production", digest=name(release), previous=before))

    def _run(self, run: str, phase: str, plan: str, made: tuple[str, Kind], *inputs: str) -> None:
        parents = tuple(parent(of, of) for of in inputs)
        self._began(run, phase, plan, 1, parents, torch="2.12.0")
        fact = self._made(made[0], made[1], run=run, role=phase, parents=parents)
        self._ended(run, phase, plan, 1, (fact,), seconds=50.0)

    # -- facts ----------------------------------------------------------------------------------

    def _began(
        self, run: str, phase: str, plan: str, attempt: int, inputs: Any, *, torch: str
    ) -> None:
        told: dict[str, Any] = self._about(run, phase, plan) | {
            "attempt": attempt,
            "phase_version": 3,
        }
        params = {"steps": 300 if plan == "plan-1" else 400}
        self._record(RunStarted(**told, inputs=inputs, params=params, tools={"torch": torch}))

    def _ended(
        self, run: str, phase: str, plan: str, attempt: int, made: Any, *, seconds: float
    ) -> None:
        outputs = tuple(Parent(role=m.role, digest=m.digest) for m in made)
        told: dict[str, Any] = self._about(run, phase, plan) | {
            "attempt": attempt,
            "seconds": seconds,
        }
        self._record(*made, RunSucceeded(**told, outputs=outputs))

    def _reused(self, run: str, phase: str, plan: str) -> RunReused:
        return RunReused(**self._about(run, phase, plan))

    def _about(self, run: str, phase: str, plan: str) -> dict[str, Any]:
        return {"run": name(run), "phase": phase, "plan": name(plan), "slot": phase}

    def _judged(self, number: str, verdict: Verdict) -> GateEvaluated:
        check = CheckResult(metric="kl", verdict=verdict, value=0.5, op="<=", threshold=0.8, n=10)
        return GateEvaluated(
            gate="training.kl",
            subject=name(f"model-{number}"),
            evidence=name(f"report-{number}"),
            policy=name("policy"),
            verdict=verdict,
            checks=(check,),
        )

    def _waived(self, subject: str, author: str, until: str) -> GateWaived:
        told = {"author": author, "reason": "known", "until": until}
        return GateWaived(gate="training.kl", subject=name(subject), **told)

    def _recipe(self, plan: str) -> ArtifactPublished:
        recipe = {"name": "small", "tier": "tier_2", "policy": name("policy")}
        return self._made(plan, Kind.RECIPE, facts={"recipe": recipe}, called="small")

    def _made(
        self,
        text: str,
        kind: Kind,
        *,
        run: str | None = None,
        called: str | None = None,
        facts: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> ArtifactPublished:
        return ArtifactPublished(
            digest=name(text),
            kind=kind,
            form="blob",
            size=len(text),
            origin="run" if run else "imported",
            run=name(run) if run else None,
            name=called or text,
            facts=dict(facts or {}),
            **more,
        )


SHARED = (
    ("policy", Kind.POLICY),
    ("teacher", Kind.TEACHER),
    ("source", Kind.SOURCE),
    ("stray", Kind.SOURCE),
)
