"""What `--json` prints is a value of the application, verb by verb, and nothing that cli made up.

A verb that has `--json` and no row here fails. Questions are asked once more of the application.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from stillhouse import compare, why
from stillhouse.api import Registry
from stillhouse.audit import audit
from stillhouse.cli.app import VERBS
from stillhouse.cli.screen import Screen
from stillhouse.details import details_of
from stillhouse.gates import gates_of
from stillhouse.health import check_registry
from stillhouse.lineage import closure
from stillhouse.listing import list_artifacts
from stillhouse.phases import environment
from stillhouse.phases.environment.versions import diagnose
from stillhouse.release import Release, find_release
from stillhouse.runs import list_runs
from stillhouse.schemas.plain import plain
from stillhouse.schemas.value import Value
from stillhouse.session import Session
from stillhouse.tags import list_tags
from stillhouse.usage import usage_of
from stillhouse.verify import verify_artifact

from .conftest import Still
from .recorded import Recorder
from .repeatable import SAID, Repeatable

ROOT = Path(__file__).parents[2]
QUERY = "SELECT kind, count(*) AS n FROM artifacts GROUP BY kind ORDER BY kind"
FAILED = "export/prefill-16"


@dataclass(frozen=True, kw_only=True)
class World:
    """A released plan, of which one slot failed; another plan; and a run that can be repeated."""

    recorder: Recorder
    policy: Path
    plan: str
    said: str

    def asked_for(self) -> str:
        """A plan that is not begun."""
        return self.recorder.plan(self.policy, name="third", conversion={"threads": 3})

    def refused(self) -> str:
        """An inbox with something that is refused."""
        inbox = self.policy.parent / "inbox"
        (inbox / "policy").mkdir(parents=True)
        (inbox / "policy" / "no.toml").write_text("no policy")
        return str(inbox)


ASKED: dict[str, tuple[list[str], Callable[[Session], object]]] = {
    "ls": (["ls"], list_artifacts),
    "show": (["show", "release@latest"], lambda s: details_of(s, "release@latest")),
    "sql": (["sql", QUERY], lambda s: Registry(s).sql(QUERY)),
    "tag": (["tag"], list_tags),
    "runs": (["runs"], list_runs),
    "gates": (["gates"], gates_of),
    "why": (["why", "conversion"], lambda s: why.why(s, "conversion")),
    "why-not": (["why-not", FAILED], lambda s: why.why_not(s, FAILED)),
    "diff": (["diff", "first", "second"], lambda s: compare.diff(s, "first", "second")),
    "blame": (
        ["blame", "release@latest", "fp32.kl"],
        lambda s: compare.blame(s, "release@latest", "fp32.kl"),
    ),
    "verify": (["verify", "release@latest"], lambda s: verify_artifact(s, "release@latest")),
    "audit": (["audit"], audit),
    "du": (["du"], usage_of),
    "fsck": (["fsck"], check_registry),
    "doctor": (["doctor"], lambda _: diagnose(environment.probe())),
}
"""Verb -> what is typed, and the call of the application that answers it."""

DONE: dict[str, Callable[[World], list[str]]] = {
    "publish": lambda _: ["publish", "policy.toml", "--kind", "policy", "--tag", "p"],
    "checkout": lambda _: ["checkout", "policy@latest", "out"],
    "log": lambda _: ["log", "--since", "3"],
    "manifest": lambda _: ["manifest", "--out", "folder"],
    "waive": lambda _: [
        *("waive", "export.parity", "release@latest"),
        *("--reason", "known", "--until", "2999-01-01"),
    ],
    "retry": lambda _: ["retry", FAILED],
    "cancel": lambda w: ["cancel", w.asked_for()],
    "gc": lambda _: ["gc", "--dry-run"],
    "evict": lambda w: ["evict", w.said, "--dry-run"],
    "rewind": lambda w: ["rewind", w.said],
    "repair": lambda w: ["repair", w.said],
    "run": lambda w: ["run", w.plan],
    "watch": lambda w: ["watch", "--once", "--inbox", w.refused()],
}
"""Verb -> what is typed; what it does is done once."""


def _offers_json(verb: str) -> bool:
    function = getattr(import_module(VERBS[verb]), verb.replace("-", "_"))
    return "as_json" in inspect.signature(function).parameters


@pytest.fixture
def world(
    session: Session,
    policy: Path,
    place: Path,
    still: Still,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """The registry in the current folder."""
    recorder = Recorder(session, place / "scratch", failing={FAILED})
    plan = recorder.plan(policy)
    recorder.run(plan)
    other = recorder.plan(policy, name="other", conversion={"threads": 1})
    recorder.run(other)
    runs = Repeatable(session, place / "phase")
    runs.install(monkeypatch)
    said = runs.ran("say", SAID)
    assert still("tag", "first", plan).code == 0
    assert still("tag", "second", other).code == 0
    return World(recorder=recorder, policy=policy, plan=other, said=said)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every value that is printed as JSON."""
    found: list[object] = []
    for name in ("document", "json_line"):
        real = getattr(Screen, name)

        def noted(screen: Screen, value: object, real: Callable[..., None] = real) -> None:
            found.append(value)
            real(screen, value)

        monkeypatch.setattr(Screen, name, noted)
    return found


