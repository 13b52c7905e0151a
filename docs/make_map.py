"""Writes docs/map.md: one line for each file of the product, with what that file says it is.

`make map` writes it. The exit code is 1 when a file does not say what it is, or needs more than one
line for that. tests/test_map.py fails when the map is stale.

Rules: a module is told by the first sentence of its docstring, a package by that of `__init__.py`,
any other file by the first sentence of the comment that it begins with. Links are passed over, so
each file is listed once.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("cli", "stillhouse", "phases", "registry", "store", "schemas")
COMMENTS = {".sql": "--", ".toml": "#"}
"""Suffix of a file that is no module -> what begins its comments."""
LONGEST = 110
"""Characters of a first sentence."""

PACKAGE = "__init__.py"
HEAD = """\
# Map

Every file of the product, with its own first sentence. `make map` writes this page.
[The design](design.md#rooms) says what the rooms are for, and which of them may import which.
"""

_SENTENCE = re.compile(r".*?[.!?](?=\s|$)")


def render(root: Path) -> str:
    """The map of the tree below `root`."""
    return HEAD + "".join(f"\n{_told(root / room)}" for room in ROOMS)


def faults(root: Path) -> Iterator[str]:
    """Each file that can not be told on one line."""
    for room in ROOMS:
        for path in _files(root / room):
            said = _sentence(path)
            if not said:
                yield f"{path.relative_to(root)} does not begin by saying what it is."
            elif len(said) > LONGEST:
                yield f"{path.relative_to(root)} needs {len(said)} characters to say what it is."


def _told(room: Path) -> str:
    lines = [(_name(path, room), _sentence(path)) for path in _files(room)]
    width = max(len(name) for name, _ in lines) + 2
    (_, summary), *rest = lines
    block = "\n".join(f"{name:<{width}}{said}".rstrip() for name, said in rest)
    return f"## {room.name}\n\n{summary}\n\n```text\n{block}\n```\n"


def _files(folder: Path) -> Iterator[Path]:
    """The package's own file, the other files beside it, then each package within."""
    if not (folder / PACKAGE).is_file():
        return
    yield folder / PACKAGE
    inside = sorted(path for path in folder.iterdir() if not path.is_symlink())
    for path in inside:
        if path.suffix in {".py", *COMMENTS} and path.name != PACKAGE:
            yield path
    for path in inside:
        if path.is_dir():
            yield from _files(path)


def _name(path: Path, room: Path) -> str:
    """The name with its indent: two spaces for each folder between the room and the file."""
    shown = path.parent if path.name == PACKAGE else path
    depth = len(shown.relative_to(room).parts) - 1
    return "  " * depth + shown.name + ("/" if shown is not path else "")


def _sentence(path: Path) -> str:
    """The first sentence of a file; empty when it begins with none."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        mark = COMMENTS[path.suffix]
        said = text.partition("\n")[0].removeprefix(mark) if text.startswith(mark) else ""
    found = _SENTENCE.match(" ".join(said.partition("\n\n")[0].split()))
    return found[0] if found else ""


def main() -> int:
    """Write the map; returns the exit code."""
    root = Path(__file__).resolve().parents[1]
    (root / "docs" / "map.md").write_text(render(root), encoding="utf-8")
    wrong = list(faults(root))
    sys.stderr.writelines(f"{fault}\n" for fault in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
