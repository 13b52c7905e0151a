"""What every verb says of bytes that are condemned or gone, and how they are kept or got back."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.schemas.events import RunRetried
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder
from .repeatable import SAID, Repeatable


@pytest.fixture
def runs(session: Session, place: Path) -> Repeatable:
    """Records runs."""
    return Repeatable(session, place / "phase")


def _retention(still: Still, digest: str) -> dict[str, str]:
    answer = still("why", digest, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, str] = answer.json["retention"]
    return found


def test_why_says_what_keeps_an_artifact_and_how_to_keep_one_that_nothing_keeps(
    still: Still, runs: Repeatable
) -> None:
    digest = runs.published(b"input")
    assert _retention(still, digest)["code"] == "young"
    still("tag", "mine", digest)
    assert (_retention(still, digest)["word"], _retention(still, digest)["detail"]) == (
        "kept",
        "mine",
    )
    assert ["kept", "a tag names it", "mine"] in still("why", digest).rows


def test_condemned_is_said_by_why_ls_and_show_until_it_is_gone(
    still: Still, runs: Repeatable
) -> None:
    digest = runs.published(b"input")
    still("gc", "--grace", "0")
    assert _retention(still, digest)["word"] == "condemned"
    assert still("ls").rows[0][-1] == "condemned"
    assert "swept after" in dict(row[:2] for row in still("show", digest).rows)["bytes"]
    assert still("cat", digest).out == "input"
    still("gc", "--grace", "0")
    assert _retention(still, digest)["word"] == "absent"
    assert still("ls", "--json").json[0]["bytes"] == "absent"


@pytest.mark.parametrize("verb", [["cat"], ["checkout"], ["verify"]])
def test_what_is_gone_is_told_with_the_command_that_brings_it_back(
    still: Still, runs: Repeatable, verb: list[str]
) -> None:
    given = runs.published(b"input")
    for _ in range(2):
        still("gc", "--grace", "0")
    made = runs.ran("say", SAID)
    still("evict", made)
    more = ["out"] if verb == ["checkout"] else []
    for digest, command in ((given, "still repair {} --from PATH"), (made, "still rewind {}")):
        answer = still(*verb, digest, *more)
        assert answer.code == 2
        assert command.format(digest[:12]) in answer.err
        assert command.format(digest[:12]) in still("show", digest).out
        assert command.format(digest[:12]) in still("why", digest).err


def test_a_slot_whose_input_was_evicted_names_the_way_back(
    still: Still, session: Session, place: Path, policy: Path
) -> None:
    recorder = Recorder(session, place, failing={"conversion/prefill-8"})
    plan = recorder.plan(policy)
    view = recorder.run(plan)
    export = view.slot("export/prefill-8").outputs["export"]
    assert still("evict", export).code == 0
    key = view.slot("conversion/prefill-8").key
    assert key is not None
    session.ledger.append([RunRetried(run=key)])
    answer = still("why-not", "conversion/prefill-8")
    assert f"still rewind {export[:12]}" in answer.out + answer.err
