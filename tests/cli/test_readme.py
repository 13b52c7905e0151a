from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from stillhouse.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

COMMAND = re.compile(r"\bstill (?:--registry \S+ )?([a-z]+(?:-[a-z]+)*)\b([^`\n#]*)")
"""The verb, and what it is given."""
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")


def test_the_readme_knows_every_verb_and_no_other() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"\bstill (?:--registry \S+ )?([a-z]+(?:-[a-z]+)*)\b", _code(text)))
    assert set(app.VERBS) <= named
    assert named <= set(app.VERBS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_that_a_document_gives_to_a_verb_is_one_of_it(path: Path) -> None:
    wrong = {
        f"{verb} {option}"
        for verb, options in COMMAND.findall(_code(path.read_text(encoding="utf-8")))
        for option in OPTION.findall(options)
        if verb in app.VERBS and option not in _options(verb)
    }
    assert wrong == set()


def test_the_documents_do_name_options() -> None:
    """Else the test above would look at nothing."""
    texts = [_code(path.read_text(encoding="utf-8")) for path in DOCUMENTS]
    found = [o for text in texts for _, rest in COMMAND.findall(text) for o in OPTION.findall(rest)]
    assert len(found) > 5


def test_the_python_of_the_readme_runs(place: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    shutil.copytree(ROOT / "tests" / "golden" / "finished", place / ".still")
    (place / "questions.jsonl").write_text('{"prompt": "Rain?"}\n', encoding="utf-8")
    names: dict[str, Any] = {}
    exec(script, names)  # noqa: S102  # our own words
    assert names["registry"].get("questions").kind == "source"


def _options(verb: str) -> set[str]:
    command = typer.main.get_group(app.build((verb,))).commands[verb]
    return {"--help", "--registry"}.union(*(given.opts for given in command.params))


def _code(text: str) -> str:
    """What of a Markdown text is code: fenced blocks and inline spans."""
    fenced = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`[^`\n]+`", text)
    return "\n".join([*fenced, *inline])
