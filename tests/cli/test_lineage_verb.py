"""The verb `lineage`: the tree, its forms for other programs, and the way between two artifacts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.cli.views import lineage as view
from stillhouse.lineage import closure, derivation
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.lineage.subgraph import Edge, Subgraph, Vertex
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.events import ArtifactPublished, TagMoved
from stillhouse.schemas.plain import plain
from stillhouse.session import Session

from .conftest import Still


def digest(number: int) -> str:
    return f"{number + 1:08x}" * 8


def parent(of: int, role: str, *, circumstance: bool = False) -> Parent:
    return Parent(role=role, digest=digest(of), circumstance=circumstance)


def made(of: int, *parents: Parent, **more: Any) -> ArtifactPublished:
    fields: dict[str, Any] = {"kind": Kind.DATASET, "form": "blob", "size": 1, "origin": "imported"}
    return ArtifactPublished(digest=digest(of), parents=parents, **fields | more)


RECIPE, SOURCE, DATASET, CHECKPOINT, EXPORT, LONE = range(6)


@pytest.fixture
def family(session: Session) -> Session:
    recipe = parent(RECIPE, "recipe", circumstance=True)
    session.ledger.append(
        [
            made(RECIPE, kind=Kind.RECIPE, name="r"),
            made(SOURCE, kind=Kind.SOURCE, name='odd "name" \\N <b>'),
            made(DATASET, parent(SOURCE, "source"), recipe),
            made(CHECKPOINT, parent(DATASET, "dataset"), recipe, kind=Kind.CHECKPOINT),
            made(
                EXPORT,
                parent(CHECKPOINT, "checkpoint"),
                parent(DATASET, "dataset"),
                recipe,
                kind=Kind.EXPORT,
            ),
            made(LONE, kind=Kind.SOURCE),
            TagMoved(name="best", digest=digest(EXPORT)),
        ]
    )
    return session


# -- the tree -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("family")
def test_each_artifact_is_opened_where_it_first_appears(still: Still) -> None:
    rows = [(r[0], r[1], r[3], r[-1]) for r in still("lineage", "best").rows]
    assert rows == [
        ("0", "", digest(EXPORT), ""),
        ("1", "checkpoint", digest(CHECKPOINT), ""),
        ("2", "dataset", digest(DATASET), ""),
        ("3", "source", digest(SOURCE), ""),
        ("3", "(recipe)", digest(RECIPE), ""),
        ("2", "(recipe)", digest(RECIPE), ""),
        ("1", "dataset", digest(DATASET), "see above"),
        ("1", "(recipe)", digest(RECIPE), ""),
    ]


@pytest.mark.usefixtures("family")
def test_a_depth_cuts_the_tree_and_loses_nothing_within_it(still: Still) -> None:
    cut = [(r[0], r[3]) for r in still("lineage", "best", "--depth", "2").rows]
    assert ("2", digest(SOURCE)) in cut, "opened again where it is nearer, not only where it is far"
    assert max(int(depth) for depth, _ in cut) == 2
    assert still("lineage", "best", "--depth", "0").rows[0][3] == digest(EXPORT)
    told = still("lineage", "best", "--depth", "1", "--json").json
    assert [a["depth"] for a in told["artifacts"]] == [0, 1, 1, 1]
    assert {(e["child"], e["parent"]) for e in told["edges"]} == {
        (digest(EXPORT), digest(CHECKPOINT)),
        (digest(EXPORT), digest(DATASET)),
        (digest(EXPORT), digest(RECIPE)),
        (digest(CHECKPOINT), digest(DATASET)),
        (digest(CHECKPOINT), digest(RECIPE)),
        (digest(DATASET), digest(RECIPE)),
    }


@pytest.mark.usefixtures("family")
def test_references_are_those_of_every_other_verb(still: Still) -> None:
    for ref in ("best", "export@latest", digest(EXPORT)[:8]):
        assert still("lineage", ref).rows[0][3] == digest(EXPORT)
    for ref, code in (("0000", "ref.ambiguous"), ("best1", "ref.unknown")):
        answer = still("lineage", ref, "--json")
        assert answer.code == 2
        assert code in answer.err
        assert answer.out == ""
    assert "best" in still("lineage", "besst").err


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    "options",
    [
        ("--up", "--down"),
        ("--json", "--dot"),
        ("--dot", "--mermaid"),
        ("--depth", "-1"),
        ("--to", "best", "--depth", "1"),
        ("--to", "best", "--down"),
        ("--circumstances",),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    still: Still, options: tuple[str, ...]
) -> None:
    answer = still("lineage", "best", *options)
    assert (answer.code, answer.out) == (2, "")


def test_what_was_recorded_since_the_index_was_written_is_there(
    still: Still, family: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.registry.lineage.graph._TAIL", 0)
    still("lineage", "best")
    assert family.home.lineage.exists()
    monkeypatch.setattr("stillhouse.registry.lineage.graph._TAIL", 99)
    family.ledger.append([made(77, parent(EXPORT, "export"), kind=Kind.MLPACKAGE)])
    assert [r[3] for r in still("lineage", "best", "--down").rows] == [digest(EXPORT), digest(77)]


def test_a_chain_longer_than_any_stack_is_printed_and_may_be_cut_off(home: Home) -> None:
    from stillhouse.session import actor, clock

    length = 1500
    Ledger(home.log, clock, actor()).append(
        [made(n, *([parent(n - 1, "source")] if n else [])) for n in range(length)]
    )
    command = [sys.executable, "-m", "stillhouse.cli.main", "--registry", str(home.root), "lineage"]
    run = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
    told = subprocess.run([*command, "dataset@latest"], check=True, **run)  # type: ignore[call-overload]
    assert len(told.stdout.splitlines()) == length
    piped = f"{' '.join(command)} {digest(0)} --down --json | head -c 100"
    cut = subprocess.run(["bash", "-o", "pipefail", "-c", piped], check=False, **run)  # type: ignore[call-overload]
    assert cut.stderr == ""
    assert len(cut.stdout) == 100


# -- graphs -------------------------------------------------------------------------------------

DOT_STRING = r'"(?:[^"\\\n]|\\.)*"'
DOT_LINE = re.compile(
    rf"digraph lineage \{{|\}}|  node \[shape=box\];"
    rf"|  {DOT_STRING} \[label={DOT_STRING}\];"
    rf"|  {DOT_STRING} -> {DOT_STRING} \[label={DOT_STRING}(?:, style=dashed)?\];"
)
MERMAID_WORD = r'"(?:[^#&<>"\'`\\|\[\](){}\n]|#\d+;|<br/>)+"'
MERMAID_LINE = re.compile(
    rf"flowchart TD|  n\d+\[{MERMAID_WORD}\]|  n\d+ (?:-->|-\.->)\|{MERMAID_WORD}\| n\d+"
)


@pytest.mark.usefixtures("family")
def test_dot_draws_every_arrow_once_dashed_where_it_is_a_circumstance(still: Still) -> None:
    lines = still("lineage", "best", "--dot").out.splitlines()
    assert all(DOT_LINE.fullmatch(line) for line in lines)
    arrows = [line for line in lines if "->" in line]
    assert len(arrows) == len(set(arrows)) == 7
    assert f'  "{digest(SOURCE)}" -> "{digest(DATASET)}" [label="source"];' in arrows
    assert sum("dashed" in line for line in arrows) == 3
    assert r"odd \"name\" \\N <b>" in "\n".join(lines)


@pytest.mark.usefixtures("family")
def test_mermaid_draws_the_same(still: Still) -> None:
    lines = still("lineage", "best", "--mermaid").out.splitlines()
    assert all(MERMAID_LINE.fullmatch(line) for line in lines)
    assert sum("-->" in line for line in lines) == 4
    assert sum("-.->" in line for line in lines) == 3


@given(st.text(min_size=0, max_size=20), st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_whatever_names_and_roles_hold_a_graph_stays_valid(name: str, role: str) -> None:
    one = Vertex(node=1, digest=digest(1), kind="source", name=name, depth=0)
    other = Vertex(node=2, digest=digest(2), kind="dataset", name=None, depth=1)
    edge = Edge(child=other, parent=one, role=role, circumstance=False)
    graph = Subgraph(head={}, artifacts=[one, other], edges=[edge], tree=[])
    assert all(DOT_LINE.fullmatch(line) for line in view._dot(graph))
    assert all(MERMAID_LINE.fullmatch(line) for line in view._mermaid(graph))


def test_what_is_printed_piece_by_piece_is_the_json_of_the_value(
    still: Still, family: Session
) -> None:
    closed = still("lineage", "best", "--depth", "2", "--json").json
    assert closed == plain(closure(family, "best", "up", 2))
    way = still("lineage", "best", "--to", digest(SOURCE), "--json").json
    assert way == plain(derivation(family, "best", digest(SOURCE)))


# -- the way between two --------------------------------------------------------------------------


@pytest.mark.usefixtures("family")
def test_the_way_between_two_is_told_in_whichever_direction_it_leads(still: Still) -> None:
    up = still("lineage", "best", "--to", digest(SOURCE))
    assert up.code == 0
    assert [(r[0], r[1], r[3]) for r in up.rows] == [
        ("0", "", digest(EXPORT)),
        ("1", "dataset", digest(DATASET)),
        ("2", "source", digest(SOURCE)),
    ]
    down = still("lineage", digest(SOURCE), "--to", "best", "--json").json
    assert down["direction"] == "down"
    assert [a["digest"] for a in down["artifacts"]] == [digest(n) for n in (1, 2, 4)]
    assert down["edges"] == [
        {"child": digest(c), "parent": digest(p), "role": role, "circumstance": False}
        for c, p, role in ((DATASET, SOURCE, "source"), (EXPORT, DATASET, "dataset"))
    ]
    same = still("lineage", "best", "--to", "best")
    assert (same.code, len(same.rows)) == (0, 1)


@pytest.mark.usefixtures("family")
def test_where_no_way_leads_the_exit_code_and_the_message_say_so(still: Still) -> None:
    answer = still("lineage", "best", "--to", digest(LONE))
    assert (answer.code, answer.out) == (1, "")
    assert "was made from the other" in answer.err
    assert "--circumstances" not in answer.err
    told = still("lineage", "best", "--to", digest(LONE), "--json")
    assert (told.code, told.out) == (1, "")
    assert json.loads(told.err)["error"]["code"] == "lineage.unrelated"


@pytest.mark.usefixtures("family")
def test_a_prefix_that_is_too_short_is_told_so(still: Still) -> None:
    answer = still("lineage", "ff")
    assert answer.code == 2
    assert "too short" in answer.err
    assert "4 characters" in answer.err


@pytest.mark.usefixtures("family")
def test_a_circumstance_is_no_derivation_unless_asked_for(still: Still) -> None:
    plain = still("lineage", "best", "--to", digest(RECIPE))
    assert plain.code == 1
    assert "--circumstances" in plain.err
    asked = still("lineage", "best", "--to", digest(RECIPE), "--circumstances")
    assert asked.code == 0
    assert [r[1] for r in asked.rows] == ["", "(recipe)"]
