from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases.deployment import SPEC, run, slots
from stillhouse.phases.deployment.assembly import assemble
from stillhouse.phases.deployment.request import Request, eos_of
from stillhouse.phases.deployment.verify import verify_folder
from stillhouse.phases.deployment.work import release as release_of
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.events import GateEvaluated, GateWaived
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.release import Manifest
from stillhouse.schemas.rows import ReleaseRows

from .release_parts import (
    CHECKPOINT,
    FILES,
    NOW,
    POLICY,
    RECIPE,
    SHAPES,
    THE_CHECKPOINT,
    THE_POLICY,
    WAIVER,
    a_context,
    a_graph,
    a_request,
    a_verdict,
    digest,
    the_artifacts,
    the_facts,
    verdicts,
)

GRAPHS = tuple(a_graph(s) for s in SHAPES)


def assembled(
    rows: list[dict[str, Any]] | None = None,
    facts: ReleaseRows | None = None,
    without: str = "",
) -> Manifest:
    graphs = [g for g in GRAPHS if g.shape.id != without]
    files = [f for f in FILES if not without or without not in f.path]
    manifest, _ = assemble(a_request(rows), graphs, THE_CHECKPOINT, files, facts or the_facts())
    return manifest


# --- slots ------------------------------------------------------------------------------------


def test_a_recipe_without_a_deployment_section_asks_for_no_release() -> None:
    assert slots(Recipe.model_validate({**RECIPE, "deployment": None})) == ()


def test_only_secondary_prefill_lengths_are_optional() -> None:
    (slot,) = slots(Recipe.model_validate(RECIPE))
    optional = {need.role for need in slot.needs if need.optional}
    assert optional == {"mlpackage/prefill-16", "export/prefill-16", "contract/prefill-16"}
    assert SPEC.seals


# --- gates ------------------------------------------------------------------------------------


def test_a_release_of_passing_gates_says_what_rests_on_what() -> None:
    manifest = assembled()
    assert [s.status for s in manifest.shapes] == ["released"] * 3
    assert manifest.not_run == ("device_predict",)
    assert manifest.toolchain == {"coremltools": "9.0", "torch": "2.12.0 and 2.13.0"}
    assert list(manifest.environment.values()) == [{"cores": 2}]
    assert manifest.depends_on.seq == 95
    released = {a.role for a in manifest.artifacts if a.released}
    assert released == {f"{k}/{s}" for k in ("mlpackage", "export", "contract") for s in SHAPES}


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "not_run"])
def test_a_required_gate_that_did_not_pass_refuses_the_release(verdict: str) -> None:
    with pytest.raises(PhaseError, match=rf"evaluation.kl \(evaluation over .*\): {verdict}"):
        assembled(verdicts(evaluation={"verdict": verdict}))


def test_every_reason_for_refusal_is_listed() -> None:
    rows = verdicts(evaluation={"verdict": "fail"}, verification_decode_8={"verdict": "fail"})
    with pytest.raises(PhaseError) as refused:
        assembled(rows)
    assert "verification/decode-8" in refused.value.message
    assert "evaluation.kl" in refused.value.message


def test_a_required_gate_that_nothing_was_judged_by_refuses_the_release() -> None:
    rows = [row for row in verdicts() if row["gate"] != "evaluation.kl"]
    with pytest.raises(PhaseError, match=r"evaluation\.kl: not_run, nothing was judged"):
        assembled(rows)


def test_a_hand_made_report_is_no_evidence() -> None:
    evidence = digest("report evaluation")
    artifacts = [
        a.model_copy(update={"origin": "imported"}) if a.digest == evidence else a
        for a in the_artifacts()
    ]
    with pytest.raises(PhaseError, match="its evidence comes from no recorded run"):
        assembled(facts=the_facts(artifacts=artifacts))


def test_a_verdict_under_another_policy_does_not_count() -> None:
    with pytest.raises(PhaseError, match="judged under another policy"):
        assembled(verdicts(evaluation={"policy": digest("older policy")}))


def test_a_waiver_lets_the_release_through_and_is_told() -> None:
    manifest = assembled(verdicts(evaluation={"verdict": "fail", "waiver": WAIVER}))
    waived = next(g for g in manifest.gates if g.gate == "evaluation.kl")
    assert waived.verdict is Verdict.FAIL
    assert waived.waiver is not None
    assert any("ann waived it until 2030" in limit for limit in manifest.limits)