def _documents(text: str) -> Iterator[Any]:
    """Each JSON value of a stream."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        value, end = decoder.raw_decode(text, place)
        yield value
        place = end + 1


def _is_of_the_application(value: object) -> bool:
    """Whether it is a typed value from outside of cli, or several of them."""
    if isinstance(value, tuple):
        return all(map(_is_of_the_application, value))
    module = type(value).__module__
    typed = isinstance(value, Value) or dataclasses.is_dataclass(value)
    return typed and module.startswith("stillhouse.") and not module.startswith("stillhouse.cli.")


def test_every_verb_that_offers_json_has_a_row() -> None:
    assert {verb for verb in VERBS if _offers_json(verb)} == ASKED.keys() | DONE.keys() | {
        "lineage"
    }
    assert not ASKED.keys() & DONE.keys()


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("verb", ASKED)
def test_a_question_is_answered_as_the_application_answers_it(
    still: Still, session: Session, printed: list[object], verb: str
) -> None:
    typed, call = ASKED[verb]
    told = still(*typed, "--json")
    assert told.err == ""
    assert len(printed) == 1
    assert _is_of_the_application(printed[0])
    assert told.json == json.loads(json.dumps(plain(call(session))))


@pytest.mark.parametrize("verb", DONE)
def test_what_an_act_prints_is_a_value_of_the_application(
    still: Still, world: World, printed: list[object], verb: str
) -> None:
    told = still(*DONE[verb](world), "--json")
    assert told.out, told.err
    assert printed
    assert all(map(_is_of_the_application, printed))
    assert list(_documents(told.out)) == [json.loads(json.dumps(plain(v))) for v in printed]


def test_no_verb_is_longer_than_it_may_be() -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in (ROOT / "cli/verbs").glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 120} == {}
    assert {f"stillhouse.cli.verbs.{name[:-3]}" for name in lengths} - {
        "stillhouse.cli.verbs.__init__"
    } == set(VERBS.values())


@pytest.mark.usefixtures("world")
def test_a_lineage_is_streamed_from_the_pieces_of_the_application(
    still: Still, session: Session
) -> None:
    found = closure(session, "release@latest")
    assert len(list(closure(session, "release@latest").edges)) > 5
    told = still("lineage", "release@latest", "--json").json
    assert told == json.loads(json.dumps(plain(found)))


@pytest.mark.usefixtures("world")
def test_a_manifest_is_printed_as_it_was_sealed(still: Still, session: Session) -> None:
    found = find_release(session)
    assert isinstance(found, Release)
    told = still("manifest", "--json")
    assert told.out.encode() == found.data + b"\n"
    assert told.json == json.loads(json.dumps(plain(found)))
