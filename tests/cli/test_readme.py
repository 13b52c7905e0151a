from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import app

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.skipif(not README.exists(), reason="there is no README yet")
def test_the_readme_knows_every_verb_and_no_other() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"\bstill (?:--registry \S+ )?([a-z]+(?:-[a-z]+)*)\b", _code(text)))
    assert set(app.VERBS) <= named
    assert named <= set(app.VERBS)


def _code(text: str) -> str:
    """What of a Markdown text is code: fenced blocks and inline spans."""
    fenced = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`[^`\n]+`", text)
    return "\n".join([*fenced, *inline])