EVIDENCE = digest("report evaluation")
SAID = GateEvaluated(
    gate="evaluation.kl",
    subject=CHECKPOINT,
    evidence=EVIDENCE,
    policy=POLICY,
    verdict=Verdict.FAIL,
    checks=(CheckResult(metric="m", op="<=", threshold=1.0, verdict=Verdict.FAIL, value=2.0),),
)
WAIVED = GateWaived(
    gate="evaluation.kl", subject=CHECKPOINT, author="ann", reason="known", until=WAIVER["until"]
)


def lean(waiver_seq: int | None) -> list[dict[str, Any]]:
    """Rows that hold no more than a run's parameters need to."""
    rows = verdicts(evaluation={"verdict": "fail", "seq": 93, "waiver_seq": waiver_seq})
    for row in rows:
        for key in ("policy", "checks", "waiver"):
            del row[key]
    return rows


def test_what_a_verdict_and_its_waiver_say_is_read_from_the_ledger() -> None:
    facts = the_facts(verdicts={93: SAID}, waivers={95: WAIVED})
    manifest = assembled(lean(95), facts)
    waived = next(g for g in manifest.gates if g.gate == "evaluation.kl")
    assert (waived.checks, waived.policy) == (SAID.checks, POLICY)
    assert waived.waiver is not None
    assert waived.waiver.to_json() == WAIVER
    assert a_request(lean(95)).events == (90, 93, 95)


def test_a_waiver_that_expired_opens_nothing_and_is_told_beside_what_it_waived() -> None:
    facts = the_facts(verdicts={93: SAID}, waivers={95: WAIVED})
    required = verdicts(evaluation={"verdict": "fail", "seq": 93, "lapsed_seqs": [95]})
    with pytest.raises(PhaseError, match=r"evaluation\.kl .*: fail"):
        assembled(required, facts)
    rows = verdicts()
    speed = next(row for row in rows if row["gate"] == "evaluation.speed")
    speed["lapsed_seqs"] = [95]
    manifest = assembled(rows, facts)
    told = next(g for g in manifest.gates if g.gate == "evaluation.speed")
    assert (told.waiver, [w.to_json() for w in told.expired]) == (None, [WAIVER])
    assert any("ann's waiver expired on 2030" in limit for limit in manifest.limits)
    assert 95 in a_request(rows).events


def test_a_waiver_that_the_ledger_does_not_hold_opens_nothing() -> None:
    for seq in (None, 95):
        with pytest.raises(PhaseError, match=r"evaluation\.kl .*: fail"):
            assembled(lean(seq), the_facts(verdicts={93: SAID}))


def test_a_verdict_that_the_ledger_has_under_another_policy_does_not_count() -> None:
    other = SAID.model_copy(update={"policy": digest("older policy")})
    with pytest.raises(PhaseError, match="judged under another policy"):
        assembled(lean(95), the_facts(verdicts={93: other}, waivers={95: WAIVED}))


# --- shapes -----------------------------------------------------------------------------------


def test_an_optional_shape_whose_gate_is_closed_is_excluded_and_named() -> None:
    rows = verdicts(verification_prefill_16={"verdict": "fail"})
    manifest = assembled(rows, without="prefill-16")
    excluded = next(s for s in manifest.shapes if s.length == 16)
    assert (excluded.status, excluded.reason) == ("excluded", "verification.numbers: fail")
    assert any(limit.startswith("prefill-16 is not released") for limit in manifest.limits)
    assert "checked_numbers" in {c.name for c in manifest.capabilities}


def test_an_optional_shape_that_failed_says_why() -> None:
    rows = verdicts(
        verification_prefill_16={"verdict": "not_run", "subject": None, "evidence": None}
    )
    facts = the_facts(failures={"export/prefill-16": "out of memory"})
    manifest = assembled(rows, facts, without="prefill-16")
    failed = next(s for s in manifest.shapes if s.length == 16)
    assert (failed.status, failed.reason) == ("failed", "export/prefill-16: out of memory")
    assert all(g.slot != "verification/prefill-16" for g in manifest.gates)


def test_an_optional_shape_with_a_closed_gate_cannot_slip_in() -> None:
    with pytest.raises(PhaseError, match="verification/prefill-16"):
        assembled(verdicts(verification_prefill_16={"verdict": "fail"}))


