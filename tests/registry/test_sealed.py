"""Manifests held against the ledger: what differs is named, and what older rules claimed."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.registry.audit.sealed import Claim, Sealed, compare
from stillhouse.registry.state.runs import Success
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import RunStarted
from stillhouse.schemas.policy import Policy, Tier
from stillhouse.schemas.release import Head, Manifest, ReleasedArtifact
from stillhouse.schemas.rows import ArtifactRow, ReleaseRows

PLAN, RELEASE, POLICY = "11" * 32, "22" * 32, "33" * 32
MINE, OTHERS = "44" * 32, "55" * 32


def _row(digest: str, name: str) -> ArtifactRow:
    return ArtifactRow(
        digest=digest, kind=Kind.SOURCE, size=1, origin="imported", name=name, seq=1, facts={}
    )


ROWS = ReleaseRows(
    rule=2,
    recipe={},
    policy=Policy(name="p", gates={}, tiers={}),
    artifacts=(_row(MINE, "mine.jsonl"),),
    runs=(),
    failures={},
    verdicts={},
    waivers={},
    head=Head(seq=1, hash="a" * 64),
)
STARTED = RunStarted(
    run="66" * 32,
    phase="deployment",
    phase_version=3,
    plan=PLAN,
    slot="deployment",
    attempt=1,
    inputs=(),
    params={},
    tools={},
)
FOUND = Sealed(
    release=RELEASE,
    plan=PLAN,
    success=Success(seq=9, started_seq=8, started=STARTED, outputs={"release": RELEASE}),
    rows=ROWS,
)


def _manifest(*digests: str, **changes: Any) -> Manifest:
    artifacts = tuple(
        ReleasedArtifact(
            role="source",
            kind=Kind.SOURCE,
            digest=digest,
            size=1,
            origin="imported",
            name="a.jsonl",
            seq=1,
            released=False,
        )
        for digest in digests
    )
    known: dict[str, Any] = {
        "rule": 2,
        "name": "r",
        "tier": Tier.TIER_2,
        "plan": PLAN,
        "policy": POLICY,
        "recipe": {"name": "r"},
        "artifacts": artifacts,
        "files": (),
        "capabilities": (),
        "gates": (),
        "not_run": (),
        "shapes": (),
        "provenance": (),
        "toolchain": {},
        "environment": {},
        "depends_on": Head(seq=1, hash="a" * 64),
    }
    return Manifest(**(known | changes))


def test_a_manifest_that_is_what_the_ledger_says_differs_in_nothing() -> None:
    found = compare(FOUND, _manifest(MINE), _manifest(MINE))
    assert (found.differing, found.overclaimed, found.rule) == ((), (), 2)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("recipe", {"name": "another"}),
        ("toolchain", {"torch": "9"}),
        ("limits", ("none",)),
        ("artifacts", ()),
    ],
)
def test_every_part_that_the_ledger_does_not_say_is_named(part: str, told: object) -> None:
    found = compare(FOUND, _manifest(MINE, **{part: told}), _manifest(MINE))
    assert found.differing == (part,)


def test_a_manifest_of_which_the_ledger_gives_none_differs_in_all() -> None:
    assert compare(FOUND, _manifest(MINE), None).differing == ("all",)


def test_of_rule_1_it_is_listed_what_never_shaped_the_release() -> None:
    old = _manifest(MINE, OTHERS, rule=1)
    found = compare(FOUND, old, _manifest(MINE))
    assert found.differing == ()
    assert found.overclaimed == (Claim(kind="source", digest=OTHERS, name="a.jsonl"),)


def test_of_rule_1_what_every_rule_tells_is_compared() -> None:
    old = _manifest(MINE, rule=1, recipe={"name": "forged"})
    assert compare(FOUND, old, _manifest(MINE)).differing == ("recipe",)
