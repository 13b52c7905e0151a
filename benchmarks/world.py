"""A synthesised registry of any size: plans, runs, gates, waivers, tags and releases as they come.

Lines are made as `chain.encode_line` makes them, only faster: of plain dictionaries, through
`json.dumps` with sorted keys, which is the same as RFC 8785 for the text, integers and short
decimals that stand here. `write` checks that on every thousandth line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stillhouse.registry.ledger.format import encode_line
from stillhouse.schemas import moment
from stillhouse.schemas.event import GENESIS, Event

PER_PLAN = 25
"""Artifacts of one plan, about."""

_SPOT = 1000
_FLUSH = 20_000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_ACTORS = ("ada", "ben", "cyd", "dee")
_SHAPES = ("prefill-128", "prefill-256", "decode-128")
_MEASURED = {
    "dataset": ("schema.errors", "duplicates", "leakage.content", "privacy.email"),
    "training": ("steps", "held_out.kl", "held_out.top1_agreement", "train.loss_last"),
    "export": ("parity.max_abs", "causality.max_abs_change"),
    "conversion": ("io.mismatches", "ops.total", "package.bytes"),
    "verification": ("fp32.kl", "fp32.top1_agreement", "declared.kl", "declared.max_abs"),
    "evaluation": ("trained.kl", "trained.slot_accuracy", "untrained.kl", "teacher.perplexity"),
}
_GATES = {
    "dataset": ("schema", "leakage", "privacy"),
    "training": ("integrity", "kl"),
    "export": ("parity", "causality"),
    "conversion": ("complete",),
    "verification": ("parity", "numeric"),
    "evaluation": ("kl", "slots"),
}

_AGAIN, _DIED, _FAILED, _EXPIRED = 0.04, 0.3, 0.05, 0.5
"""How often a run fails at first, dies instead, a verdict is `fail`, a waiver is short."""

Fact = tuple[str, dict[str, Any]]
Batch = list[Fact]


@dataclass
class World:
    """Makes batches of events, and knows what stands where afterwards."""

    seed: int = 7
    artifacts: int = 0
    edges: int = 0
    known: dict[str, str] = field(default_factory=dict)
    """Name -> digest of things to ask about: teacher, dataset, release, mlpackage, policy …"""
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def batches(self, artifacts: int) -> Iterator[Batch]:
        """Whole plans, until there are so many artifacts."""
        yield self._shared()
        for number in itertools.count(1):
            if self.artifacts >= artifacts:
                return
            yield from self._plan(number)

    # -- what plans share -----------------------------------------------------------------------

    def _shared(self) -> Batch:
        self.teachers = [self._digest() for _ in range(20)]
        self.sources = [self._digest() for _ in range(60)]
        self.policies = [self._digest() for _ in range(3)]
        self.data: list[dict[str, str]] = []
        self.production = ""
        facts = [
            self._made(d, "teacher", size=10**9, name=f"teacher-{i}")
            for i, d in enumerate(self.teachers)
        ]
        facts += [self._made(d, "source", name=f"source-{i}") for i, d in enumerate(self.sources)]
        facts += [self._made(d, "policy", name=f"policy-{i}") for i, d in enumerate(self.policies)]
        self.known |= {"teacher": self.teachers[3], "policy": self.policies[0]}
        return [*facts, self._probe(1)]

    def _probe(self, number: int) -> Fact:
        self.environment = self._digest()
        self.torch = f"2.{10 + number % 5}.0"
        metrics = [{"name": "unsupported", "value": 0}]
        facts = {"metrics": metrics, "versions": {"torch": self.torch}, "subject": self.environment}
        return self._made(self.environment, "environment", origin="probe", facts=facts)

    # -- one plan -------------------------------------------------------------------------------

    def _plan(self, number: int) -> Iterator[Batch]:
        chance = self._chance
        if number % 500 == 0:
            yield [self._probe(number // 500)]
        if number % 300 == 0:
            renewed = number // 300 % len(self.sources)
            self.sources[renewed] = self._digest()
            yield [self._made(self.sources[renewed], "source", name=f"source-{renewed}")]
        plan = self._digest()
        policy = self.policies[number % 3]
        recipe = {
            "name": f"student-{number % 200}",
            "tier": f"tier_{1 + number % 3}",
            "policy": policy,
        }
        yield [self._made(plan, "recipe", size=900, name=recipe["name"], facts={"recipe": recipe})]
        yield [("plan.requested", {"plan": plan, "priority": 0})]
        if number % 97 == 0:
            yield [("plan.cancelled", {"plan": plan, "reason": "no longer wanted"})]
            return
        self.plan, self.policy = plan, policy
        if number % 10 == 1 or not self.data:
            yield from self._dataset(number)
            data = self.data[-1]
        else:
            data = chance.choice(self.data[-8:])
            run = data["run"]
            yield [
                ("run.reused", {"run": run, "phase": "dataset", "plan": plan, "slot": "dataset"})
            ]
        trained: dict[str, str] = {}
        inputs = [self._from(data, r) for r in ("dataset", "teacher_cache", "teacher_model")]
        yield from self._run("training", "training", inputs, ("checkpoint", "untrained"), trained)
        if (number + 1) % 40 == 0:
            yield from self._lost(
                "export", "export/prefill-512", [self._from(trained, "checkpoint")]
            )
        packages: list[dict[str, Any]] = []
        for shape in _SHAPES:
            yield from self._shape(shape, trained, data, packages)
        judged: dict[str, str] = {}
        inputs = [
            self._from(trained, "checkpoint"),
            self._from(trained, "untrained"),
            self._from(data, "dataset"),
        ]
        yield from self._run(
            "evaluation", "evaluation", inputs, (), judged, subject=trained["checkpoint"]
        )
        if number % 5 == 0:
            return
        sealed: dict[str, str] = {}
        inputs = [*packages, self._from(trained, "checkpoint")]
        yield from self._run("deployment", "deployment", inputs, ("release",), sealed)
        yield [
            (
                "release.cut",
                {
                    "release": sealed["release"],
                    "plan": plan,
                    "tier": recipe["tier"],
                    "depends_on": 1,
                },
            )
        ]
        if number % 7 == 0:
            moved = {"name": "production", "digest": sealed["release"]}
            yield [
                ("tag.moved", moved | ({"previous": self.production} if self.production else {}))
            ]
            self.production = sealed["release"]
        if (number + 1) % 20 == 0 or "release" not in self.known:
            self.known |= {
                "other_release": self.known.get("release", sealed["release"]),
                "release": sealed["release"],
                "mlpackage": packages[0]["digest"],
                "dataset": data["dataset"],
                "checkpoint": trained["checkpoint"],
                "plan": plan,
            }

    def _dataset(self, number: int) -> Iterator[Batch]:
        chance = self._chance
        made: dict[str, str] = {}
        inputs = [{"role": "source", "digest": chance.choice(self.sources)} for _ in range(2)]
        inputs.append({"role": "teacher", "digest": self.teachers[number // 10 % 20]})
        roles = ("dataset", "teacher_cache", "teacher_model")
        yield from self._run("dataset", "dataset", inputs, roles, made)
        self.data.append(made)

    def _shape(
        self,
        shape: str,
        trained: dict[str, str],
        data: dict[str, str],
        packages: list[dict[str, Any]],
    ) -> Iterator[Batch]:
        graph: dict[str, str] = {}
        inputs = [self._from(trained, "checkpoint")]
        yield from self._run("export", f"export/{shape}", inputs, ("export", "contract"), graph)
        package: dict[str, str] = {}
        inputs = [self._from(graph, "export"), self._from(graph, "contract")]
        yield from self._run("conversion", f"conversion/{shape}", inputs, ("mlpackage",), package)
        inputs = [
            self._from(package, "mlpackage"),
            self._from(graph, "contract"),
            self._from(data, "dataset"),
        ]
        subject = package["mlpackage"]
        yield from self._run(
            "verification", f"verification/{shape}", inputs, (), {}, subject=subject
        )
        packages.append({"role": f"mlpackage/{shape}", "digest": subject})

    # -- one run --------------------------------------------------------------------------------

    def _run(
        self,
        phase: str,
        slot: str,
        inputs: list[dict[str, Any]],
        roles: tuple[str, ...],
        made: dict[str, str],
        *,
        subject: str | None = None,
    ) -> Iterator[Batch]:
        chance = self._chance
        run = made["run"] = self._digest()
        parents = [
            *inputs,
            {"role": "recipe", "digest": self.plan, "circumstance": True},
            {"role": "environment", "digest": self.environment, "circumstance": True},
        ]
        common = {"run": run, "phase": phase, "plan": self.plan, "slot": slot}
        started = common | {
            "phase_version": 3,
            "inputs": parents,
            "params": {"steps": 300, "threads": 2, "seed": 0},
            "tools": {"torch": self.torch, "transformers": "5.23.0", "safetensors": "0.6.0"},
        }
        attempt = 1
        if chance.random() < _AGAIN:
            yield [("run.started", started | {"attempt": 1})]
            yield [self._failure(common)]
            attempt = 2
        yield [("run.started", started | {"attempt": attempt})]
        facts: Batch = []
        for role in roles:
            made[role] = self._digest()
            kind = {"untrained": "baseline", "teacher_model": "teacher"}.get(role, role)
            bound = kind in ("mlpackage", "export", "contract", "release")
            facts.append(
                self._made(
                    made[role], kind, parents=parents, run=run, role=role, files=4 if bound else 0
                )
            )
        if phase in _MEASURED:
            made["report"] = self._digest()
            subject = subject or made[roles[0]]
            facts.append(self._report(made["report"], phase, subject, parents, run))
        seconds = round(chance.uniform(1, 300), 3) + 0.0005
        outputs = [{"role": f[1]["role"], "digest": f[1]["digest"]} for f in facts]
        end = common | {
            "attempt": attempt,
            "outputs": outputs,
            "seconds": seconds,
            "log": self._digest(),
        }
        yield [*facts, ("run.succeeded", end)]
        if phase in _GATES and subject:
            yield from self._judged(phase, subject, made["report"])

    def _lost(self, phase: str, slot: str, inputs: list[dict[str, Any]]) -> Iterator[Batch]:
        """A run that stands failed."""
        common = {"run": self._digest(), "phase": phase, "plan": self.plan, "slot": slot}
        begun = common | {
            "attempt": 1,
            "phase_version": 3,
            "inputs": inputs,
            "params": {},
            "tools": {},
        }
        yield [("run.started", begun)]
        yield [self._failure(common)]

    def _failure(self, common: dict[str, Any]) -> Fact:
        if self._chance.random() < _DIED:
            return ("run.abandoned", common | {"attempt": 1, "reason": "killed by SIGKILL"})
        why = {
            "code": "phase.out_of_memory",
            "message": "It needs more memory.",
            "remedy": "Add some.",
        }
        return ("run.failed", common | why | {"attempt": 1, "seconds": 12.5, "transient": True})

    def _judged(self, phase: str, subject: str, report: str) -> Iterator[Batch]:
        chance = self._chance
        facts: Batch = []
        for name in _GATES[phase]:
            failed = chance.random() < _FAILED
            verdict = "fail" if failed else "pass"
            check = {
                "metric": "kl",
                "op": "<=",
                "threshold": 0.25,
                "value": 0.5 if failed else 0.125,
                "n": 64,
            }
            checks = [check | {"verdict": verdict, "reason": ""}]
            told = {
                "gate": f"{phase}.{name}",
                "subject": subject,
                "evidence": report,
                "policy": self.policy,
            }
            facts.append(("gate.evaluated", told | {"verdict": verdict, "checks": checks}))
            if failed:
                waived = {
                    "gate": f"{phase}.{name}",
                    "subject": subject,
                    "author": chance.choice(_ACTORS),
                }
                until = (
                    "2026-06-01T00:00:00Z" if chance.random() < _EXPIRED else "2099-01-01T00:00:00Z"
                )
                facts.append(
                    ("gate.waived", waived | {"reason": "known, and small", "until": until})
                )
        yield facts

    # -- facts ----------------------------------------------------------------------------------

    def _made(
        self,
        digest: str,
        kind: str,
        *,
        parents: list[dict[str, Any]] | None = None,
        size: int = 4096,
        files: int = 0,
        **more: Any,  # noqa: ANN401  # the rest of the payload
    ) -> Fact:
        self.artifacts += 1
        self.edges += len(parents or ())
        listed = [
            {
                "path": f"part-{i}.bin",
                "size": size,
                "digest": digest[i:] + digest[:i],
                "sha256": digest,
            }
            for i in range(files)
        ]
        told = {
            "origin": "run" if "run" in more else "imported",
            "parents": parents or [],
            "files": listed,
        }
        return (
            "artifact.published",
            {"facts": {}, "form": "blob"}
            | told
            | more
            | {"digest": digest, "kind": kind, "size": size},
        )

    def _report(
        self, digest: str, phase: str, subject: str, parents: list[dict[str, Any]], run: str
    ) -> Fact:
        chance = self._chance
        metrics = [
            {"name": name, "value": round(chance.random(), 6) + 0.0000005, "unit": "nats", "n": 128}
            for name in _MEASURED[phase]
        ]
        facts = {"subject": subject, "phase": phase, "metrics": metrics, "not_run": []}
        return self._made(digest, "report", parents=parents, facts=facts, run=run, role="report")

    def _from(self, made: dict[str, str], role: str) -> dict[str, Any]:
        return {"role": role, "digest": made[role]}

    def _digest(self) -> str:
        return hashlib.sha256(b"%d %d" % (self.seed, next(self._count))).hexdigest()


def write(path: Path, batches: Iterator[Batch], *, step: float = 3.0) -> int:
    """Write a new log; the seq that is reached. step: seconds between two batches."""
    seq, prev, at = 0, GENESIS, _START
    lines: list[bytes] = []
    with path.open("wb") as log:
        for batch in batches:
            at += timedelta(seconds=step)
            ts = moment.spell(at)
            for place, (kind, data) in enumerate(batch, start=1):
                seq += 1
                told = {
                    "actor": {"host": "still-1", "user": _ACTORS[seq // 1000 % 4]},
                    "batch": f"{place}/{len(batch)}",
                    "data": data,
                    "prev": prev,
                    "seq": seq,
                    "ts": ts,
                    "type": kind,
                    "v": 1,
                }
                body = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
                prev = hashlib.sha256(body).hexdigest()
                lines.append(prev.encode() + b"\t" + body + b"\n")
                if seq % _SPOT == 0 and encode_line(Event.model_validate(told))[0] != lines[-1]:
                    raise AssertionError(f"event {seq} is not canonical")
            if len(lines) >= _FLUSH:
                log.writelines(lines)
                lines.clear()
        log.writelines(lines)
    return seq
