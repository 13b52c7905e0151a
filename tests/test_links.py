"""Links between documents, and from documents and code to them: each leads to what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "stillhouse", "phases", "registry", "store", "schemas", "tests", "benchmarks")
DOCUMENTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")))

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_MENTION = re.compile(r"(?<![/\w])docs/[\w./-]+\.md(?:,\s+\"([^\"]+)\")?")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _headings(document: Path) -> list[str]:
    return _HEADING.findall(_FENCED.sub("", document.read_text(encoding="utf-8")))


def _anchor(heading: str) -> str:
    """As GitHub makes one: lower case, spaces to hyphens, no other punctuation."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    lost = []
    for path, anchor in _LINK.findall(document.read_text(encoding="utf-8")):
        target = (document.parent / path).resolve() if path else document
        known = map(_anchor, _headings(target)) if anchor and target.is_file() else [anchor]
        if not target.exists() or anchor not in known:
            lost.append(f"{path}#{anchor}")
    assert lost == []


def _mentions() -> Iterator[tuple[Path, Path, str]]:
    """(source, document, heading) for each document that a source names."""
    for room in ROOMS:
        for source in (ROOT / room).rglob("*.py"):
            for found in _MENTION.finditer(source.read_text(encoding="utf-8")):
                yield source, ROOT / re.split(r",\s", found[0])[0], found[1] or ""


def test_every_document_that_the_code_names_is_there() -> None:
    found = list(_mentions())
    assert len(found) > 10
    for source, document, heading in found:
        assert document.is_file(), source
        assert not heading or heading in _headings(document), source