@pytest.mark.parametrize("shape", ["prefill-8", "decode-8"])
def test_a_required_shape_must_be_there(shape: str) -> None:
    with pytest.raises(PhaseError, match=f"{shape} is required and was not made"):
        assembled(without=shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 9}, "is for prefill-9"),
        ({"export_digest": digest("other")}, "is for another export"),
        ({"checkpoint": digest("other")}, "is for another checkpoint"),
    ],
)
def test_a_contract_about_something_else_refuses_the_release(
    changes: dict[str, Any], message: str
) -> None:
    graphs = [a_graph("prefill-8", **changes), *GRAPHS[1:]]
    with pytest.raises(PhaseError, match=message):
        assemble(a_request(), graphs, THE_CHECKPOINT, FILES, the_facts())


# --- capabilities -----------------------------------------------------------------------------


def test_a_capability_names_its_gates_and_the_digests_they_passed_on() -> None:
    found = {c.name: c for c in assembled().capabilities}
    assert set(found) == {"checked_numbers", "faithful"}
    assert found["checked_numbers"].subjects == tuple(
        sorted(digest(f"mlpackage {s}") for s in SHAPES)
    )
    assert CHECKPOINT in found["faithful"].subjects


def test_a_waived_gate_grants_no_capability() -> None:
    manifest = assembled(verdicts(evaluation={"verdict": "fail", "waiver": WAIVER}))
    assert {c.name for c in manifest.capabilities} == {"checked_numbers"}


def test_a_pass_on_a_digest_outside_of_the_release_grants_no_capability() -> None:
    evidence = digest("report evaluation")
    stray = a_verdict("verification.numbers", "verification", digest("elsewhere"))
    assert assembled([*verdicts(), stray | {"evidence": evidence}]).capabilities == ()


UNJUDGED = {"verdict": "not_run", "subject": None, "evidence": None, "required": False}


def optional_numbers() -> ReleaseRows:
    """A policy by which a capability rests on a gate that the tier does not require."""
    tiers = {Tier.TIER_2: ("environment.versions", "evaluation.kl")}
    return the_facts(
        policy=THE_POLICY.model_copy(update={"tiers": tiers}),
        failures={"verification/prefill-16": "out of memory"},
    )


def test_a_released_shape_that_was_never_judged_denies_the_capability() -> None:
    rows = verdicts(verification_prefill_16=UNJUDGED)
    manifest = assembled(rows, optional_numbers())
    assert next(s for s in manifest.shapes if s.length == 16).status == "released"
    assert manifest.capabilities == ()
    told = "verification.numbers (verification/prefill-16) judged nothing: out of memory."
    assert told in manifest.limits


def test_a_shape_that_is_left_out_denies_nothing_and_a_slot_without_a_shape_does() -> None:
    rows = verdicts(verification_prefill_16=UNJUDGED)
    found = assembled(rows, optional_numbers(), without="prefill-16").capabilities
    assert {c.name for c in found} == {"checked_numbers", "faithful"}
    shapeless = a_verdict("verification.numbers", "verification", CHECKPOINT) | UNJUDGED
    assert assembled([*verdicts(), shapeless], optional_numbers()).capabilities == ()


@given(
    st.fixed_dictionaries(
        {
            slot: st.tuples(st.sampled_from(list(Verdict)), st.booleans())
            for slot in ("verification/prefill-8", "verification/prefill-16", "evaluation")
        }
    )
)
def test_capabilities_follow_from_plain_passes_whatever_the_verdicts(
    said: dict[str, tuple[Verdict, bool]],
) -> None:
    rows = verdicts()
    for row in rows:
        if row["slot"] in said and row["gate"] != "evaluation.speed":
            verdict, waived = said[row["slot"]]
            row |= {"verdict": str(verdict), "waiver": WAIVER if waived else None}
    opened = {s: v is Verdict.PASS or waived for s, (v, waived) in said.items()}
    if not (opened["verification/prefill-8"] and opened["evaluation"]):
        with pytest.raises(PhaseError):
            assembled(rows)
        return
    without = "" if opened["verification/prefill-16"] else "prefill-16"
    names = {c.name for c in assembled(rows, without=without).capabilities}
    about = [s for s in said if s.startswith("verification") and not (without and without in s)]
    numbers = all(said[s][0] is Verdict.PASS for s in about)
    faithful = numbers and said["evaluation"][0] is Verdict.PASS
    assert names == {n for n, has in (("checked_numbers", numbers), ("faithful", faithful)) if has}


