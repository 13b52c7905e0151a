from __future__ import annotations

import json

import pytest

from cli import inbox
from registry.home import Home

from .conftest import Still


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.05)


def test_watch_once_publishes_what_lies_in_the_inbox(still: Still, home: Home) -> None:
    (home.inbox / "source" / "prompts.jsonl").write_text("{}", encoding="utf-8")
    answer = still("watch", "--once")
    assert answer.code == 0
    assert [row[:2] for row in answer.rows if "prompts.jsonl" in row[1]] != []
    assert still("ls", "--kind", "source", "--json").json[0]["name"] == "prompts.jsonl"


def test_a_refused_drop_is_told_with_its_path_and_ends_with_1(still: Still, home: Home) -> None:
    (home.inbox / "policy" / "bad.toml").write_text("name = ", encoding="utf-8")
    answer = still("watch", "--once")
    assert answer.code == 1
    assert "bad.toml" in answer.err
    assert "Next:" in answer.err
    told = [json.loads(line) for line in still("watch", "--once", "--json").out.splitlines()]
    (refused,) = [t["refused"] for t in told if "refused" in t]
    assert refused["code"] == "policy.bad_toml"
    assert refused["path"].endswith("bad.toml")
