"""The public API: what it gives away is not the registry itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stillhouse as sh


@pytest.fixture
def registry(tmp_path: Path) -> sh.Registry:
    return sh.init(tmp_path / "registry")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text("{}\n")
    return path


def test_facts_that_a_caller_changes_stay_what_was_recorded(
    registry: sh.Registry, lines: Path
) -> None:
    given: Any = registry.publish(lines, "source", meta={"licence": "MIT"})
    given.facts["meta"]["licence"] = "GPL"
    assert registry.get("source@latest").facts["meta"] == {"licence": "MIT"}
    registry.publish(lines, "source", meta={"licence": "MIT"})
    assert len(list(registry.events())) == 1


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {1: "one"}, {"a": object()}, {"b": None}])
def test_meta_that_is_no_text_is_refused(registry: sh.Registry, lines: Path, meta: Any) -> None:
    with pytest.raises(sh.StillError) as refused:
        registry.publish(lines, "source", meta=meta)
    assert refused.value.code == "publish.not_text"
    assert list(registry.events()) == []


def test_a_name_that_is_no_text_is_refused(registry: sh.Registry, lines: Path) -> None:
    name: Any = 5
    with pytest.raises(sh.StillError, match="int"):
        registry.publish(lines, "source", name=name)


def test_the_names_of_the_api_are_listed() -> None:
    assert set(sh.__all__) == set(dir(sh))
