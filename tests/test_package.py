"""One importable package: what the wheel holds, and that it lives beside a user's own modules."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "phases", "registry", "schemas", "store")
_BARE = re.compile(rf"^\s*(?:from|import)\s+(?:{'|'.join(ROOMS)})\b(?!\s*=)", re.MULTILINE)
_RUN_AS = re.compile(rf"^(?:{'|'.join(ROOMS)})(?:\.\w+)+$")

SCRIPT = """
import store, schemas, registry, phases, cli
import stillhouse as sh
made = sh.init("made")
source = made.publish("question.jsonl", "source", tag="asked")
import store as again
mine = {m.__name__: m.WHOSE for m in (store, schemas, registry, phases, cli, again)}
assert set(mine.values()) == {"the user's"}, mine
assert made.get("asked") == source, source
assert sh.open("made").sql("SELECT count(*) FROM artifacts").rows == ((1,),)
assert [event.type for event in made.events()] == ["artifact.published", "tag.moved"]
print("fine", sh.__file__)
"""

TYPED = """
import stillhouse as sh

registry = sh.open()
artifact = registry.get("source@latest")
reveal_type(sh.init)
reveal_type(registry)
reveal_type(registry.root)
reveal_type(registry.sql("SELECT 1"))
reveal_type(registry.sql("SELECT 1").columns)
reveal_type(artifact)
reveal_type(artifact.facts)
reveal_type(artifact.tags)
reveal_type(artifact.size)
for event in registry.events(after=3):
    reveal_type(event)
    reveal_type(event.type)
reveal_type(registry.publish("corpus.jsonl", "source"))
try:
    registry.get("x")
except sh.StillError as error:
    reveal_type(error.code)
"""


def sources() -> Iterator[Path]:
    for room in (*ROOMS, "stillhouse", "tests", "benchmarks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if not any((ROOT / "stillhouse" / name) in path.parents for name in ROOMS):
                yield path


def _bare_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.split(".")[0] in ROOMS:
                yield f"{where} from {node.module}"
        elif isinstance(node, ast.Import):
            yield from (f"{where} import {a.name}" for a in node.names if _is_room(a.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _program(node):
            yield f"{where} a program in a text"
        elif isinstance(node, ast.JoinedStr) and _makes_a_name(node):
            yield f"{where} a module's name, put together"


def _program(text: ast.Constant) -> bool:
    return bool(_BARE.search(str(text.value))) and text.value != SCRIPT


def _makes_a_name(text: ast.JoinedStr) -> bool:
    """Whether a formatted text begins with a room's name and a dot: `f"phases.{name}"`."""
    first = text.values[0] if text.values else None
    return isinstance(first, ast.Constant) and first.value in {f"{room}." for room in ROOMS}


def _is_room(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ROOMS


def test_nothing_imports_a_room_by_its_bare_name() -> None:
    """It would work in an editable install, and load every class a second time."""
    assert [found for path in sources() for found in _bare_imports(path)] == []


def test_no_module_is_run_by_its_bare_name() -> None:
    found = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (n for n in ast.walk(tree) if isinstance(n, (ast.List, ast.Tuple))):
            words = [e.value if isinstance(e, ast.Constant) else None for e in node.elts]
            pairs = itertools.pairwise(words)
            found += [b for a, b in pairs if a == "-m" and isinstance(b, str) and _RUN_AS.match(b)]
    assert found == []


# -- what is built ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel from this checkout, an sdist, and a wheel from that sdist."""
    out = tmp_path_factory.mktemp("built")
    checkout = out / "checkout"
    kept = (*ROOMS, "stillhouse", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
    checkout.mkdir()
    for name in kept:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=skip)
        else:
            shutil.copy(ROOT / name, checkout)
    _build(checkout, out / "wheel", "wheel")
    _build(checkout, out / "sdist", "sdist")
    (packed,) = (out / "sdist").iterdir()
    with tarfile.open(packed) as archive:
        archive.extractall(out / "unpacked", filter="data")
    (unpacked,) = (out / "unpacked").iterdir()
    _build(unpacked, out / "again", "wheel")
    (wheel,) = (out / "wheel").iterdir()
    (again,) = (out / "again").iterdir()
    return {"wheel": wheel, "again": again}


def _build(folder: Path, to: Path, target: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(to)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _files(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def test_the_wheels_top_level_is_one_package(built: dict[str, Path]) -> None:
    files = _files(built["wheel"])
    top = {name.split("/")[0] for name in files}
    assert {name for name in top if not name.endswith(".dist-info")} == {"stillhouse"}
    assert {f"stillhouse/{room}/__init__.py" for room in ROOMS} <= set(files)
    assert "stillhouse/py.typed" in files
    assert "stillhouse/registry/projection/queries.sql" in files
    checkout = {
        f"stillhouse/{p.relative_to(ROOT / 'stillhouse')}"
        for room in ROOMS
        for p in (ROOT / "stillhouse" / room).rglob("*.py")
    }
    assert checkout <= set(files)


def test_a_wheel_from_the_sdist_is_the_one_from_the_checkout(built: dict[str, Path]) -> None:
    assert _files(built["again"]) == _files(built["wheel"])


# -- beside a user's own modules ----------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A user's folder, in which five modules have the names of the rooms."""
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text('WHOSE = "the user\'s"\n')
    (tmp_path / "question.jsonl").write_text('{"prompt": "Rain?"}\n')
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "typed.py").write_text(TYPED)
    return tmp_path


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is unpacked: a folder of packages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(built["wheel"], folder, "zip")
    return folder


def _run(arguments: list[str], cwd: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_users_modules_stay_the_users_with_a_wheel(users: Path, installed: Path) -> None:
    done = _run(["script.py"], users, installed)
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout


def test_a_users_modules_stay_the_users_with_an_editable_install(users: Path) -> None:
    done = _run(["script.py"], users, ROOT)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) in done.stdout


@pytest.mark.parametrize("arguments", [["-m", "stillhouse.cli.main"]], ids=["module"])
def test_a_pythonpath_with_the_users_modules_changes_nothing(
    users: Path, installed: Path, arguments: list[str]
) -> None:
    (users / "elsewhere").mkdir()
    for words in (["init"], ["publish", "../question.jsonl", "--kind", "source"], ["ls"]):
        done = _run([*arguments, *words], users / "elsewhere", users, installed)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_types_reach_a_user(users: Path, installed: Path) -> None:
    found = _run(
        ["-m", "mypy", "--strict", "--no-incremental", "typed.py"], users, installed
    ).stdout.splitlines()
    assert not [line for line in found if " error: " in line], found
    revealed = [line for line in found if "Revealed type" in line]
    assert len(revealed) == TYPED.count("reveal_type")
    assert not [line for line in revealed if "Any" in line], revealed


def test_types_reach_a_user_of_pyright(users: Path, installed: Path) -> None:
    (users / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "include": ["typed.py"], "reportUnusedExpression": false}'
    )
    done = _run(
        ["-m", "pyright", "--pythonpath", sys.executable, "-p", str(users)], users, installed
    )
    lines = done.stdout.splitlines()
    assert not [line for line in lines if " error: " in line], done.stdout
    revealed = [line for line in lines if " information: Type of " in line]
    assert len(revealed) == TYPED.count("reveal_type"), done.stdout
    assert not [line for line in revealed if "Any" in line or "Unknown" in line], revealed