# --- bytes ------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False))
def test_the_manifest_does_not_depend_on_the_order_of_rows(random: Any) -> None:
    facts, rows = the_facts(), verdicts()
    shuffled = the_facts(
        artifacts=random.sample(list(facts.artifacts), len(facts.artifacts)),
        runs=random.sample(list(facts.runs), len(facts.runs)),
    )
    again, _ = assemble(
        a_request(random.sample(rows, len(rows))),
        random.sample(GRAPHS, len(GRAPHS)),
        THE_CHECKPOINT,
        random.sample(FILES, len(FILES)),
        shuffled,
    )
    assert canonical.encode(again.to_json()) == canonical.encode(assembled().to_json())


def test_a_manifest_read_back_has_the_same_bytes() -> None:
    data = canonical.encode(assembled().to_json())
    again = Manifest.model_validate(canonical.decode(data))
    assert canonical.encode(again.to_json()) == data


def test_imported_checkpoints_are_told_as_such() -> None:
    assert any("checkpoint" in t and "by hand" in t for t in assembled().limits)


def test_what_several_slots_have_in_common_is_said_once() -> None:
    rows = verdicts()
    for slot in ("verification/prefill-8", "verification/decode-8"):
        rows.append(a_verdict("evaluation.speed", slot, CHECKPOINT, verdict="not_run"))
    told = [t for t in assembled(rows).limits if t.startswith("evaluation.speed")]
    assert len(told) == 1
    assert "verification/prefill-8" in told[0]
    assert told[0].endswith("did not pass (not_run); tier_2 does not require it.")


def test_importing_the_phase_loads_neither_its_work_nor_the_registry() -> None:
    code = (
        "import sys, stillhouse.phases.deployment as d; "
        "assert not {'stillhouse.registry.projection.projection', "
        "'stillhouse.phases.deployment.work', 'blake3'} & set(sys.modules)"
    )
    subprocess.run((sys.executable, "-c", code), cwd=Path(__file__).parents[2], check=True)


def test_a_run_without_a_ledger_is_a_mistake_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ledger"):
        run(replace(a_context(tmp_path), rows=None))


def test_eos_is_collected_from_numbers_and_lists() -> None:
    assert eos_of({"eos_token_id": [7, 2]}, {"eos_token_id": 3}, {}, {"eos_token_id": None}) == (
        2,
        3,
        7,
    )


# --- the run ----------------------------------------------------------------------------------


def test_a_run_seals_a_folder_that_verifies(tmp_path: Path) -> None:
    release = release_of(a_context(tmp_path))
    folder = tmp_path / "work" / "release"
    assert verify_folder(folder, NOW).ok
    assert release.facts["depends_on"] == 95
    assert release.facts["manifest"] == verify_folder(folder, NOW).manifest
    assert {f.path for f in release.files} == {
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
    }
    config = json.loads((folder / "runtime_config.json").read_bytes())
    assert config["eos_token_ids"] == [2, 7]
    assert not (folder / "tokenizer" / "model.safetensors").exists()


def test_two_runs_give_one_digest(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    releases = [release_of(a_context(place)) for place in places]
    assert releases[0].digest == releases[1].digest


def test_an_attempt_after_a_killed_one_starts_from_an_empty_folder(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    (context.scratch / "release").mkdir()
    (context.scratch / "release" / "half-written").write_text("left over")
    release_of(context)
    assert verify_folder(context.scratch / "release", NOW).ok


def test_big_files_are_linked_not_copied(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    release_of(context)
    source = context.one("export/prefill-8").path
    assert (context.scratch / "release/exports/prefill-8.pt2").stat().st_ino == source.stat().st_ino


def test_nothing_is_stored_when_a_gate_is_closed(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    rows = verdicts(evaluation={"verdict": "fail"})
    closed = replace(context, params={**context.params, "verdicts": rows})
    with pytest.raises(PhaseError, match=r"evaluation\.kl"):
        release_of(closed)
    assert not any(p.is_file() for p in (tmp_path / "objects").rglob("*"))


def test_an_unreadable_checkpoint_is_named(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    (context.one("checkpoint").path / "config.json").write_text("{}")
    with pytest.raises(PhaseError, match=r"config.json .* no vocab_size"):
        release_of(context)


def test_the_policy_of_these_tests_requires_less_than_it_rules() -> None:
    rows = Request.model_validate(a_request().model_dump()).verdicts
    assert {r.gate for r in rows if not r.required} == {"evaluation.speed"}
    assert set(THE_POLICY.gates) == {r.gate for r in rows}
